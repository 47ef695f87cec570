// Sampling (worker/ops/sample.h) where the logits are: greatest logit, edits of
// single ids, the border of top-k and top-p, the draw, ranks and candidates.
// Weights are integers, so their sums have no order; sums of exponentials have
// that of ops.h. A row is worked on in segments of 4,096 ids by a block each.
//
// Order: weights descending, then ids ascending. What top-k or top-p leaves is
// a beginning of it, told by the weight it ends with (`border`) and how many
// ids of that weight still belong. It is found digit by digit: a histogram of
// the weights by their leading digit, then of those with the digit where the
// border lies by the next. Weights are computed anew each time: the doubles
// they cost take as long as 8 bytes an id would.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_H_

#include <bit>
#include <limits>

#include "common/sampling/philox.h"
#include "worker/ops/cuda/kernels/thread.h"
#include "worker/ops/sample_math.h"

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
};

// Digits of a weight: its leading 11 bits, then 10, 10 and 10.
inline constexpr int kDigitBits = 10;
inline constexpr int kDigits = 4;
inline constexpr int kWeightBuckets = 1056;  // 2^10 + 1 digits, in 32 parts
inline constexpr int kMaxCandidates = 20;

constexpr int DigitShift(int pass) { return (kDigits - 1 - pass) * kDigitBits; }

CARAVAN_DEVICE bool IsFinite(float value) {
  return (std::bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

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
    s.logits = tables.logits + s.task->logits_row * tables.stride + s.begin;
    s.place = int64_t{thread.block_y()} * tables.segments + thread.block_x();
    return s;
  }
};

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
    float* const row = tables.logits + task.logits_row * tables.stride;
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

// A row's greatest logits; its search begins. Greedy rows have their token, and
// so have rows with a given one. Grid: (tasks).
struct BeginDrawKernel {
  static constexpr int kThreads = 32;
  struct Args {
    SampleTables tables;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_x();
    const SegmentStats* const stats = tables.stats + t * tables.segments;
    Best best = NoLogit();
    uint32_t finite = 1;
    for (int32_t s = thread.lane(); s < tables.segments; s += kThreads) {
      if (Precedes(stats[s].edited, best)) best = stats[s].edited;
      finite &= stats[s].finite;
    }
    for (int i = thread.lane(); i < kWeightBuckets; i += kThreads) {
      tables.bucket_sums[t * kWeightBuckets + i] = 0;
      tables.bucket_counts[t * kWeightBuckets + i] = 0;
    }
    best = WarpBest(best, thread);
    for (int mask = 16; mask > 0; mask /= 2) {
      finite &= thread.ShuffleXor(finite, mask);
    }
    if (thread.lane() != 0) return;
    const int32_t given = tables.tasks[t].given_id;
    tables.draws[t] = {};
    tables.draws[t].max = best.value;
    tables.records[t] = {given >= 0 ? given : best.id, 0.0f, 0, finite};
  }
};

// Whether task t's token is drawn by weights.
CARAVAN_DEVICE bool Draws(const SampleTables& tables, int64_t t) {
  const SampleTask& task = tables.tasks[t];
  return task.given_id < 0 && task.temperature > 0 && tables.records[t].finite;
}

// What a border is searched for.
enum class Cut : int32_t { kTopK, kTopP };

CARAVAN_DEVICE bool Cuts(const SampleTables& tables, int64_t t, Cut cut) {
  const SampleTask& task = tables.tasks[t];
  return Draws(tables, t) &&
         (cut == Cut::kTopK ? task.top_k > 0 : task.top_p < kWholeShare);
}

