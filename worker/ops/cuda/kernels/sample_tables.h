// What the kernels of sampling share: a step's tasks and tables, and the order
// of logits. A row is worked on in segments of 4,096 ids by a block each.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_TABLES_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_TABLES_H_

#include <limits>

#include "worker/ops/cuda/kernels/thread.h"

namespace caravan::worker::cuda {

inline constexpr int kSegmentIds = 4096;
inline constexpr uint64_t kWholeShare = uint64_t{1} << 32;

// One token to sample or to score. Edits are those of the row's ids.
struct SampleTask {
  int32_t logits_row;
  int32_t given_id;         // scored; -1: sampled
  int32_t candidate_count;  // -1: nothing is asked about the token
  int32_t output_position;
  int32_t choice;
  int32_t top_k;  // 0: all stay
  float temperature;
  float repetition;
  float frequency;
  float presence;
  uint64_t seed;
  uint64_t top_p;         // * 2^32; kWholeShare: all stay
  uint64_t least_weight;  // of min_p
  int32_t edits_begin;
  int32_t edits_end;
};

// What happens to one id's logit, in this order.
struct LogitEdit {
  int32_t id;
  int32_t seen;          // in prompt or output: the repetition penalty applies
  int32_t output_count;  // > 0: frequency and presence apply
  int32_t biases_begin;
  int32_t biases_end;
  int32_t masked;
};

// The greatest of some logits: the greater, then the lower id.
struct Best {
  float value;
  int32_t id;
};

struct SegmentStats {
  Best raw;
  Best edited;
  float sum;  // of Exp(logit - raw.value), Lanes16
  uint32_t finite;
};

// Where the search for the border stands; then, where it is.
struct DrawState {
  uint64_t prefix;   // leading digits of the border
  uint64_t wanted;   // count or sum that the border reaches
  uint64_t reached;  // of that, before the prefix
  uint64_t greater;  // sum of the weights before the prefix
  uint64_t kept;     // sum of the weights that stay
  uint64_t border;
  uint64_t equals;  // ids of the border's weight that stay
  float max;        // greatest edited logit
  int32_t narrowing;
};

// Of a segment: the sum of weights greater than the border, and the ids at it.
struct WeightShare {
  uint64_t above;
  uint64_t equals;
};

struct SampleRecord {
  int32_t token_id;
  float logprob;
  int32_t rank;
  uint32_t finite;
};

// What the kernels share. Arrays are (tasks, ...).
struct SampleTables {
  const SampleTask* tasks;
  const LogitEdit* edits;
  const float* biases;
  float* originals;  // of edits' logits
  float* logits;
  int64_t stride;
  int32_t vocabulary;
  int32_t segments;
  int32_t candidates;        // places for them
  SegmentStats* stats;       // (segments)
  DrawState* draws;          //
  uint64_t* bucket_sums;     // (kWeightBuckets), zero between passes
  uint32_t* bucket_counts;   // (kWeightBuckets), likewise
  WeightShare* shares;       // (segments)
  int32_t* greater;          // (segments)
  Best* segment_candidates;  // (segments, kMaxCandidates)
  SampleRecord* records;     //
  Best* candidate_logprobs;  // (candidates)

  // All logits of a task's row.
  CARAVAN_DEVICE float* Row(const SampleTask& task) const {
    return logits + task.logits_row * stride;
  }
};

inline constexpr int kMaxCandidates = 20;

CARAVAN_DEVICE bool Precedes(const Best& a, const Best& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

CARAVAN_DEVICE Best NoLogit() {
  return {-std::numeric_limits<float>::infinity(), 0x7fffffff};
}

template <typename Thread>
CARAVAN_DEVICE Best WarpBest(Best best, Thread& thread) {
  for (int mask = 16; mask > 0; mask /= 2) {
    Best other;
    other.value = thread.ShuffleXor(best.value, mask);
    other.id = static_cast<int32_t>(
        thread.ShuffleXor(static_cast<uint32_t>(best.id), mask));
    if (Precedes(other, best)) best = other;
  }
  return best;
}

// The same in every thread; `places` are one for each warp.
template <typename Thread>
CARAVAN_DEVICE Best BlockBest(Best best, int threads, Best* places,
                              Thread& thread) {
  best = WarpBest(best, thread);
  thread.Sync();  // those of the round before have been read
  if (thread.lane() == 0) places[thread.warp()] = best;
  thread.Sync();
  for (int i = 0; i < threads / 32; ++i) {
    if (Precedes(places[i], best)) best = places[i];
  }
  return best;
}

// A block's part of a row: segment block_x() of task block_y().
struct RowSegment {
  const SampleTask* task;
  float* logits;  // of the segment
  int32_t begin;  // first id
  int32_t count;
  int64_t place;  // of arrays (tasks, segments)

  template <typename Thread>
  static CARAVAN_DEVICE RowSegment Of(const SampleTables& tables,
                                      Thread& thread) {
    RowSegment s;
    s.task = tables.tasks + thread.block_y();
    s.begin = thread.block_x() * kSegmentIds;
    const int32_t rest = tables.vocabulary - s.begin;
    s.count = rest < kSegmentIds ? rest : kSegmentIds;
    s.logits = tables.Row(*s.task) + s.begin;
    s.place = int64_t{thread.block_y()} * tables.segments + thread.block_x();
    return s;
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_TABLES_H_
