#include "worker/ops/cpu/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/sampling/philox.h"
#include "worker/ops/canonical_math.h"

namespace caravan::worker::cpu {
namespace {

using Uint128 = unsigned __int128;

int BucketOf(uint64_t weight) {
  const int width = std::bit_width(weight);
  const uint64_t below =
      width > 5 ? weight >> (width - 6) : weight << (6 - width);
  return width * 32 + static_cast<int>(below & 31);
}

// The `count` greatest, ties to the lower id.
std::vector<TokenCandidate> Candidates(std::span<const float> logits,
                                       const LogNormalizer& normalizer,
                                       int32_t count) {
  const size_t kept = std::min(static_cast<size_t>(count), logits.size());
  std::vector<int32_t> top;
  top.reserve(kept + 1);
  const auto before = [logits](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (top.size() == kept && !(logits[i] > logits[top.back()])) continue;
    const int32_t id = static_cast<int32_t>(i);
    top.insert(std::upper_bound(top.begin(), top.end(), id, before), id);
    if (top.size() > kept) top.pop_back();
  }
  std::vector<TokenCandidate> candidates;
  for (const int32_t id : top) {
    candidates.push_back({id, Logprob(normalizer, logits[id])});
  }
  return candidates;
}

}  // namespace

void TokenDrawer::CountBuckets(std::span<const uint64_t> weights) {
  buckets_.fill(Bucket());
  for (const uint64_t weight : weights) {
    Bucket& bucket = buckets_[BucketOf(weight)];
    ++bucket.count;
    bucket.sum += weight;
  }
  buckets_[BucketOf(0)] = Bucket();  // weight 0 is out
}

void TokenDrawer::SortBucket(std::span<const uint64_t> weights, int bucket) {
  sorted_.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (weights[i] > 0 && BucketOf(weights[i]) == bucket &&
        Survives(weights[i], id)) {
      sorted_.push_back({weights[i], id});
    }
  }
  std::sort(sorted_.begin(), sorted_.end(), [](const Item& a, const Item& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  });
}

void TokenDrawer::KeepTopK(std::span<const uint64_t> weights, int64_t count) {
  int64_t counted = 0;
  uint64_t sum = 0;
  for (int b = kBuckets - 1; b > 0; --b) {
    if (counted + buckets_[b].count < count) {
      counted += buckets_[b].count;
      sum += buckets_[b].sum;
      continue;
    }
    SortBucket(weights, b);
    for (int64_t i = 0; i < count - counted; ++i) sum += sorted_[i].weight;
    last_ = sorted_[count - counted - 1];
    sum_ = sum;
    return;
  }
}

void TokenDrawer::KeepTopP(std::span<const uint64_t> weights, float top_p) {
  const Uint128 wanted = Uint128{Fixed32(top_p)} * sum_;
  uint64_t sum = 0;
  for (int b = kBuckets - 1; b > 0; --b) {
    if (buckets_[b].count == 0) continue;
    if (Uint128{sum + buckets_[b].sum} << 32 < wanted) {
      sum += buckets_[b].sum;
      continue;
    }
    SortBucket(weights, b);
    for (const Item& item : sorted_) {
      sum += item.weight;
      if (Uint128{sum} << 32 < wanted) continue;
      last_ = item;
      return;
    }
    return;  // only what top_k took out was missing: all of its survivors stay
  }
}

int32_t TokenDrawer::Draw(std::span<const uint64_t> weights,
                          const sampling::SamplingParams& params,
                          uint32_t draw) {
  last_ = {.weight = 1, .id = static_cast<int32_t>(weights.size())};
  if (params.top_k > 0 || params.top_p < 1) {
    CountBuckets(weights);
    sum_ = 0;
    for (const Bucket& bucket : buckets_) sum_ += bucket.sum;
  }
  if (params.top_k > 0) KeepTopK(weights, params.top_k);
  if (params.top_p < 1) KeepTopP(weights, params.top_p);
  const uint64_t least = LeastWeight(params.min_p);
  if (least > last_.weight) {
    last_ = {.weight = least, .id = static_cast<int32_t>(weights.size())};
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (Survives(weights[i], static_cast<int32_t>(i))) sum += weights[i];
  }
  const uint64_t target = static_cast<uint64_t>((Uint128{draw} * sum) >> 32);
  uint64_t running = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (Survives(weights[i], id)) running += weights[i];
    if (running > target) return id;
  }
  return 0;  // not reached: the greatest weight is 2^40
}