// Adds a segment's weights to the row's histogram of digit `pass`.
// Grid: (segments, tasks).
struct WeightBucketsKernel {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes = kWeightBuckets * 12;
  struct Args {
    SampleTables tables;
    Cut cut;
    int32_t pass;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_y();
    if (!Cuts(tables, t, args.cut)) return;
    const DrawState& draw = tables.draws[t];
    if (args.pass > 0 && !draw.narrowing) return;
    uint64_t* const sums = static_cast<uint64_t*>(thread.shared());
    uint32_t* const counts = reinterpret_cast<uint32_t*>(sums + kWeightBuckets);
    for (int i = thread.thread(); i < kWeightBuckets; i += kThreads) {
      sums[i] = 0;
      counts[i] = 0;
    }
    thread.Sync();
    Count(args, draw, sums, counts, thread);
    thread.Sync();
    for (int i = thread.thread(); i < kWeightBuckets; i += kThreads) {
      if (counts[i] == 0) continue;
      thread.AtomicAdd(tables.bucket_sums + t * kWeightBuckets + i, sums[i]);
      thread.AtomicAdd(tables.bucket_counts + t * kWeightBuckets + i,
                       counts[i]);
    }
  }

 private:
  // Most weights share a bucket: a thread adds them up before it counts them.
  template <typename Thread>
  static CARAVAN_DEVICE void Count(const Args& args, const DrawState& draw,
                                   uint64_t* sums, uint32_t* counts,
                                   Thread& thread) {
    const RowSegment s = RowSegment::Of(args.tables, thread);
    const int shift = DigitShift(args.pass);
    uint32_t bucket = 0;
    uint64_t sum = 0;
    uint32_t count = 0;
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      const uint64_t weight =
          SampleWeight(s.logits[i], draw.max, s.task->temperature);
      const uint64_t digits = weight >> shift;
      if (weight == 0) continue;
      if (args.pass > 0 && digits >> kDigitBits != draw.prefix) continue;
      const uint32_t digit = static_cast<uint32_t>(
          args.pass == 0 ? digits : digits & ((1 << kDigitBits) - 1));
      if (digit != bucket && count > 0) {
        thread.AtomicAdd(sums + bucket, sum);
        thread.AtomicAdd(counts + bucket, count);
        sum = 0;
        count = 0;
      }
      bucket = digit;
      sum += weight;
      ++count;
    }
    if (count == 0) return;
    thread.AtomicAdd(sums + bucket, sum);
    thread.AtomicAdd(counts + bucket, count);
  }
};

// Finds the digit where the border lies, and clears the histogram.
// Grid: (tasks).
struct NarrowKernel {
  static constexpr int kThreads = 32;
  static constexpr int kPart = kWeightBuckets / kThreads;
  static constexpr int kSharedBytes = kThreads * 2 * 8;
  using Args = WeightBucketsKernel::Args;
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_x();
    if (!Cuts(tables, t, args.cut)) return;
    if (args.pass > 0 && !tables.draws[t].narrowing) return;
    uint64_t* const sums = tables.bucket_sums + t * kWeightBuckets;
    uint32_t* const counts = tables.bucket_counts + t * kWeightBuckets;
    // Parts from the greatest digit down.
    uint64_t* const part_sums = static_cast<uint64_t*>(thread.shared());
    uint64_t* const part_counts = part_sums + kThreads;
    uint64_t sum = 0;
    uint64_t count = 0;
    for (int i = 0; i < kPart; ++i) {
      const int bucket = kWeightBuckets - 1 - (thread.lane() * kPart + i);
      sum += sums[bucket];
      count += counts[bucket];
    }
    part_sums[thread.lane()] = sum;
    part_counts[thread.lane()] = count;
    thread.Sync();
    if (thread.lane() == 0) {
      const bool by_count = args.cut == Cut::kTopK;
      DrawState& draw = tables.draws[t];
      if (args.pass == 0) Begin(tables.tasks[t], by_count, part_sums, draw);
      Search(args.pass, by_count, {sums, counts}, {part_sums, part_counts},
             draw);
    }
    thread.Sync();
    for (int i = thread.lane(); i < kWeightBuckets; i += kThreads) {
      sums[i] = 0;
      counts[i] = 0;
    }
  }

 private:
  struct Buckets {
    const uint64_t* sums;
    const uint32_t* counts;
  };
  struct Parts {
    const uint64_t* sums;
    const uint64_t* counts;
  };

  static CARAVAN_DEVICE void Begin(const SampleTask& task, bool by_count,
                                   const uint64_t* part_sums, DrawState& draw) {
    uint64_t total = 0;
    for (int i = 0; i < kThreads; ++i) total += part_sums[i];
    // What top_k left is what top_p takes its share of.
    if (!by_count && task.top_k > 0) total = draw.kept;
    draw.kept = total;
    draw.reached = 0;
    draw.greater = 0;
    draw.prefix = 0;
    draw.narrowing = 1;
    draw.wanted = by_count ? static_cast<uint64_t>(task.top_k)
                           : SumForShare(task.top_p, total);
  }

  static CARAVAN_DEVICE void Search(int pass, bool by_count,
                                    const Buckets& buckets, const Parts& parts,
                                    DrawState& draw) {
    const uint64_t* const part_keys = by_count ? parts.counts : parts.sums;
    uint64_t reached = draw.reached;
    uint64_t greater = draw.greater;
    int part = 0;
    while (part < kThreads && reached + part_keys[part] < draw.wanted) {
      reached += part_keys[part];
      greater += parts.sums[part];
      ++part;
    }
    if (part == kThreads) {  // fewer ids than top_k: all stay
      draw.narrowing = 0;
      return;
    }
    int bucket = kWeightBuckets - 1 - part * kPart;
    while (reached + KeyOf(by_count, buckets, bucket) < draw.wanted) {
      reached += KeyOf(by_count, buckets, bucket);
      greater += buckets.sums[bucket];
      --bucket;
    }
    draw.reached = reached;
    draw.greater = greater;
    draw.prefix = pass == 0 ? bucket : (draw.prefix << kDigitBits) | bucket;
    if (pass < kDigits - 1) return;
    const uint64_t missing = draw.wanted - reached;
    draw.border = draw.prefix;
    draw.equals =
        by_count ? missing : (missing + draw.border - 1) / draw.border;
    draw.kept = greater + draw.equals * draw.border;
  }

  static CARAVAN_DEVICE uint64_t KeyOf(bool by_count, const Buckets& buckets,
                                       int bucket) {
    return by_count ? buckets.counts[bucket] : buckets.sums[bucket];
  }
};

