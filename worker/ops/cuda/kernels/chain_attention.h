// Attend (ops.h) in fp32: the reference's chains, so the reference's bits where
// splits have its size. For caches that are not fragments. Floor: the keys and
// values of a split, read once per query head; a chain of d fma a key.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_ATTENTION_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_ATTENTION_H_

#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

// Merges split `next` (maximum, sum) into what stands for the earlier ones:
// the factors of both sums and outputs.
struct MergeFactors {
  float max;
  float all;
  float next;
};
CARAVAN_DEVICE MergeFactors FactorsOf(float all_max, float next_max) {
  const float max = MaxOf(all_max, next_max);
  return {max, Exp(all_max - max), Exp(next_max - max)};
}

// A block computes one token and query head: all its splits ascending, or,
// where the token has partial results, split block_z only.
// Grid: (T, H, splits or 1).
struct ChainAttendKernel {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpLanes;
  struct Args {
    const float* q;
    int64_t stride;
    const TokenPlace* places;
    const int32_t* blocks;
    Cache cache;
    int32_t layer;
    int32_t heads;
    int32_t split_keys;
    float scale;  // 1 / sqrt(d)
    Partials partials;
    float* out;
    int64_t out_stride;
  };
  // Floats: q, output of the splits so far, probabilities, lanes, maxima.
  static constexpr int64_t SharedBytes(int64_t head_dim, int64_t split_keys) {
    return 4 * (2 * head_dim + split_keys + 17 + kWarps);
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int32_t dim = args.cache.head_dim;
    const int64_t t = thread.block_x();
    const int32_t head = thread.block_y();
    const TokenPlace place = args.places[t];
    const int32_t splits = place.position / args.split_keys + 1;
    const bool alone = place.partial >= 0 && splits > 1;
    if (thread.block_z() > 0 && (!alone || thread.block_z() >= splits)) return;

    Shared shared(reinterpret_cast<float*>(thread.shared()), dim,
                  args.split_keys);
    const float* const q = args.q + t * args.stride + int64_t{head} * dim;
    for (int i = thread.thread(); i < dim; i += kThreads) shared.q[i] = q[i];
    thread.Sync();

    float max = 0;
    float sum = 0;
    const int32_t first = alone ? thread.block_z() : 0;
    const int32_t end = alone ? first + 1 : splits;
    for (int32_t s = first; s < end; ++s) {
      MergeSplit(args, place, head, s, s == first, max, sum, shared, thread);
    }
    if (alone) {
      const int64_t index = int64_t{place.partial + first} * args.heads + head;
      for (int i = thread.thread(); i < dim; i += kThreads) {
        args.partials.outputs[index * dim + i] = shared.out[i];
      }
      if (thread.thread() == 0) {
        args.partials.stats[2 * index] = max;
        args.partials.stats[2 * index + 1] = sum;
      }
      return;
    }
    float* const out = args.out + t * args.out_stride + int64_t{head} * dim;
    for (int i = thread.thread(); i < dim; i += kThreads) {
      out[i] = shared.out[i] / sum;
    }
  }

 private:
  struct Shared {
    float* q;
    float* out;
    float* p;
    float* lanes;
    float* maxima;
    CARAVAN_DEVICE Shared(float* base, int32_t dim, int32_t split_keys)
        : q(base),
          out(q + dim),
          p(out + dim),
          lanes(p + split_keys),
          maxima(lanes + 17) {}
  };

