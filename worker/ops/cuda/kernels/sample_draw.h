// Sampling, second: the border of top-k and top-p, and the draw
// (worker/ops/sample.h). Weights are integers, so their sums have no order.
//
// Order: weights descending, then ids ascending. What top-k or top-p leaves is
// a beginning of it, told by the weight it ends with (`border`) and how many
// ids of that weight still belong. It is found digit by digit: a histogram of
// the weights by their leading digit, then of those with the digit where the
// border lies by the next. Weights are computed anew each time: the doubles
// they cost take as long as 8 bytes an id would.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_DRAW_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_DRAW_H_

#include "common/sampling/philox.h"
#include "worker/ops/cuda/kernels/sample_tables.h"
#include "worker/ops/sample_math.h"

namespace caravan::worker::cuda {

// Digits of a weight: its leading 11 bits, then 10, 10 and 10.
inline constexpr int kDigitBits = 10;
inline constexpr int kDigits = 4;
inline constexpr int kWeightBuckets = 1056;  // 2^10 + 1 digits, in 32 parts

constexpr int DigitShift(int pass) { return (kDigits - 1 - pass) * kDigitBits; }

// Empties a histogram, by all threads of a block.
template <typename Thread>
CARAVAN_DEVICE void ClearBuckets(uint64_t* sums, uint32_t* counts, int threads,
                                 Thread& thread) {
  for (int i = thread.thread(); i < kWeightBuckets; i += threads) {
    sums[i] = 0;
    counts[i] = 0;
  }
}

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
    ClearBuckets(tables.bucket_sums + t * kWeightBuckets,
                 tables.bucket_counts + t * kWeightBuckets, kThreads, thread);
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
    ClearBuckets(sums, counts, kThreads, thread);
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
    ClearBuckets(sums, counts, kThreads, thread);
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
    Row row = {tables.Row(task),
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

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SAMPLE_DRAW_H_