// The border with min_p taken into account: what is greater stays, and of what
// is equal the first `equals` ids.
CARAVAN_DEVICE void BorderOf(const SampleTask& task, const DrawState& draw,
                             uint64_t& border, uint64_t& equals) {
  border = draw.border;
  equals = draw.equals;
  if (task.least_weight <= border) return;
  border = task.least_weight - 1;
  equals = 0;
}

CARAVAN_DEVICE void AddWeight(uint64_t weight, uint64_t border,
                              WeightShare& share) {
  if (weight > border) share.above += weight;
  if (weight == border) ++share.equals;
}

// What a share adds to the running sum when `before` ids at the border came
// before it.
CARAVAN_DEVICE uint64_t SumOf(const WeightShare& share, uint64_t before,
                              uint64_t border, uint64_t equals) {
  const uint64_t left = before < equals ? equals - before : 0;
  return share.above + border * (share.equals < left ? share.equals : left);
}

// Shares of the segments. Grid: (segments, tasks).
struct WeightSharesKernel {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes = 16;
  struct Args {
    SampleTables tables;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_y();
    if (!Draws(tables, t)) return;
    const RowSegment s = RowSegment::Of(tables, thread);
    const DrawState& draw = tables.draws[t];
    uint64_t border, equals;
    BorderOf(*s.task, draw, border, equals);
    WeightShare own = {};
    for (int32_t i = thread.thread(); i < s.count; i += kThreads) {
      AddWeight(SampleWeight(s.logits[i], draw.max, s.task->temperature),
                border, own);
    }
    WeightShare* const all = static_cast<WeightShare*>(thread.shared());
    if (thread.thread() == 0) *all = {};
    thread.Sync();
    if (own.above > 0) thread.AtomicAdd(&all->above, own.above);
    if (own.equals > 0) thread.AtomicAdd(&all->equals, own.equals);
    thread.Sync();
    if (thread.thread() == 0) tables.shares[s.place] = *all;
  }
};

