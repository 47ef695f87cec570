// Logits, greedy continuations and log probabilities against goldens that were
// computed with implementations that are not part of this project.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "common/json.h"
#include "common/strings.h"
#include "tests/golden/golden_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/ops/sample.h"

namespace caravan::worker {
namespace {

using nlohmann::json;
using ::testing::ElementsAreArray;

// Of the range of a golden's logits (greatest less least).
constexpr double kLogitTolerance = 2e-4;

json ParseFile(const std::string& path) {
  json value = ParseJson(testing::ReadFile(path));
  EXPECT_FALSE(value.is_discarded()) << path;
  return value;
}

std::vector<json> ParseLines(const std::string& path) {
  std::istringstream in(testing::ReadFile(path));
  std::vector<json> rows;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) rows.push_back(ParseJson(line));
  }
  return rows;
}

std::vector<float> ReadFloats(const std::string& path) {
  const std::string bytes = testing::ReadFile(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::vector<int32_t> Ids(const json& list) {
  return list.get<std::vector<int32_t>>();
}

// Row i of `expected` is the golden of got[positions[i]].
void ExpectLogitsNear(const std::vector<float>& expected, const LogitRows& got,
                      const std::vector<int32_t>& positions) {
  const size_t vocabulary = got.at(0).size();
  ASSERT_EQ(expected.size(), positions.size() * vocabulary);
  const auto [least, greatest] =
      std::minmax_element(expected.begin(), expected.end());
  const double allowed = kLogitTolerance * (*greatest - *least);
  double worst = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    for (size_t v = 0; v < vocabulary; ++v) {
      worst = std::max(worst, std::abs(double{got[positions[i]][v]} -
                                       expected[i * vocabulary + v]));
    }
  }
  EXPECT_LE(worst, allowed);
}

std::vector<int32_t> Iota(int32_t count) {
  std::vector<int32_t> values(count);
  for (int32_t i = 0; i < count; ++i) values[i] = i;
  return values;
}

// Logprobs of ids[1...] after what stands before each.
std::vector<float> Score(GoldenModel& model, const std::vector<int32_t>& ids) {
  model.Start(static_cast<int32_t>(ids.size()));
  const auto rows = model.Run(ids, /*chunk=*/64);
  EXPECT_OK(rows);
  std::vector<float> logprobs;
  if (!rows.ok()) return logprobs;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    logprobs.push_back(ScoreToken((*rows)[i], ids[i + 1], 0).logprob);
  }
  return logprobs;
}

class GoldenTest : public ::testing::TestWithParam<GoldenBackend> {
 protected:
  std::unique_ptr<GoldenModel> Load(const std::string& directory) {
    auto model = GoldenModel::Load(directory, GetParam());
    EXPECT_OK(model);
    return model.ok() ? *std::move(model) : nullptr;
  }
};

struct TinyCase {
  GoldenBackend backend;
  std::string model;
};

void PrintTo(const TinyCase& value, std::ostream* out) {
  *out << value.backend.name << " " << value.model;
}

class TinyGoldenTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  void SetUp() override {
    directory_ =
        testing::RepositoryPath(StrCat("tests/data/tiny/", GetParam().model));
    golden_ = ParseFile(StrCat(directory_, "/goldens.json"));
    auto model = GoldenModel::Load(directory_, GetParam().backend);
    ASSERT_OK(model);
    model_ = *std::move(model);
  }
  std::string directory_;
  json golden_;
  std::unique_ptr<GoldenModel> model_;
};

TEST_P(TinyGoldenTest, LogitsAreWithinToleranceInEveryChunking) {
  const std::vector<int32_t> ids = Ids(golden_["input_ids"]);
  const std::vector<float> expected = ReadFloats(
      StrCat(directory_, "/", golden_["logits_file"].get<std::string>()));
  LogitRows whole;
  for (const int32_t chunk : {64, 7, 1}) {
    model_->Start(static_cast<int32_t>(ids.size()));
    ASSERT_OK_AND_ASSIGN(const LogitRows rows, model_->Run(ids, chunk));
    ExpectLogitsNear(expected, rows, Ids(golden_["logits_positions"]));
    if (whole.empty()) whole = rows;
    EXPECT_TRUE(rows == whole) << "bits differ with chunks of " << chunk;
  }
}