void Sampler::Run(const SampleArgs& args) {
  const int64_t samples = static_cast<int64_t>(args.samples.size());
  const int64_t scores = static_cast<int64_t>(args.scores.size());
  const size_t vocabulary = static_cast<size_t>(args.logits.cols);
  shares_.Reset(samples + scores, team_.size());
  team_.Run([&](int member) {
    for (int64_t i; (i = shares_.Next(member)) >= 0;) {
      if (i < samples) {
        const SampleRow& row = args.samples[i];
        args.sampled[i] = Sample({args.logits.row(row.logits_row), vocabulary},
                                 row, scratch_[member]);
        continue;
      }
      const ScoreRow& row = args.scores[i - samples];
      const std::span<const float> logits(args.logits.row(row.logits_row),
                                          vocabulary);
      TokenScore& score = args.scored[i - samples];
      if (Finite(logits)) {
        score = Score(logits, row.token_id, row.candidate_count);
      } else {
        score = TokenScore();
        score.finite = false;
      }
    }
  });
}

bool Sampler::Finite(std::span<const float> logits) const {
  bool finite;
  kernels_.max_finite(logits.data(), static_cast<int64_t>(logits.size()),
                      &finite);
  return finite;
}

TokenScore Sampler::Sample(std::span<float> logits, const SampleRow& row,
                           Scratch& scratch) const {
  const sampling::SamplingParams& params = row.state->params();
  TokenScore score;
  score.finite = Finite(logits);
  if (!score.finite) return score;
  if (params.logprob_count) scratch.raw.assign(logits.begin(), logits.end());
  ApplyPenaltiesAndMask(logits, *row.state, row.output_position);
  score.token_id = DrawFrom(logits, row, scratch);
  if (!params.logprob_count) return score;
  return Score(scratch.raw, score.token_id, *params.logprob_count);
}

int32_t Sampler::DrawFrom(std::span<const float> logits, const SampleRow& row,
                          Scratch& scratch) const {
  const sampling::SamplingParams& params = row.state->params();
  const int64_t count = static_cast<int64_t>(logits.size());
  bool unused;  // masked logits are infinite
  const float max = kernels_.max_finite(logits.data(), count, &unused);
  if (params.temperature == 0) {
    return static_cast<int32_t>(kernels_.find(logits.data(), count, max));
  }
  scratch.weights.resize(logits.size());
  kernels_.sample_weights(logits.data(), count, max, params.temperature,
                          scratch.weights.data());
  const uint32_t draw = sampling::TokenDraw(
      params.seed, static_cast<uint32_t>(row.output_position),
      static_cast<uint32_t>(row.state->choice()));
  return scratch.drawer.Draw(scratch.weights, params, draw);
}

LogNormalizer Sampler::Normalizer(std::span<const float> logits) const {
  float max = 0;
  float sum = 0;
  for (size_t first = 0; first < logits.size(); first += kLogprobSegmentIds) {
    const std::span<const float> segment = logits.subspan(
        first, std::min<size_t>(kLogprobSegmentIds, logits.size() - first));
    float m;
    float l;
    kernels_.exp_sum(segment.data(), static_cast<int64_t>(segment.size()), &m,
                     &l);
    const float merged = first == 0 ? m : std::max(max, m);
    sum =
        first == 0 ? l : std::fma(sum, Exp(max - merged), l * Exp(m - merged));
    max = merged;
  }
  return {max, Log(sum)};
}

TokenScore Sampler::Score(std::span<const float> logits, int32_t token_id,
                          int32_t candidate_count) const {
  const LogNormalizer normalizer = Normalizer(logits);
  TokenScore score;
  score.token_id = token_id;
  score.logprob = Logprob(normalizer, logits[token_id]);
  score.rank = 1 + static_cast<int32_t>(kernels_.count_greater(
                       logits.data(), static_cast<int64_t>(logits.size()),
                       logits[token_id]));
  if (candidate_count > 0) {
    score.candidates = Candidates(logits, normalizer, candidate_count);
  }
  return score;
}

}  // namespace caravan::worker::cpu
