// The sampling rule of worker/ops/sample.h, vectorized, in time linear in the
// vocabulary, and spread over the team by rows; same results.
#ifndef CARAVAN_WORKER_OPS_CPU_SAMPLER_H_
#define CARAVAN_WORKER_OPS_CPU_SAMPLER_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/ops.h"
#include "worker/ops/sample.h"

namespace caravan::worker::cpu {

// DrawToken of worker/ops/sample.h. Top_k, top_p and min_p each keep a prefix
// of the same order (weight descending, id ascending), so that the survivors
// are told by the last of them; it is found by a histogram of the weights,
// of which only the bucket with the border is sorted.
//
// Not thread-safe; keeps its memory between draws.
class TokenDrawer {
 public:
  int32_t Draw(std::span<const uint64_t> weights,
               const sampling::SamplingParams& params, uint32_t draw);

 private:
  // A weight's leading 1 and the five bits below it.
  static constexpr int kBuckets = 42 * 32;  // weights are at most 2^40
  struct Item {
    uint64_t weight;
    int32_t id;
  };
  struct Bucket {
    int64_t count = 0;
    uint64_t sum = 0;
  };

  void CountBuckets(std::span<const uint64_t> weights);
  // The bucket's items up to `last_` in order.
  void SortBucket(std::span<const uint64_t> weights, int bucket);
  void KeepTopK(std::span<const uint64_t> weights, int64_t count);
  void KeepTopP(std::span<const uint64_t> weights, float top_p);
  bool Survives(uint64_t weight, int32_t id) const {
    return weight > last_.weight || (weight == last_.weight && id <= last_.id);
  }

  std::array<Bucket, kBuckets> buckets_;
  std::vector<Item> sorted_;
  Item last_ = {};    // the last survivor in order
  uint64_t sum_ = 0;  // of the survivors of top_k
};

// Not thread-safe: one caller at a time.
class Sampler {
 public:
  Sampler(const KernelTable& kernels, ThreadTeam& team)
      : kernels_(kernels), team_(team), scratch_(team.size()) {}

  void Run(const SampleArgs& args);

 private:
  struct Scratch {
    std::vector<float> raw;
    std::vector<uint64_t> weights;
    TokenDrawer drawer;
  };

  TokenScore Sample(std::span<float> logits, const SampleRow& row,
                    Scratch& scratch) const;
  // Precondition: all finite.
  TokenScore Score(std::span<const float> logits, int32_t token_id,
                   int32_t candidate_count) const;
  LogNormalizer Normalizer(std::span<const float> logits) const;
  int32_t DrawFrom(std::span<const float> logits, const SampleRow& row,
                   Scratch& scratch) const;
  bool Finite(std::span<const float> logits) const;

  const KernelTable& kernels_;
  ThreadTeam& team_;
  std::vector<Scratch> scratch_;  // per member
  WorkShares shares_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_SAMPLER_H_