// The token: first the segment where the running sum passes the draw's target,
// then the thread's share of it, then the id. Grid: (tasks).
struct PickTokenKernel {
  static constexpr int kThreads = 256;
  static constexpr int kIds = kSegmentIds / kThreads;  // of a thread
  static constexpr int kSharedBytes =
      kThreads * int{sizeof(WeightShare)} + 32;  // and a Place
  struct Args {
    SampleTables tables;
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const SampleTables& tables = args.tables;
    const int64_t t = thread.block_x();
    if (!Draws(tables, t)) return;
    const SampleTask& task = tables.tasks[t];
    Row row = {tables.logits + task.logits_row * tables.stride,
               tables.vocabulary,
               tables.draws[t].max,
               task.temperature,
               0,
               0};
    BorderOf(task, tables.draws[t], row.border, row.equals);
    WeightShare* const shares = static_cast<WeightShare*>(thread.shared());
    Place* const place = reinterpret_cast<Place*>(shares + kThreads);
    const WeightShare* const segments = tables.shares + t * tables.segments;
    const uint64_t target = TargetOf(task, segments, tables.segments, row);
    if (thread.thread() == 0) {
      *place = {};
      Advance(segments, tables.segments, row, target, *place);
    }
    thread.Sync();
    const int32_t begin = place->index * kSegmentIds;
    shares[thread.thread()] = ShareOf(row, begin + thread.thread() * kIds);
    thread.Sync();
    if (thread.thread() != 0) return;
    place->index = 0;
    Advance(shares, kThreads, row, target, *place);
    tables.records[t].token_id =
        IdAt(row, begin + place->index * kIds, target, *place);
  }

 private:
  // How far the running sum has come.
  struct Place {
    uint64_t sum;
    uint64_t equals;
    int32_t index;
  };

  // What weights are made of, and what of them stays.
  struct Row {
    const float* logits;
    int32_t vocabulary;
    float max;
    float temperature;
    uint64_t border;
    uint64_t equals;
  };

  static CARAVAN_DEVICE uint64_t WeightOf(const Row& row, int32_t id) {
    return SampleWeight(row.logits[id], row.max, row.temperature);
  }

  // Of a thread's ids.
  static CARAVAN_DEVICE WeightShare ShareOf(const Row& row, int32_t begin) {
    WeightShare share = {};
    for (int32_t id = begin; id < begin + kIds && id < row.vocabulary; ++id) {
      AddWeight(WeightOf(row, id), row.border, share);
    }
    return share;
  }

  // The first id from `id` on that takes the sum beyond the target.
  static CARAVAN_DEVICE int32_t IdAt(const Row& row, int32_t id,
                                     uint64_t target, Place place) {
    for (; id + 1 < row.vocabulary; ++id) {
      WeightShare one = {};
      AddWeight(WeightOf(row, id), row.border, one);
      place.sum += SumOf(one, place.equals, row.border, row.equals);
      place.equals += one.equals;
      if (place.sum > target) break;
    }
    return id;
  }

  static CARAVAN_DEVICE uint64_t TargetOf(const SampleTask& task,
                                          const WeightShare* segments,
                                          int32_t count, const Row& row) {
    uint64_t sum = 0;
    uint64_t before = 0;
    for (int32_t i = 0; i < count; ++i) {
      sum += SumOf(segments[i], before, row.border, row.equals);
      before += segments[i].equals;
    }
    const uint32_t draw = sampling::TokenDraw(
        task.seed, static_cast<uint32_t>(task.output_position),
        static_cast<uint32_t>(task.choice));
    return DrawTarget(draw, sum);
  }

  // To the first share that takes the sum beyond the target.
  static CARAVAN_DEVICE void Advance(const WeightShare* shares, int32_t count,
                                     const Row& row, uint64_t target,
                                     Place& place) {
    for (; place.index + 1 < count; ++place.index) {
      const WeightShare& share = shares[place.index];
      const uint64_t sum =
          place.sum + SumOf(share, place.equals, row.border, row.equals);
      if (sum > target) return;
      place.sum = sum;
      place.equals += share.equals;
    }
  }
};

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
    const float logit =
        tables.logits[s.task->logits_row * tables.stride + record.token_id];
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
      record.logprob = Logprob(
          *normalizer,
          tables.logits[task.logits_row * tables.stride + record.token_id]);
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

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_H_
