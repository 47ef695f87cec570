// Sampling on a device gives what worker/ops/sample.h defines: on the emulated
// device always, on the machine's where there is one.
#include "worker/ops/cuda/device_sampler.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/sample.h"

namespace caravan::worker {
namespace {

using sampling::SamplingParams;

// A row of logits and what is asked of it.
struct Row {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  std::vector<int32_t> end_ids;
  int32_t min_tokens = 0;
  int32_t position = 0;
  int32_t given = -1;  // scored instead of sampled
};

absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(bool machine,
                                                  bool descending) {
  if (machine) return MakeCudaBackend({});
  cuda::EmulatedOptions emulated;
  emulated.descending = descending;
  return cuda::MakeBackendOn(std::make_unique<cuda::EmulatedDevice>(emulated),
                             {});
}

// Puts rows one after the other into the backend's memory.
class Logits {
 public:
  Logits(Backend* backend, const std::vector<Row>& rows)
      : cols_(std::ssize(rows[0].logits)), rows_(std::ssize(rows)) {
    arena_ = *backend->AllocateArena(rows_ * cols_ * sizeof(float));
    float* next = reinterpret_cast<float*>(arena_->data);
    std::vector<float> all;
    for (const Row& row : rows) {
      all.insert(all.end(), row.logits.begin(), row.logits.end());
    }
    Fill(backend, all, next);
  }
  View<float> view() const {
    return View<float>(reinterpret_cast<float*>(arena_->data), rows_, cols_);
  }

 private:
  // Rows are looked up in a table made of them.
  void Fill(Backend* backend, const std::vector<float>& all, float* target) {
    const RawMatrix part(reinterpret_cast<const std::byte*>(all.data()),
                         DType::kFp32, rows_, cols_);
    const auto table =
        *backend->Pack({&part, 1}, {.kind = PackKind::kEmbedding});
    std::vector<int32_t> ids(rows_);
    for (int64_t i = 0; i < rows_; ++i) ids[i] = static_cast<int32_t>(i);
    EXPECT_OK(backend->Embed({.ids = ids,
                              .table = table.get(),
                              .x = View<float>(target, rows_, cols_)}));
  }

  std::unique_ptr<Arena> arena_;
  int64_t cols_;
  int64_t rows_;
};

SamplingState StateOf(const Row& row) {
  return SamplingState(row.params, /*choice=*/3, row.min_tokens, row.end_ids,
                       row.prompt, row.output);
}

TokenScore Expected(const Row& row) {
  std::vector<float> logits = row.logits;
  if (row.given >= 0) {
    return ScoreToken(logits, row.given, *row.params.prompt_logprob_count);
  }
  const SamplingState state = StateOf(row);
  return SampleToken(logits, {0, &state, row.position});
}

std::vector<TokenScore> Actual(Backend* backend, const std::vector<Row>& rows) {
  const Logits logits(backend, rows);
  std::vector<SamplingState> states;
  for (const Row& row : rows) states.push_back(StateOf(row));
  std::vector<SampleRow> samples;
  std::vector<ScoreRow> scores;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int32_t index = static_cast<int32_t>(i);
    if (rows[i].given >= 0) {
      scores.push_back(
          {index, rows[i].given, *rows[i].params.prompt_logprob_count});
    } else {
      samples.push_back({index, &states[i], rows[i].position});
    }
  }
  std::vector<TokenScore> sampled(samples.size());
  std::vector<TokenScore> scored(scores.size());
  EXPECT_OK(backend->Sample({logits.view(), samples, scores, sampled, scored}));
  std::vector<TokenScore> all;
  auto next_sampled = sampled.begin();
  auto next_scored = scored.begin();
  for (const Row& row : rows) {
    all.push_back(row.given >= 0 ? *next_scored++ : *next_sampled++);
  }
  return all;
}

void ExpectEqual(const TokenScore& expected, const TokenScore& actual) {
  ASSERT_EQ(expected.finite, actual.finite);
  EXPECT_EQ(expected.token_id, actual.token_id);
  EXPECT_EQ(std::bit_cast<uint32_t>(expected.logprob),
            std::bit_cast<uint32_t>(actual.logprob));
  EXPECT_EQ(expected.rank, actual.rank);
  ASSERT_EQ(expected.candidates.size(), actual.candidates.size());
  for (size_t c = 0; c < expected.candidates.size(); ++c) {
    EXPECT_EQ(expected.candidates[c].token_id, actual.candidates[c].token_id);
    EXPECT_EQ(std::bit_cast<uint32_t>(expected.candidates[c].logprob),
              std::bit_cast<uint32_t>(actual.candidates[c].logprob));
  }
}

struct Place {
  std::string name;
  bool machine = false;
  bool descending = false;
};

class DeviceSamplerTest : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    auto backend = MakeCuda(GetParam().machine, GetParam().descending);
    if (!backend.ok()) GTEST_SKIP() << backend.status().message();
    backend_ = *std::move(backend);
  }

  // Logits of a language model's kind: a few great ones.
  std::vector<float> Peaked(int64_t vocabulary) {
    std::normal_distribution<float> normal(0, 2);
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) logit = normal(random_);
    return logits;
  }
  // Few values, so that many ids are equal.
  std::vector<float> Tied(int64_t vocabulary) {
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) {
      logit = static_cast<float>(random_() % 3) * 0.25f;
    }
    return logits;
  }

  void ExpectTheRule(const std::vector<Row>& rows) {
    const std::vector<TokenScore> actual = Actual(backend_.get(), rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      SCOPED_TRACE(StrCat("row ", i));
      ExpectEqual(Expected(rows[i]), actual[i]);
    }
  }

  std::mt19937_64 random_{11};
  std::unique_ptr<Backend> backend_;
};

