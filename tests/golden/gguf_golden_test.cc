// Models in GGUF files against logits that were computed in fp32 from the
// dequantized weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "common/json.h"
#include "tests/golden/golden_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using Parameters = std::tuple<GoldenBackend, std::string>;

class GgufGoldenTest : public ::testing::TestWithParam<Parameters> {};

TEST_P(GgufGoldenTest, LogitsAndGreedyIdsAreThoseOfTheWeightsInside) {
  const auto& [backend, name] = GetParam();
  CARAVAN_REFERENCE_PATH_OR_SKIP(folder, "gguf");
  const auto golden =
      ParseJson(testing::ReadFile(folder + "/" + name + ".json"));
  ASSERT_OK_AND_ASSIGN(
      const auto model,
      GoldenModel::Load(folder + "/" + name + ".gguf", backend));
  EXPECT_EQ(model->loaded().description.plan.weight_bytes,
            model->loaded().weights.bytes);
  const auto ids = golden["input_ids"].get<std::vector<int32_t>>();
  model->Start(static_cast<int32_t>(ids.size()));
  ASSERT_OK_AND_ASSIGN(const LogitRows rows, model->Run(ids, 7));
  const std::string raw =
      testing::ReadFile(folder + "/" + name + ".logits.f32");
  const size_t vocabulary = golden["logits_shape"][1];
  const auto positions = golden["logits_positions"].get<std::vector<size_t>>();
  ASSERT_EQ(raw.size(), positions.size() * vocabulary * sizeof(float));
  std::vector<float> expected(positions.size() * vocabulary);
  std::memcpy(expected.data(), raw.data(), raw.size());
  const auto [least, greatest] =
      std::minmax_element(expected.begin(), expected.end());
  const float tolerance = 2e-4f * (*greatest - *least);
  for (size_t i = 0; i < positions.size(); ++i) {
    for (size_t id = 0; id < vocabulary; ++id) {
      ASSERT_NEAR(rows[positions[i]][id], expected[i * vocabulary + id],
                  tolerance)
          << "position " << positions[i] << " id " << id;
    }
  }
  const auto greedy = golden["greedy_ids"].get<std::vector<int32_t>>();
  ASSERT_OK_AND_ASSIGN(
      const std::vector<int32_t> got,
      model->Greedy(ids, static_cast<int32_t>(greedy.size()), false));
  EXPECT_EQ(got, greedy);
}

INSTANTIATE_TEST_SUITE_P(
    Files, GgufGoldenTest,
    ::testing::Combine(::testing::ValuesIn(GoldenBackends()),
                       ::testing::Values("stories260k-f16", "tiny-gqa-q4_0",
                                         "tiny-256-q4_k_m")),
    [](const ::testing::TestParamInfo<Parameters>& info) {
      std::string name =
          std::get<0>(info.param).name + "_" + std::get<1>(info.param);
      std::ranges::replace_if(
          name, [](char c) { return !std::isalnum(c); }, '_');
      return name;
    });

}  // namespace
}  // namespace caravan::worker
