#include "worker/ops/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "common/sampling/philox.h"

namespace caravan::worker {
namespace {

using sampling::SamplingParams;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Trial {
  SamplingParams params;
  int32_t min_tokens = 0;
  std::vector<int32_t> end_ids;
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  int32_t position = 0;
  int32_t choice = 0;
};

TokenScore Sample(std::vector<float> logits, const Trial& trial) {
  const SamplingState state(trial.params, trial.choice, trial.min_tokens,
                            trial.end_ids, trial.prompt, trial.output);
  return SampleToken(logits, {0, &state, trial.position});
}

Trial Greedy() {
  Trial trial;
  trial.params.temperature = 0;
  return trial;
}

// Which ids come out of 2,000 positions.
std::map<int32_t, int> Histogram(const std::vector<float>& logits,
                                 Trial trial) {
  std::map<int32_t, int> counts;
  for (trial.position = 0; trial.position < 2000; ++trial.position) {
    ++counts[Sample(logits, trial).token_id];
  }
  return counts;
}

std::set<int32_t> Support(const std::vector<float>& logits,
                          const Trial& trial) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : Histogram(logits, trial)) ids.insert(id);
  return ids;
}

TEST(SampleTest, GreedyTakesTheGreatestAndTiesGoToTheLowerId) {
  EXPECT_EQ(Sample({1, 3, 2, 3}, Greedy()).token_id, 1);
  EXPECT_EQ(Sample({-5, -5, -5}, Greedy()).token_id, 0);
}

TEST(SampleTest, GreedyIgnoresCutsThatOnlyShapeProbabilities) {
  Trial trial = Greedy();
  trial.params.top_k = 1;
  trial.params.top_p = 0.01f;
  trial.params.min_p = 1;
  EXPECT_EQ(Sample({1, 3, 2, 3}, trial).token_id, 1);
}

TEST(SampleTest, RepetitionPenaltyCountsPromptAndOutput) {
  Trial trial = Greedy();
  trial.params.repetition_penalty = 2;
  trial.prompt = {1};
  EXPECT_EQ(Sample({1.2f, 2, 1}, trial).token_id, 0);
  trial.prompt = {};
  trial.output = {1};
  EXPECT_EQ(Sample({1.2f, 2, 1}, trial).token_id, 0);
  // A negative logit becomes smaller too.
  EXPECT_EQ(Sample({-1.5f, -1, -3}, trial).token_id, 0);
}

TEST(SampleTest, PresenceAndFrequencyCountOutputOnly) {
  Trial trial = Greedy();
  trial.params.presence_penalty = 1;
  trial.prompt = {1};
  EXPECT_EQ(Sample({1.5f, 2}, trial).token_id, 1);
  trial.output = {1};
  EXPECT_EQ(Sample({1.5f, 2}, trial).token_id, 0);
  trial.params.presence_penalty = 0;
  trial.params.frequency_penalty = 0.25f;
  EXPECT_EQ(Sample({1.5f, 2}, trial).token_id, 1);
  trial.output = {1, 1, 1};
  EXPECT_EQ(Sample({1.5f, 2}, trial).token_id, 0);
}

TEST(SampleTest, BiasIsAddedAfterPenaltiesForEachEntry) {
  Trial trial = Greedy();
  trial.params.logit_bias = {{0, 0.6f}, {0, 0.6f}};
  EXPECT_EQ(Sample({1, 2}, trial).token_id, 0);
}

TEST(SampleTest, EndTokensAreMaskedBeforeMinTokens) {
  Trial trial = Greedy();
  trial.end_ids = {1};
  trial.min_tokens = 3;
  trial.position = 2;
  EXPECT_EQ(Sample({1, 5}, trial).token_id, 0);
  trial.position = 3;
  EXPECT_EQ(Sample({1, 5}, trial).token_id, 1);
  trial.params.temperature = 1;
  trial.position = 0;
  EXPECT_EQ(Sample({1, 50}, trial).token_id, 0);
}

TEST(SampleTest, ExtremePenaltiesAndBiasesKeepLogitsFinite) {
  Trial trial;
  trial.params.repetition_penalty = 1e-30f;
  trial.params.temperature = 1e-30f;
  trial.prompt = {0, 1};
  EXPECT_EQ(Sample({3e38f, 3e38f, 1}, trial).token_id, 0);
}