TEST_P(TinyGoldenTest, GreedyContinuationIsEqual) {
  const std::vector<int32_t> expected = Ids(golden_["greedy_ids"]);
  for (const bool resume : {false, true}) {
    ASSERT_OK_AND_ASSIGN(
        const std::vector<int32_t> ids,
        model_->Greedy(Ids(golden_["input_ids"]),
                       static_cast<int32_t>(expected.size()), resume));
    EXPECT_THAT(ids, ElementsAreArray(expected)) << "resume " << resume;
  }
}

TEST_P(TinyGoldenTest, RopeFrequenciesAreThoseOfTheGolden) {
  const Rope rope(model_->loaded().description.config);
  const std::vector<float> got = rope.InverseFrequencies(47, 48);
  const auto expected = golden_["rope_inverse_frequencies_at_48_tokens"]
                            .get<std::vector<double>>();
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], expected[i], 1e-6 * expected[i]) << "pair " << i;
  }
  EXPECT_NEAR(rope.attention_factor(),
              golden_["rope_cos_sin_factor"].get<double>(), 1e-6);
}

std::vector<TinyCase> TinyCases() {
  std::vector<TinyCase> cases;
  for (const GoldenBackend& backend : GoldenBackends()) {
    for (const char* const model :
         {"attention-bias", "explicit-head-dim", "float16", "gqa",
          "head-dim-100", "llama1-mha", "mlp-bias", "mqa", "rope-dynamic",
          "rope-linear", "rope-llama3", "rope-yarn", "rope-yarn-64k", "sharded",
          "theta-1e6-padded-vocab", "tied"}) {
      cases.push_back({backend, model});
    }
  }
  return cases;
}

std::string CaseName(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Tiny, TinyGoldenTest, ::testing::ValuesIn(TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return CaseName(info.param.backend.name + "_" +
                                           info.param.model);
                         });

TEST_P(GoldenTest, DynamicRopeCrossesItsLimitAsWithACache) {
  const std::string directory =
      testing::RepositoryPath("tests/data/tiny/rope-dynamic");
  const json golden = ParseFile(directory + "/goldens.json");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  const json& crossing = golden["crossing"];
  const std::vector<int32_t> expected = Ids(crossing["greedy_ids_with_cache"]);
  for (const bool resume : {false, true}) {
    ASSERT_OK_AND_ASSIGN(
        const std::vector<int32_t> ids,
        model->Greedy(Ids(crossing["input_ids"]),
                      static_cast<int32_t>(expected.size()), resume));
    EXPECT_THAT(ids, ElementsAreArray(expected)) << "resume " << resume;
  }
}

TEST_P(GoldenTest, DynamicRopeDoesNotScaleBelowItsLimit) {
  const std::string directory =
      testing::RepositoryPath("tests/data/tiny/rope-dynamic");
  const json golden = ParseFile(directory + "/goldens.json")["short"];
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> ids = Ids(golden["input_ids"]);
  model->Start(static_cast<int32_t>(ids.size()));
  ASSERT_OK_AND_ASSIGN(const LogitRows rows, model->Run(ids, 64));
  ExpectLogitsNear(ReadFloats(directory + "/logits-short.f32"), rows,
                   Ids(golden["logits_positions"]));
}

TEST_P(GoldenTest, EmbeddedModelContinuesAsTheIndependentForwardPass) {
  constexpr double kNearTie = 0.001;
  const std::string directory = testing::RepositoryPath("deploy/demo-model");
  const json golden = ParseFile(directory + "/goldens.json");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  for (const json& prompt : golden["prompts"]) {
    if (prompt["min_gap"].get<double>() < kNearTie) continue;
    const std::vector<int32_t> expected = Ids(prompt["greedy_ids"]);
    ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids,
                         model->Greedy(Ids(prompt["input_ids"]),
                                       static_cast<int32_t>(expected.size()),
                                       /*resume_each_step=*/false,
                                       model->loaded().description.eos_ids));
    EXPECT_THAT(ids, ElementsAreArray(expected)) << prompt["name"];
  }
}