  // Scores of the split's keys into shared.p; gives their maximum.
  template <typename Thread>
  static CARAVAN_DEVICE float Scores(const Args& args, const TokenPlace& place,
                                     int32_t kv_head, int32_t begin,
                                     int32_t count, Shared& shared,
                                     Thread& thread) {
    const Cache& cache = args.cache;
    float max = -std::numeric_limits<float>::infinity();
    for (int32_t j = thread.thread(); j < count; j += kThreads) {
      const int32_t key = begin + j;
      const int64_t base = cache.KeyBase(
          args.layer, args.blocks[place.blocks + key / kSlots], kv_head);
      float chain = 0;
      for (int32_t i = 0; i < cache.head_dim; ++i) {
        const float k = ReadElement(cache.data, cache.dtype,
                                    base + cache.KeyElement(key % kSlots, i));
        chain = std::fma(shared.q[i], k, chain);
      }
      shared.p[j] = args.scale * chain;
      max = MaxOf(max, shared.p[j]);
    }
    CARAVAN_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) {
      max = MaxOf(max, thread.ShuffleXor(max, mask));
    }
    if (thread.lane() == 0) shared.maxima[thread.warp()] = max;
    thread.Sync();
    for (int w = 0; w < kWarps; ++w) max = MaxOf(max, shared.maxima[w]);
    return max;
  }

  // Turns scores into exp(score - max); gives their sum.
  template <typename Thread>
  static CARAVAN_DEVICE float Exponentiate(float max, int32_t count,
                                           Shared& shared, Thread& thread) {
    for (int32_t j = thread.thread(); j < count; j += kThreads) {
      shared.p[j] = Exp(shared.p[j] - max);
    }
    thread.Sync();
    if (thread.thread() < 16) {
      float lane = 0;
      for (int32_t j = thread.thread(); j < count; j += 16) {
        lane += shared.p[j];
      }
      shared.lanes[thread.thread()] = lane;
    }
    thread.Sync();
    if (thread.thread() == 0) shared.lanes[16] = FoldLanes16(shared.lanes);
    thread.Sync();
    return shared.lanes[16];
  }

  template <typename Thread>
  static CARAVAN_DEVICE void MergeSplit(const Args& args,
                                        const TokenPlace& place, int32_t head,
                                        int32_t split, bool first, float& max,
                                        float& sum, Shared& shared,
                                        Thread& thread) {
    const Cache& cache = args.cache;
    const int32_t kv_head = head / (args.heads / cache.kv_heads);
    const int32_t begin = split * args.split_keys;
    const int32_t seen = place.position + 1 - begin;
    const int32_t count = seen < args.split_keys ? seen : args.split_keys;
    const float next_max =
        Scores(args, place, kv_head, begin, count, shared, thread);
    const float next_sum = Exponentiate(next_max, count, shared, thread);
    const MergeFactors f = FactorsOf(first ? next_max : max, next_max);
    for (int32_t i = thread.thread(); i < cache.head_dim; i += kThreads) {
      float chain = 0;
      for (int32_t j = 0; j < count; ++j) {
        const int32_t key = begin + j;
        const int64_t base = cache.ValueBase(
            args.layer, args.blocks[place.blocks + key / kSlots], kv_head);
        chain =
            std::fma(shared.p[j],
                     ReadElement(cache.data, cache.dtype,
                                 base + cache.ValueElement(key % kSlots, i)),
                     chain);
      }
      shared.out[i] =
          first ? chain : std::fma(shared.out[i], f.all, chain * f.next);
    }
    sum = first ? next_sum : std::fma(sum, f.all, next_sum * f.next);
    max = f.max;
    thread.Sync();  // the next split overwrites p
  }
};

// Merges the partial results of tokens with several splits, ascending.
// Grid: (T, H).
struct CombineKernel {
  static constexpr int kThreads = 128;
  struct Args {
    const TokenPlace* places;
    Partials partials;
    int32_t heads;
    int32_t head_dim;
    int32_t split_keys;
    float* out;
    int64_t stride;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int32_t head = thread.block_y();
    const TokenPlace place = args.places[t];
    const int32_t splits = place.position / args.split_keys + 1;
    if (splits == 1 || place.partial < 0) return;
    for (int i = thread.thread(); i < args.head_dim; i += kThreads) {
      float max = 0;
      float sum = 0;
      float out = 0;
      for (int32_t s = 0; s < splits; ++s) {
        const int64_t index = int64_t{place.partial + s} * args.heads + head;
        const float next_max = args.partials.stats[2 * index];
        const float next_sum = args.partials.stats[2 * index + 1];
        const float next = args.partials.outputs[index * args.head_dim + i];
        const MergeFactors f = FactorsOf(s == 0 ? next_max : max, next_max);
        out = s == 0 ? next : std::fma(out, f.all, next * f.next);
        sum = s == 0 ? next_sum : std::fma(sum, f.all, next_sum * f.next);
        max = f.max;
      }
      args.out[t * args.stride + int64_t{head} * args.head_dim + i] = out / sum;
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_ATTENTION_H_