TEST(SampleTest, NotANumberAndInfinityGiveNoToken) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    EXPECT_FALSE(Sample({1, bad, 2}, Greedy()).finite);
    EXPECT_FALSE(ScoreToken(std::vector<float>{1, bad}, 0, 0).finite);
  }
}

TEST(SampleTest, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f),
                                     std::log(0.2f)};
  Trial trial;
  trial.params.seed = 12345;
  const std::map<int32_t, int> counts = Histogram(logits, trial);
  EXPECT_NEAR(counts.at(0), 1000, 90);
  EXPECT_NEAR(counts.at(1), 600, 80);
  EXPECT_NEAR(counts.at(2), 400, 75);
}

TEST(SampleTest, TemperatureFlattensOrSharpens) {
  const std::vector<float> logits = {2, 0};
  Trial trial;
  trial.params.temperature = 2;  // odds e : 1
  EXPECT_NEAR(Histogram(logits, trial)[0], 2000 * 0.731, 80);
  trial.params.temperature = 0.5f;  // odds e^4 : 1
  EXPECT_NEAR(Histogram(logits, trial)[0], 2000 * 0.982, 25);
}

TEST(SampleTest, TopKKeepsTheFirstWithTiesToTheLowerId) {
  Trial trial;
  trial.params.top_k = 2;
  EXPECT_THAT(Support({1, 2, 1, 1}, trial), UnorderedElementsAre(0, 1));
  trial.params.top_k = 100;
  EXPECT_EQ(Support({1, 2, 1, 1}, trial).size(), 4u);
}

TEST(SampleTest, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f),
                                     std::log(0.3f)};
  Trial trial;
  trial.params.top_p = 0.49f;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(1));
  trial.params.top_p = 0.6f;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(1, 2));
  trial.params.top_p = 0.9f;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(0, 1, 2));
  trial.params.top_p = 1e-30f;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(1));
}

TEST(SampleTest, TopPIsTakenOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f),
                                     std::log(0.3f)};
  Trial trial;
  trial.params.top_k = 2;
  trial.params.top_p = 0.55f;  // 0.4 / 0.7 = 0.57 reaches it alone
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(0));
}

TEST(SampleTest, MinPIsRelativeToTheGreatest) {
  const std::vector<float> logits = {std::log(0.6f), std::log(0.29f),
                                     std::log(0.11f)};
  Trial trial;
  trial.params.min_p = 0.25f;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(0, 1));
  trial.params.min_p = 1;
  EXPECT_THAT(Support(logits, trial), UnorderedElementsAre(0));
}

TEST(SampleTest, DrawIsAFunctionOfSeedPositionAndChoice) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i % 7) * 0.1f;
  }
  Trial trial;
  trial.params.seed = 7;
  const int32_t first = Sample(logits, trial).token_id;
  EXPECT_EQ(Sample(logits, trial).token_id, first);
  Trial other = trial;
  other.params.seed = 8;
  EXPECT_NE(Sample(logits, other).token_id, first);
  other = trial;
  other.position = 1;
  EXPECT_NE(Sample(logits, other).token_id, first);
  other = trial;
  other.choice = 1;
  EXPECT_NE(Sample(logits, other).token_id, first);
}

// The rule of sample.h, written again in the plainest way.
int32_t PlainDraw(const std::vector<uint64_t>& weights,
                  const SamplingParams& params, uint32_t draw) {
  using Wide = unsigned __int128;
  std::vector<int32_t> order;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) order.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return weights[a] > weights[b];
  });
  if (params.top_k > 0 && order.size() > static_cast<size_t>(params.top_k)) {
    order.resize(params.top_k);
  }
  Wide all = 0;
  for (const int32_t id : order) all += weights[id];
  const Wide share = static_cast<uint64_t>(double{params.top_p} * 0x1p32);
  Wide sum = 0;
  size_t kept = 0;
  do {
    sum += weights[order[kept++]];
  } while ((sum << 32) < share * all);
  order.resize(kept);
  const Wide least = static_cast<uint64_t>(double{params.min_p} * 0x1p32);
  std::erase_if(order, [&](int32_t id) {
    return (Wide{weights[id]} << 32) < (least << 40);
  });
  std::sort(order.begin(), order.end());
  Wide rest = 0;
  for (const int32_t id : order) rest += weights[id];
  const Wide target = (Wide{draw} * rest) >> 32;
  sum = 0;
  for (const int32_t id : order) {
    sum += weights[id];
    if (sum > target) return id;
  }
  return -1;
}

