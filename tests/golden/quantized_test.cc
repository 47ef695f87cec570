// What int8 activations cost: the embedded model in every block type that can
// be written, against fp32 arithmetic on the same weights.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "tests/golden/golden_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/gguf_export.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker {
namespace {

constexpr NumericsOptions kFp32 = {ActivationType::kFp32, DType::kFp32};
constexpr NumericsOptions kInt8 = {ActivationType::kInt8, DType::kBf16};

double NegativeLogprob(const std::vector<float>& logits, int32_t id) {
  double greatest = logits[0];
  for (const float logit : logits) greatest = std::fmax(greatest, logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - greatest);
  return greatest + std::log(sum) - logits[static_cast<size_t>(id)];
}

class QuantizedTest : public ::testing::TestWithParam<WeightType> {
 protected:
  QuantizedTest() {
    const auto golden = ParseJson(testing::ReadFile(
        testing::RepositoryPath("deploy/demo-model/goldens.json")));
    using Ids = std::vector<int32_t>;
    texts_.push_back(golden["story_logprobs"]["ids"].get<Ids>());
    for (const auto& prompt : golden["prompts"]) {
      Ids ids = prompt["input_ids"].get<Ids>();
      const Ids output = prompt["greedy_ids"].get<Ids>();
      ids.insert(ids.end(), output.begin(), output.end());
      texts_.push_back(std::move(ids));
    }
  }

  // Of the golden texts: a story, and what greedy decoding made of prompts.
  double Perplexity(const std::string& model_path,
                    const NumericsOptions& numerics) {
    const GoldenBackend backend = {
        "cpu", [&] { return MakeCpuBackend({.numerics = numerics}); }};
    const auto model = GoldenModel::Load(model_path, backend);
    EXPECT_OK(model.status());
    double sum = 0;
    size_t count = 0;
    for (const std::vector<int32_t>& ids : texts_) {
      (*model)->Start(static_cast<int32_t>(ids.size()));
      const auto rows = (*model)->Run(ids, 64);
      EXPECT_OK(rows.status());
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        sum += NegativeLogprob((*rows)[i], ids[i + 1]);
      }
      count += ids.size() - 1;
    }
    return std::exp(sum / static_cast<double>(count));
  }

  std::vector<std::vector<int32_t>> texts_;
};

TEST_P(QuantizedTest, PerplexityIsThatOfTheWeightsInside) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const testing::TemporaryDirectory folder;
  const std::string file = folder.File("demo.gguf");
  ASSERT_OK(ExportGguf(demo, file, {.type = GetParam()}));
  const double plain = Perplexity(demo, kFp32);
  const double inside = Perplexity(file, kFp32);
  const double rounded = Perplexity(file, kInt8);
  std::cout << Name(GetParam()) << ": perplexity " << rounded
            << " with int8 activations, " << inside << " with fp32 ("
            << 100 * (rounded / inside - 1) << " %), " << plain
            << " before quantization (" << 100 * (inside / plain - 1)
            << " %)\n";
  EXPECT_NEAR(rounded / inside, 1, 0.002);
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizedTest,
                         ::testing::Values(WeightType::kQ8_0, WeightType::kQ4_0,
                                           WeightType::kQ4_1, WeightType::kQ5_0,
                                           WeightType::kQ5_1, WeightType::kQ4_K,
                                           WeightType::kQ6_K),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

}  // namespace
}  // namespace caravan::worker
