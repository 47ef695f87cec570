#include "worker/ops/sample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "common/sampling/philox.h"
#include "worker/ops/canonical_math.h"

namespace caravan::worker {
namespace {

using Uint128 = unsigned __int128;

// An id that may be drawn. Order of choice: weight descending, id ascending.
struct Weighted {
  uint64_t weight;
  int32_t id;
};
bool Before(const Weighted& a, const Weighted& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

// The sum of a segment's exponentials relative to its maximum.
float SegmentSum(std::span<const float> logits, float max) {
  std::array<float, 16> lanes = {};
  for (size_t i = 0; i < logits.size(); ++i) {
    lanes[i % 16] += Exp(logits[i] - max);
  }
  for (const int width : {8, 4, 2, 1}) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

void Penalize(const SamplingState& state, std::span<float> logits) {
  const sampling::SamplingParams& params = state.params();
  for (const auto& [id, seen] : state.seen()) {
    float& logit = logits[id];
    if (params.repetition_penalty != 1.0f) {
      logit = PenalizeRepetition(logit, params.repetition_penalty);
    }
    if (seen.output_count > 0) {
      logit = PenalizeOutput(logit, seen.output_count, params.frequency_penalty,
                             params.presence_penalty);
    }
  }
}

uint64_t SumOf(std::span<const Weighted> items) {
  uint64_t sum = 0;
  for (const Weighted& item : items) sum += item.weight;
  return sum;
}

// Leaves the `count` first in order, in any order among them.
void KeepFirst(size_t count, std::vector<Weighted>& items) {
  if (count >= items.size()) return;
  std::nth_element(items.begin(), items.begin() + count, items.end(), Before);
  items.resize(count);
}

// Leaves the shortest prefix of the order whose sum reaches top_p. Sorts only
// as far as that prefix is likely to reach, then farther.
void KeepTopP(float top_p, std::vector<Weighted>& items) {
  const Uint128 wanted = Uint128{Fixed32(top_p)} * SumOf(items);
  uint64_t sum = 0;
  size_t sorted = 0;
  while (sorted < items.size()) {
    const size_t end = std::min(items.size(), std::max<size_t>(64, sorted * 8));
    const auto middle = items.begin() + static_cast<ptrdiff_t>(end);
    std::partial_sort(items.begin() + static_cast<ptrdiff_t>(sorted), middle,
                      items.end(), Before);
    for (; sorted < end; ++sorted) {
      sum += items[sorted].weight;
      if (Uint128{sum} << 32 >= wanted) {
        items.resize(sorted + 1);
        return;
      }
    }
  }
}

void KeepMinP(float min_p, std::vector<Weighted>& items) {
  const uint64_t least = LeastWeight(min_p);
  std::erase_if(items,
                [least](const Weighted& item) { return item.weight < least; });
}

// Step 9: `items` in ascending id.
int32_t PickByDraw(std::span<const Weighted> items, uint32_t draw) {
  const uint64_t target = DrawTarget(draw, SumOf(items));
  uint64_t sum = 0;
  for (const Weighted& item : items) {
    sum += item.weight;
    if (sum > target) return item.id;
  }
  return items.back().id;  // not reached: target is below the whole sum
}

int32_t DrawFromLogits(std::span<const float> logits, const SampleRow& row) {
  const sampling::SamplingParams& params = row.state->params();
  const float max = logits[ArgMax(logits)];
  std::vector<uint64_t> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    weights[i] = SampleWeight(logits[i], max, params.temperature);
  }
  const uint32_t draw = sampling::TokenDraw(
      params.seed, static_cast<uint32_t>(row.output_position),
      static_cast<uint32_t>(row.state->choice()));
  return DrawToken(weights, params, draw);
}

// The `count` most probable ids; greater logits first, then lower ids.
std::vector<TokenCandidate> TopCandidates(std::span<const float> logits,
                                          const LogNormalizer& normalizer,
                                          int32_t count) {
  const size_t kept = std::min(static_cast<size_t>(count), logits.size());
  std::vector<TokenCandidate> top(kept);
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(kept),
                    ids.end(), [logits](int32_t a, int32_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b]
                                                    : a < b;
                    });
  for (size_t i = 0; i < kept; ++i) {
    top[i] = {ids[i], Logprob(normalizer, logits[ids[i]])};
  }
  return top;
}

}  // namespace

