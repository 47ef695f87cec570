#include "worker/ops/cpu/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/sample.h"

namespace caravan::worker::cpu {
namespace {

using sampling::SamplingParams;

// Logits of several kinds: spread wide, all close together, with many ties.
std::vector<float> Logits(std::mt19937& random, int64_t count, int kind) {
  std::vector<float> logits(static_cast<size_t>(count));
  for (float& logit : logits) {
    const float uniform = static_cast<float>(random() >> 8) * 0x1p-24f;
    switch (kind) {
      case 0:
        logit = (uniform - 0.5f) * 60.0f;
        break;
      case 1:
        logit = (uniform - 0.5f) * 0.5f;
        break;
      default:
        logit = std::floor(uniform * 8.0f) - 4.0f;
        break;
    }
  }
  return logits;
}

SamplingParams Params(std::mt19937& random) {
  SamplingParams params;
  const auto one_of = [&random](auto first, auto second, auto third) {
    const uint32_t choice = random() % 3;
    return choice == 0 ? first : (choice == 1 ? second : third);
  };
  params.temperature = one_of(0.0f, 0.7f, 2.0f);
  params.top_k = one_of(0, 1 + static_cast<int>(random() % 50), 1000000);
  params.top_p = one_of(1.0f, 0.9f, 1e-12f);
  params.min_p = one_of(0.0f, 0.05f, 1.0f);
  params.repetition_penalty = one_of(1.0f, 1.3f, 0.5f);
  params.presence_penalty = one_of(0.0f, 0.5f, -1.0f);
  params.frequency_penalty = one_of(0.0f, 0.0f, 0.2f);
  if (random() % 2 == 0) params.logprob_count = random() % 21;
  if (random() % 3 == 0) params.logit_bias = {{1, 5.0f}, {2, -100.0f}};
  params.seed = random();
  return params;
}

void ExpectSame(const TokenScore& expected, const TokenScore& actual) {
  EXPECT_EQ(expected.finite, actual.finite);
  EXPECT_EQ(expected.token_id, actual.token_id);
  EXPECT_EQ(std::bit_cast<uint32_t>(expected.logprob),
            std::bit_cast<uint32_t>(actual.logprob));
  EXPECT_EQ(expected.rank, actual.rank);
  ASSERT_EQ(expected.candidates.size(), actual.candidates.size());
  for (size_t i = 0; i < expected.candidates.size(); ++i) {
    EXPECT_EQ(expected.candidates[i].token_id, actual.candidates[i].token_id);
    EXPECT_EQ(std::bit_cast<uint32_t>(expected.candidates[i].logprob),
              std::bit_cast<uint32_t>(actual.candidates[i].logprob));
  }
}

class SamplerTest : public ::testing::TestWithParam<CpuIsa> {
 protected:
  std::unique_ptr<Backend> backend_ =
      *MakeCpuBackend({.numerics = {}, .threads = 2, .isa = GetParam()});
};

TEST_P(SamplerTest, SamplesTheTokensOfTheScalarRule) {
  constexpr uint32_t kSeed = 20260101;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const std::vector<int32_t> prompt = {0, 3, 5, 5};
  const std::vector<int32_t> output = {1, 1, 2};
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t vocabulary =
        std::vector<int64_t>{7, 97, 4096, 9001}[trial % 4];
    std::vector<float> logits = Logits(random, vocabulary, trial % 3);
    const SamplingState state(Params(random), /*choice=*/trial % 2,
                              /*min_tokens=*/4, {0, 6}, prompt, output);
    const SampleRow row = {
        .logits_row = 0, .state = &state, .output_position = 3 + trial % 2};
    std::vector<float> copy = logits;
    const TokenScore expected = SampleToken(copy, row);
    TokenScore actual;
    ASSERT_OK(
        backend_->Sample({.logits = View<float>(logits.data(), 1, vocabulary),
                          .samples = {&row, 1},
                          .scores = {},
                          .sampled = {&actual, 1},
                          .scored = {}}));
    ExpectSame(expected, actual);
    if (HasFailure()) FAIL() << "trial " << trial;
  }
}

TEST_P(SamplerTest, ScoresTokensLikeTheScalarRule) {
  std::mt19937 random(5);
  for (const int64_t vocabulary : {1, 17, 4095, 4096, 4097, 12289}) {
    std::vector<float> logits = Logits(random, 2 * vocabulary, 2);
    const std::vector<ScoreRow> rows = {
        {.logits_row = 0, .token_id = 0, .candidate_count = 20},
        {.logits_row = 1,
         .token_id = static_cast<int32_t>(vocabulary - 1),
         .candidate_count = 0}};
    std::vector<TokenScore> actual(2);
    ASSERT_OK(
        backend_->Sample({.logits = View<float>(logits.data(), 2, vocabulary),
                          .samples = {},
                          .scores = rows,
                          .sampled = {},
                          .scored = actual}));
    for (int i = 0; i < 2; ++i) {
      const std::span<const float> row(logits.data() + i * vocabulary,
                                       static_cast<size_t>(vocabulary));
      ExpectSame(ScoreToken(row, rows[i].token_id, rows[i].candidate_count),
                 actual[i]);
    }
  }
}

TEST_P(SamplerTest, LogitsThatAreNotFiniteGiveNoToken) {
  const SamplingState state({}, 0, 0, {}, {}, {});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const size_t place : {0u, 40u, 99u}) {
      std::vector<float> logits(200, 1.0f);
      logits[place] = bad;
      const SampleRow sample = {.logits_row = 0, .state = &state};
      const ScoreRow score = {.logits_row = 0, .token_id = 3};
      TokenScore sampled;
      TokenScore scored;
      ASSERT_OK(backend_->Sample({.logits = View<float>(logits.data(), 2, 100),
                                  .samples = {&sample, 1},
                                  .scores = {&score, 1},
                                  .sampled = {&sampled, 1},
                                  .scored = {&scored, 1}}));
      EXPECT_FALSE(sampled.finite);
      EXPECT_FALSE(scored.finite);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, SamplerTest,
                         ::testing::ValuesIn(AvailableCpuIsas()),
                         [](const ::testing::TestParamInfo<CpuIsa>& info) {
                           return std::string(Name(info.param));
                         });

}  // namespace
}  // namespace caravan::worker::cpu
