// Logits with int8 activations differ from those of fp32 arithmetic on the same
// weights by no more than rounding explains: the scale of the error comes from
// the noise of half a step (rounding_noise.h), not from what was measured.
#include "tests/golden/rounding_noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
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

// Independent errors of which there are many add up to a normal distribution;
// one of 100,000 logits is beyond 6 deviations once in 5,000 runs.
constexpr double kDeviations = 6;
constexpr int kDraws = 6;

LogitRows Logits(const std::string& path, const std::vector<int32_t>& ids,
                 const GoldenBackend& backend) {
  const auto model = GoldenModel::Load(path, backend);
  EXPECT_OK(model.status());
  (*model)->Start(static_cast<int32_t>(ids.size()));
  auto rows = (*model)->Run(ids, 64);
  EXPECT_OK(rows.status());
  return *std::move(rows);
}

GoldenBackend Cpu(const NumericsOptions& numerics) {
  return {"cpu", [=] { return MakeCpuBackend({.numerics = numerics}); }};
}

// Root of the mean square, and the greatest, of the difference.
struct Distance {
  double deviation = 0;
  double greatest = 0;
};

Distance Between(const LogitRows& a, const LogitRows& b) {
  Distance distance;
  double squares = 0;
  double count = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t i = 0; i < a[row].size(); ++i) {
      const double difference = double{a[row][i]} - b[row][i];
      squares += difference * difference;
      distance.greatest = std::fmax(distance.greatest, std::fabs(difference));
      ++count;
    }
  }
  distance.deviation = std::sqrt(squares / count);
  return distance;
}

// Compares row by row: how far rounding reaches differs from token to token.
void ExpectExplained(const std::string& path, const std::vector<int32_t>& ids) {
  const LogitRows exact = Logits(path, ids, Cpu({}));
  const LogitRows rounded =
      Logits(path, ids, Cpu({ActivationType::kInt8, DType::kFp32}));
  std::vector<double> variances(exact.size());
  for (int draw = 0; draw < kDraws; ++draw) {
    const LogitRows noisy = Logits(
        path, ids, {"noisy", [draw] { return MakeNoisyBackend(1 + draw); }});
    for (size_t row = 0; row < exact.size(); ++row) {
      const double d = Between({noisy[row]}, {exact[row]}).deviation;
      variances[row] += d * d / kDraws;
    }
  }
  double worst = 0;
  double variance = 0;
  for (size_t row = 0; row < exact.size(); ++row) {
    const Distance distance = Between({rounded[row]}, {exact[row]});
    const double deviation = std::sqrt(variances[row]);
    worst = std::fmax(worst, distance.greatest / deviation);
    EXPECT_LE(distance.greatest, kDeviations * deviation) << "row " << row;
    variance += variances[row] / static_cast<double>(exact.size());
  }
  const Distance all = Between(rounded, exact);
  std::cout << "int8 activations move logits by " << all.deviation
            << " (root of the mean square), rounding explains "
            << std::sqrt(variance) << "; the greatest is " << worst
            << " deviations\n";
  EXPECT_GT(all.deviation, 0);
  EXPECT_LE(all.deviation, 2 * std::sqrt(variance));
}

class RoundingNoiseTest : public ::testing::TestWithParam<WeightType> {};

TEST_P(RoundingNoiseTest, ExplainsTheLogitsOfTheEmbeddedModel) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const auto golden = ParseJson(testing::ReadFile(demo + "/goldens.json"));
  auto ids = golden["story_logprobs"]["ids"].get<std::vector<int32_t>>();
  ids.resize(std::min<size_t>(ids.size(), 64));
  const testing::TemporaryDirectory folder;
  const std::string file = folder.File("demo.gguf");
  ASSERT_OK(ExportGguf(demo, file, {.type = GetParam()}));
  ExpectExplained(file, ids);
  const Distance distance =
      Between(Logits(file, ids, Cpu({})), Logits(demo, ids, Cpu({})));
  std::cout << Name(GetParam()) << ": quantization itself moves logits by "
            << distance.deviation << ", at most " << distance.greatest << "\n";
}

INSTANTIATE_TEST_SUITE_P(Types, RoundingNoiseTest,
                         ::testing::Values(WeightType::kQ8_0, WeightType::kQ4_0,
                                           WeightType::kQ4_1, WeightType::kQ5_0,
                                           WeightType::kQ5_1, WeightType::kQ4_K,
                                           WeightType::kQ6_K),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

class RoundingNoiseGgufTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundingNoiseGgufTest, ExplainsTheLogitsOfFiles) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(folder, "gguf");
  const std::string path = folder + "/" + GetParam();
  const auto golden = ParseJson(testing::ReadFile(path + ".json"));
  ExpectExplained(path + ".gguf",
                  golden["input_ids"].get<std::vector<int32_t>>());
}

INSTANTIATE_TEST_SUITE_P(Files, RoundingNoiseGgufTest,
                         ::testing::Values("tiny-gqa-q4_0", "tiny-256-q4_k_m"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace caravan::worker