TEST(SampleTest, DrawsAreThoseOfThePlainRule) {
  std::mt19937_64 random(99);
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<uint64_t> weights(1 + random() % 700);
    for (uint64_t& weight : weights) {
      weight = random() % 4 == 0 ? 0 : (uint64_t{1} << 40) >> (random() % 30);
    }
    weights[random() % weights.size()] = uint64_t{1} << 40;
    SamplingParams params;
    if (random() % 2) params.top_k = static_cast<int32_t>(1 + random() % 600);
    if (random() % 2) params.top_p = static_cast<float>(random() % 1000) / 999;
    if (random() % 3 == 0) {
      params.min_p = static_cast<float>(random() % 100) / 1000;
    }
    const uint32_t draw = static_cast<uint32_t>(random());
    ASSERT_EQ(DrawToken(weights, params, draw),
              PlainDraw(weights, params, draw))
        << "trial " << trial;
  }
}

TEST(LogprobTest, LogSoftmaxHoldsAcrossSegments) {
  std::mt19937 random(5);
  for (const size_t count :
       {size_t{1}, size_t{15}, size_t{4096}, size_t{4097}, size_t{10000}}) {
    std::vector<float> logits(count);
    for (float& logit : logits) {
      logit = static_cast<float>(random() % 2000) / 100.0f - 10.0f;
    }
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    const LogNormalizer normalizer = ComputeLogNormalizer(logits);
    for (size_t i = 0; i < count; i += 97) {
      EXPECT_NEAR(Logprob(normalizer, logits[i]), logits[i] - std::log(sum),
                  4e-6);
    }
  }
}

TEST(LogprobTest, ScoresAreOfRawLogitsWhateverThePenalties) {
  Trial trial = Greedy();
  trial.params.logprob_count = 2;
  trial.params.logit_bias = {{2, 50}};
  const TokenScore score = Sample({3, 2, 1}, trial);
  EXPECT_EQ(score.token_id, 2);
  EXPECT_EQ(score.rank, 3);
  const double sum = std::exp(3.0) + std::exp(2.0) + std::exp(1.0);
  EXPECT_NEAR(score.logprob, 1 - std::log(sum), 1e-6);
  ASSERT_EQ(score.candidates.size(), 2u);
  EXPECT_EQ(score.candidates[0].token_id, 0);
  EXPECT_EQ(score.candidates[1].token_id, 1);
}

TEST(LogprobTest, RanksAndCandidatesBreakTiesByLowerId) {
  const std::vector<float> logits = {1, 5, 5, 0};
  const TokenScore score = ScoreToken(logits, 2, 10);
  EXPECT_EQ(score.rank, 1);
  std::vector<int32_t> ids;
  for (const TokenCandidate& c : score.candidates) ids.push_back(c.token_id);
  EXPECT_THAT(ids, ElementsAre(1, 2, 0, 3));
}

TEST(SamplingStateTest, HistoryIsKeptOnlyWherePenaltiesNeedIt) {
  const std::vector<int32_t> prompt = {1, 2};
  SamplingState plain({}, 0, 0, {}, prompt, {});
  plain.Append(3);
  EXPECT_TRUE(plain.seen().empty());
  SamplingParams params;
  params.presence_penalty = 1;
  SamplingState counted(params, 0, 0, {}, prompt, prompt);
  counted.Append(2);
  counted.Append(9);
  EXPECT_EQ(counted.seen().at(2).output_count, 2);
  EXPECT_TRUE(counted.seen().at(2).in_prompt);
  EXPECT_EQ(counted.seen().at(9).output_count, 1);
  EXPECT_FALSE(counted.seen().at(9).in_prompt);
}

}  // namespace
}  // namespace caravan::worker