bool AllFinite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(),
                     [](float logit) { return std::isfinite(logit); });
}

LogNormalizer ComputeLogNormalizer(std::span<const float> logits) {
  ExpSum all;
  for (size_t first = 0; first < logits.size(); first += kLogprobSegmentIds) {
    const std::span<const float> segment = logits.subspan(
        first, std::min<size_t>(kLogprobSegmentIds, logits.size() - first));
    const float max = *std::max_element(segment.begin(), segment.end());
    const ExpSum next = {max, SegmentSum(segment, max)};
    all = first == 0 ? next : Merge(all, next);
  }
  return {all.max, Log(all.sum)};
}

TokenScore ScoreToken(std::span<const float> logits, int32_t token_id,
                      int32_t candidate_count) {
  TokenScore score;
  score.finite = AllFinite(logits);
  if (!score.finite) return score;
  const LogNormalizer normalizer = ComputeLogNormalizer(logits);
  const float logit = logits[token_id];
  score.token_id = token_id;
  score.logprob = Logprob(normalizer, logit);
  score.rank = 1 + static_cast<int32_t>(std::count_if(
                       logits.begin(), logits.end(),
                       [logit](float other) { return other > logit; }));
  if (candidate_count > 0) {
    score.candidates = TopCandidates(logits, normalizer, candidate_count);
  }
  return score;
}

TokenScore SampleToken(std::span<float> logits, const SampleRow& row) {
  const sampling::SamplingParams& params = row.state->params();
  TokenScore score;
  score.finite = AllFinite(logits);
  if (!score.finite) return score;
  std::vector<float> raw;
  if (params.logprob_count) raw.assign(logits.begin(), logits.end());
  ApplyPenaltiesAndMask(logits, *row.state, row.output_position);
  score.token_id =
      params.temperature == 0 ? ArgMax(logits) : DrawFromLogits(logits, row);
  if (!params.logprob_count) return score;
  return ScoreToken(raw, score.token_id, *params.logprob_count);
}

void ApplyPenaltiesAndMask(std::span<float> logits, const SamplingState& state,
                           int32_t output_position) {
  Penalize(state, logits);
  for (const sampling::LogitBias& entry : state.params().logit_bias) {
    logits[entry.token_id] += entry.bias;
  }
  for (const auto& [id, seen] : state.seen()) {
    logits[id] = ClampLogit(logits[id]);
  }
  for (const sampling::LogitBias& entry : state.params().logit_bias) {
    logits[entry.token_id] = ClampLogit(logits[entry.token_id]);
  }
  if (output_position >= state.min_tokens()) return;
  // A vocabulary of nothing but end ids keeps them.
  if (state.end_ids().size() >= logits.size()) return;
  for (const int32_t id : state.end_ids()) {
    logits[id] = -std::numeric_limits<float>::infinity();
  }
}

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

int32_t DrawToken(std::span<const uint64_t> weights,
                  const sampling::SamplingParams& params, uint32_t draw) {
  std::vector<Weighted> items;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) items.push_back({weights[i], static_cast<int32_t>(i)});
  }
  if (params.top_k > 0) KeepFirst(static_cast<size_t>(params.top_k), items);
  if (params.top_p < 1) KeepTopP(params.top_p, items);
  if (params.min_p > 0) KeepMinP(params.min_p, items);
  std::sort(items.begin(), items.end(),
            [](const Weighted& a, const Weighted& b) { return a.id < b.id; });
  return PickByDraw(items, draw);
}

}  // namespace caravan::worker
