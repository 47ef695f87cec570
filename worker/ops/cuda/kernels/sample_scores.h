// Sampling, last: ranks, logprobs and candidates of tokens that are asked
// about.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_SCORES_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_SCORES_H_

#include <limits>

#include "worker/ops/cuda/kernels/sample_tables.h"
#include "worker/ops/sample_math.h"

namespace caravan::worker::cuda {

// Of rows that are asked about: ids with a greater logit, and a segment's first
// candidates. Grid: (segments, tasks).
struct RankKernel {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes =
      kSegmentIds * 4 + kThreads / 32 * int{sizeof(Best)} + 16;
  struct Args {
    SampleTables tables;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const RowSegment s = RowSegment::Of(tables, thread);
    const SampleRecord& record = tables.records[thread.block_y()];
    if (s.task->candidate_count < 0 || !record.finite) return;
    float* const values = static_cast<float*>(thread.shared());
    Best* const places = reinterpret_cast<Best*>(values + kSegmentIds);
    uint32_t* const total = reinterpret_cast<uint32_t*>(places + kThreads / 32);
    const float logit = tables.Row(*s.task)[record.token_id];
    if (thread.thread() == 0) *total = 0;
    thread.Sync();
    uint32_t greater = 0;
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      values[i] = s.logits[i];
      if (values[i] > logit) ++greater;
    }
    if (greater > 0) thread.AtomicAdd(total, greater);
    thread.Sync();
    if (thread.thread() == 0) {
      tables.greater[s.place] = static_cast<int32_t>(*total);
    }
    Best last = {std::numeric_limits<float>::infinity(), -1};
    for (int c = 0; c < s.task->candidate_count; ++c) {
      last =
          BlockBest(After(last, s, values, thread), kThreads, places, thread);
      if (thread.thread() == 0) {
        tables.segment_candidates[s.place * kMaxCandidates + c] = last;
      }
    }
  }

 private:
  // The first in order behind `last`, of the thread's ids.
  template <typename Thread>
  static CARAVAN_DEVICE Best After(const Best& last, const RowSegment& s,
                                   const float* values, Thread& thread) {
    Best best = NoLogit();
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      const Best logit = {values[i], s.begin + i};
      if (Precedes(last, logit) && Precedes(logit, best)) best = logit;
    }
    return best;
  }
};

// Logprob, rank and candidates from those of the segments. Grid: (tasks).
struct FinishScoresKernel {
  static constexpr int kThreads = 32;
  static constexpr int kSharedBytes = 16;
  struct Args {
    SampleTables tables;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_x();
    const SampleTask& task = tables.tasks[t];
    SampleRecord& record = tables.records[t];
    if (task.candidate_count < 0 || !record.finite) return;
    LogNormalizer* const normalizer =
        static_cast<LogNormalizer*>(thread.shared());
    if (thread.lane() == 0) {
      *normalizer = NormalizerOf(tables, t);
      record.logprob = Logprob(*normalizer, tables.Row(task)[record.token_id]);
      record.rank = 1;
      for (int32_t s = 0; s < tables.segments; ++s) {
        record.rank += tables.greater[t * tables.segments + s];
      }
    }
    thread.Sync();
    Best last = {std::numeric_limits<float>::infinity(), -1};
    for (int c = 0; c < task.candidate_count; ++c) {
      last = WarpBest(After(last, tables, t, task.candidate_count, thread),
                      thread);
      if (thread.lane() != 0) continue;
      tables.candidate_logprobs[t * tables.candidates + c] = {
          Logprob(*normalizer, last.value), last.id};
    }
  }

 private:
  static CARAVAN_DEVICE LogNormalizer NormalizerOf(const SampleTables& tables,
                                                   int64_t t) {
    const SegmentStats* const stats = tables.stats + t * tables.segments;
    ExpSum all = {stats[0].raw.value, stats[0].sum};
    for (int32_t s = 1; s < tables.segments; ++s) {
      all = Merge(all, {stats[s].raw.value, stats[s].sum});
    }
    return {all.max, Log(all.sum)};
  }

  template <typename Thread>
  static CARAVAN_DEVICE Best After(const Best& last, const SampleTables& tables,
                                   int64_t t, int32_t count, Thread& thread) {
    Best best = NoLogit();
    for (int32_t s = thread.lane(); s < tables.segments; s += kThreads) {
      const Best* const list = tables.segment_candidates +
                               (t * tables.segments + s) * kMaxCandidates;
      for (int32_t c = 0; c < count; ++c) {
        if (!Precedes(last, list[c])) continue;
        if (Precedes(list[c], best)) best = list[c];
        break;  // those behind it come later
      }
    }
    return best;
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_SCORES_H_