TEST_P(GoldenTest, EmbeddedModelHasTheGoldenBestLogits) {
  const std::string directory = testing::RepositoryPath("deploy/demo-model");
  const json golden = ParseFile(directory + "/goldens.json");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  for (const json& prompt : golden["prompts"]) {
    const std::vector<int32_t> ids = Ids(prompt["input_ids"]);
    model->Start(static_cast<int32_t>(ids.size()));
    ASSERT_OK_AND_ASSIGN(const LogitRows rows, model->Run(ids, 64));
    const auto best = std::max_element(rows.back().begin(), rows.back().end());
    EXPECT_EQ(best - rows.back().begin(), prompt["top5"][0]["id"]);
    for (const json& entry : prompt["top5"]) {
      EXPECT_NEAR(rows.back()[entry["id"].get<size_t>()],
                  entry["logit"].get<double>(), 2e-3)
          << prompt["name"];
    }
  }
}

TEST_P(GoldenTest, EmbeddedModelScoresTheGoldenStory) {
  const std::string directory = testing::RepositoryPath("deploy/demo-model");
  const json story = ParseFile(directory + "/goldens.json")["story_logprobs"];
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  const std::vector<float> got = Score(*model, Ids(story["ids"]));
  ASSERT_EQ(got.size() + 1, story["logprobs"].size());
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], story["logprobs"][i + 1].get<double>(), 5e-4) << i;
    sum += got[i];
  }
  EXPECT_NEAR(sum, story["sum"].get<double>(), 1e-2);
}

TEST_P(GoldenTest, Stories260kLogitsAreWithinTolerance) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(directory, "stories260k");
  const json golden = ParseFile(directory + "/goldens/logits.json");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> ids = Ids(golden["ids"]);
  model->Start(static_cast<int32_t>(ids.size()));
  ASSERT_OK_AND_ASSIGN(const LogitRows rows, model->Run(ids, 64));
  ExpectLogitsNear(ReadFloats(directory + "/goldens/logits.f32"), rows,
                   Iota(static_cast<int32_t>(ids.size())));
}

TEST_P(GoldenTest, Stories260kGreedyContinuationsAreEqual) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(directory, "stories260k");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  std::vector<json> cases = ParseLines(directory + "/goldens/greedy.jsonl");
  cases.push_back(ParseFile(directory + "/goldens/greedy-long.json"));
  for (const json& row : cases) {
    const std::vector<int32_t> expected = Ids(row["greedy_ids"]);
    ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids,
                         model->Greedy(Ids(row["prompt_ids"]),
                                       static_cast<int32_t>(expected.size()),
                                       /*resume_each_step=*/false));
    EXPECT_THAT(ids, ElementsAreArray(expected)) << row["prompt_ids"];
  }
}

TEST_P(GoldenTest, Stories260kPerplexityIsEqualToFourDigits) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(directory, "stories260k");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  for (const json& row : ParseLines(directory + "/goldens/logprobs.jsonl")) {
    const std::vector<float> got = Score(*model, Ids(row["ids"]));
    ASSERT_EQ(got.size(), row["token_logprobs"].size());
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], row["token_logprobs"][i].get<double>(), 2e-4) << i;
      sum += got[i];
    }
    const double expected = row["perplexity"].get<double>();
    const double perplexity = std::exp(-sum / static_cast<double>(got.size()));
    EXPECT_NEAR(perplexity, expected, 5e-5 * expected);
  }
}

TEST_P(GoldenTest, Stories260kNamesTheGoldenBestTokens) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(directory, "stories260k");
  const auto model = Load(directory);
  ASSERT_NE(model, nullptr);
  const json row = ParseLines(directory + "/goldens/logprobs.jsonl").at(0);
  const std::vector<int32_t> ids = Ids(row["ids"]);
  model->Start(static_cast<int32_t>(ids.size()));
  ASSERT_OK_AND_ASSIGN(const LogitRows rows, model->Run(ids, 64));
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const TokenScore score = ScoreToken(rows[i], ids[i + 1], 5);
    ASSERT_EQ(score.candidates.size(), 5u);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(score.candidates[k].token_id, row["top5"][i][k][0]);
      EXPECT_NEAR(score.candidates[k].logprob,
                  row["top5"][i][k][1].get<double>(), 5e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Backends, GoldenTest, ::testing::ValuesIn(GoldenBackends()),
    [](const ::testing::TestParamInfo<GoldenBackend>& info) {
      return CaseName(info.param.name);
    });

}  // namespace
}  // namespace caravan::worker