TEST_P(DeviceSamplerTest, EveryCutAndTheirCombinationsGiveTheRulesTokens) {
  for (const int64_t vocabulary : {1, 33, 5000}) {
    std::vector<Row> rows;
    for (const int32_t top_k : {0, 1, 40}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 1e-12f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          Row row;
          row.logits = rows.size() % 2 ? Tied(vocabulary) : Peaked(vocabulary);
          row.params.temperature = rows.size() % 3 ? 0.7f : 2.0f;
          row.params.top_k = top_k;
          row.params.top_p = top_p;
          row.params.min_p = min_p;
          row.params.seed = random_();
          row.position = static_cast<int32_t>(rows.size());
          rows.push_back(row);
        }
      }
    }
    ExpectTheRule(rows);
  }
}

TEST_P(DeviceSamplerTest, ManyDrawsFromOneRowGiveTheRulesTokens) {
  std::vector<Row> rows(24);
  const std::vector<float> flat = Tied(300);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].logits = flat;
    rows[i].params.top_p = 0.5f;
    rows[i].params.top_k = i % 2 ? 77 : 0;
    rows[i].params.seed = 5;
    rows[i].position = static_cast<int32_t>(i);
  }
  ExpectTheRule(rows);
}

TEST_P(DeviceSamplerTest, GreedyTiesGoToTheLowerId) {
  Row row;
  row.params.temperature = 0;
  row.params.logprob_count = 20;
  row.logits.assign(9000, -1.0f);
  row.logits[8999] = row.logits[4097] = row.logits[4096] = 2.5f;
  ExpectTheRule({row});
}

TEST_P(DeviceSamplerTest, PenaltiesBiasesAndMasksAreThoseOfTheRule) {
  std::vector<Row> rows;
  for (int i = 0; i < 12; ++i) {
    Row row;
    row.logits = Peaked(5000);
    row.params.temperature = i % 2 ? 0.0f : 1.0f;
    row.params.repetition_penalty = i % 3 ? 1.3f : 1.0f;
    row.params.presence_penalty = i % 4 ? 0.7f : 0.0f;
    row.params.frequency_penalty = i % 5 ? -1.1f : 0.0f;
    row.params.logprob_count = i % 2 ? 5 : 0;
    row.params.seed = 99 + i;
    for (int id = 0; id < 40; ++id) {
      row.prompt.push_back(static_cast<int32_t>(random_() % 5000));
      row.output.push_back(static_cast<int32_t>(random_() % 50));
    }
    // Twice the same id, in this order; and the greatest of floats.
    row.params.logit_bias = {{7, 1e-3f}, {4999, 100.0f}, {7, 9.0f}, {3, -100}};
    row.logits[4999] = std::numeric_limits<float>::max();
    row.end_ids = {7, 4998, 7};
    row.min_tokens = i % 2;
    rows.push_back(row);
  }
  ExpectTheRule(rows);
}

TEST_P(DeviceSamplerTest, ScoresOfPromptsStandBesideSamples) {
  std::vector<Row> rows(6);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].logits = i % 2 ? Peaked(8193) : Tied(8193);
    rows[i].params.prompt_logprob_count = static_cast<int32_t>(i) * 4;
    if (i % 3 == 0) rows[i].params.logprob_count = 3;
    if (i % 3 != 0) rows[i].given = static_cast<int32_t>(random_() % 8193);
  }
  ExpectTheRule(rows);
}

TEST_P(DeviceSamplerTest, MoreCandidatesThanIdsAreAllIds) {
  Row row;
  row.logits = {0.5f, -1.0f, 0.5f};
  row.params.logprob_count = 20;
  ExpectTheRule({row});
}

TEST_P(DeviceSamplerTest, LogitsThatAreNotFiniteAreTold) {
  std::vector<Row> rows(4);
  for (Row& row : rows) {
    row.logits = Peaked(4100);
    row.params.top_k = 3;
    row.params.logprob_count = 2;
  }
  rows[0].logits[4099] = std::numeric_limits<float>::quiet_NaN();
  rows[1].logits[0] = std::numeric_limits<float>::infinity();
  rows[2].logits.assign(4100, -std::numeric_limits<float>::infinity());
  ExpectTheRule(rows);
}

TEST_P(DeviceSamplerTest, LogitsAreLeftAsTheyWere) {
  Row row;
  row.logits = Peaked(100);
  row.params.repetition_penalty = 1.5f;
  row.prompt = {1, 2, 3};
  row.end_ids = {2, 9};
  row.min_tokens = 5;
  row.params.logprob_count = 1;
  Row other = row;
  other.params = SamplingParams();
  other.params.logprob_count = 20;
  // Ranks and candidates of the second call see the first one's edits undone.
  ExpectTheRule({row, other});
  ExpectTheRule({other, row});
}

INSTANTIATE_TEST_SUITE_P(
    On, DeviceSamplerTest,
    ::testing::Values(Place{"Emulated"},
                      Place{.name = "EmulatedDescending", .descending = true},
                      Place{.name = "Machine", .machine = true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace caravan::worker
