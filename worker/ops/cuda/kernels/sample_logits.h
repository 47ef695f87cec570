// Sampling, first: greatest logits and sums of exponentials, which have the
// order of ops.h, and edits of single ids.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_LOGITS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_LOGITS_H_

#include <bit>

#include "worker/ops/cuda/kernels/sample_tables.h"
#include "worker/ops/sample_math.h"

namespace caravan::worker::cuda {

CARAVAN_DEVICE bool IsFinite(float value) {
  return (std::bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

// Greatest logits, whether all are finite, and the sums of those that are asked
// about. `edited`: anew for what was edited. Grid: (segments, tasks).
struct LogitStatsKernel {
  static constexpr int kThreads = 256;
  static constexpr int kLanes = 16;
  static constexpr int kSharedBytes =
      (kSegmentIds + kLanes) * 4 + kThreads / 32 * int{sizeof(Best)};
  struct Args {
    SampleTables tables;
    int32_t edited;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const RowSegment s = RowSegment::Of(args.tables, thread);
    const SampleTask& task = *s.task;
    if (args.edited && task.edits_begin == task.edits_end) return;
    float* const terms = static_cast<float*>(thread.shared());
    Best* const places = reinterpret_cast<Best*>(terms + kSegmentIds + kLanes);
    Best best = NoLogit();
    uint32_t infinite = 0;
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      const Best logit = {s.logits[i], s.begin + i};
      if (Precedes(logit, best)) best = logit;
      if (!IsFinite(logit.value)) infinite = 1;
    }
    best = BlockBest(best, kThreads, places, thread);
    SegmentStats& stats = args.tables.stats[s.place];
    if (args.edited) {
      if (thread.thread() == 0) stats.edited = best;
      return;
    }
    const bool finite = Nowhere(infinite, terms, thread);
    float sum = 0;
    if (finite && task.candidate_count >= 0) {
      sum = ExpSumOf(s, best.value, terms, thread);
    }
    if (thread.thread() == 0) stats = {best, best, sum, finite ? 1u : 0u};
  }

 private:
  // Whether no thread of the block has the flag.
  template <typename Thread>
  static CARAVAN_DEVICE bool Nowhere(uint32_t flag, float* terms,
                                     Thread& thread) {
    uint32_t* const any = reinterpret_cast<uint32_t*>(terms);
    if (thread.thread() == 0) *any = 0;
    thread.Sync();
    if (flag) thread.AtomicAdd(any, 1u);
    thread.Sync();
    const bool nowhere = *any == 0;
    thread.Sync();
    return nowhere;
  }

  // Valid in thread 0.
  template <typename Thread>
  static CARAVAN_DEVICE float ExpSumOf(const RowSegment& s, float max,
                                       float* terms, Thread& thread) {
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      terms[i] = Exp(s.logits[i] - max);
    }
    thread.Sync();
    float* const lanes = terms + kSegmentIds;
    if (thread.thread() < kLanes) {
      float sum = 0;
      for (int32_t i = thread.thread(); i < s.count; i += kLanes) {
        sum += terms[i];
      }
      lanes[thread.thread()] = sum;
    }
    thread.Sync();
    return thread.thread() == 0 ? FoldLanes16(lanes) : 0.0f;
  }
};

// Penalties, biases and masks; or back to what was there. Grid: (tasks).
struct EditLogitsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    SampleTables tables;
    int32_t restore;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const SampleTask& task = tables.tasks[thread.block_x()];
    float* const row = tables.Row(task);
    for (int32_t i = task.edits_begin + thread.thread(); i < task.edits_end;
         i += kThreads) {
      const LogitEdit& edit = tables.edits[i];
      if (args.restore) {
        row[edit.id] = tables.originals[i];
        continue;
      }
      tables.originals[i] = row[edit.id];
      row[edit.id] = Edited(row[edit.id], task, edit, tables.biases);
    }
  }

  // Steps 1 to 4 of the rule for one id.
  static CARAVAN_DEVICE float Edited(float logit, const SampleTask& task,
                                     const LogitEdit& edit,
                                     const float* biases) {
    if (edit.seen && task.repetition != 1.0f) {
      logit = PenalizeRepetition(logit, task.repetition);
    }
    if (edit.output_count > 0) {
      logit = PenalizeOutput(logit, edit.output_count, task.frequency,
                             task.presence);
    }
    for (int32_t b = edit.biases_begin; b < edit.biases_end; ++b) {
      logit += biases[b];
    }
    if (edit.masked) return -std::numeric_limits<float>::infinity();
    return ClampLogit(logit);
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_LOGITS_H_
