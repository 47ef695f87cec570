// Attend on tensor cores, over a cache of fragments of bf16 or fp8: q, k, v and
// the probabilities are bf16, everything else fp32; fp8 becomes bf16, exactly,
// in registers. Prefill and decode are the same
// kernel: 16 rows of (token, query head of one group) meet one split of 512
// keys, 64 for each of 8 warps. In a split: scores of all keys, their maximum
// over the whole split, probabilities, their sum (thread, quad, then Tree8 of
// warps), outputs (ascending blocks in a warp, then Tree8 of warps). A row's
// bits do not depend on the rows beside it: masked keys add zeros.
//
// Floor: K and V of the split, once per 16 rows: 512 consecutive bytes a load,
// straight to registers. Decode reads them once in all; prefill again for each
// 16 / group tokens, from L2 (taller tiles are the next step).
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_ATTENTION_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_ATTENTION_H_

#include "worker/ops/cuda/kernels/chain_attention.h"
#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

// Consecutive tokens of one sequence that share a tile of rows.
struct TokenTile {
  int32_t first = 0;
  int32_t count = 0;
};

// Slots of the last block that nobody has written may hold anything: as zeros
// they add nothing. The functions below are told how many slots count, and
// values' words hold two slots, or four.
struct Bf16Cache {
  using Element = uint16_t;
  // 16 dimensions of 16 slots, as the operand B of two mma.
  template <typename Thread>
  static CARAVAN_DEVICE Words4 Keys(const Element* block, int32_t step,
                                    Thread& thread) {
    return thread.LoadStream(reinterpret_cast<const Words4*>(block) +
                             int64_t{step} * kWarpLanes + thread.lane());
  }
  template <typename Thread>
  static CARAVAN_DEVICE Words4 Values(const Element* block, int32_t step,
                                      int32_t slots, Thread& thread) {
    Words4 v = Keys(block, step, thread);
    if (slots >= kSlots) return v;
    CARAVAN_UNROLL
    for (int w = 0; w < 4; ++w) {
      const int32_t slot = thread.lane() % 4 * 2 + w % 2 * 8;
      if (slot >= slots) v.word[w] = 0;
      if (slot + 1 >= slots) v.word[w] &= 0xffff;
    }
    return v;
  }
};

struct Fp8Cache {
  using Element = uint8_t;
  template <typename Thread>
  static CARAVAN_DEVICE Words4 Keys(const Element* block, int32_t step,
                                    Thread& thread) {
    return Widened(Load(block, step, thread));
  }
  template <typename Thread>
  static CARAVAN_DEVICE Words4 Values(const Element* block, int32_t step,
                                      int32_t slots, Thread& thread) {
    Words2 v = Load(block, step, thread);
    if (slots < kSlots) {
      uint32_t mask = 0;
      CARAVAN_UNROLL
      for (int byte = 0; byte < kCodesOfWord; ++byte) {
        const int32_t slot = Fp8Element(thread.lane() % 4, byte);
        if (slot < slots) mask |= 0xffu << 8 * byte;
      }
      v.word[0] &= mask;
      v.word[1] &= mask;
    }
    return Widened(v);
  }

 private:
  template <typename Thread>
  static CARAVAN_DEVICE Words2 Load(const Element* block, int32_t step,
                                    Thread& thread) {
    return thread.LoadStream(reinterpret_cast<const Words2*>(block) +
                             int64_t{step} * kWarpLanes + thread.lane());
  }
  // A word's codes are the two words of an mma.
  static CARAVAN_DEVICE Words4 Widened(const Words2& codes) {
    Words4 wide;
    CARAVAN_UNROLL
    for (int w = 0; w < 2; ++w) {
      uint32_t pair[2];
      WidenAnyFp8(codes.word[w], pair);
      wide.word[2 * w] = pair[0];
      wide.word[2 * w + 1] = pair[1];
    }
    return wide;
  }
};

// Grid: (tiles, G * chunks of a group's heads, splits or 1). Row r of a tile is
// token r / chunk, head r % chunk of the chunk.
template <typename Elements = Bf16Cache>
struct MmaAttendKernel {
  using Element = typename Elements::Element;
  static constexpr int kThreads = 256;
  static constexpr int kWarps = 8;
  static constexpr int kSplitKeys = 512;
  static constexpr int kWarpKeys = kSplitKeys / kWarps;
  static constexpr int kWarpBlocks = kWarpKeys / kSlots;
  static constexpr int kStepsAtOnce = 4;  // of 16 dimensions, reduced together
  static constexpr int kColumnsAtOnce = 16 * kStepsAtOnce;
  struct Args {
    const float* q;
    int64_t stride;
    const TokenTile* tiles;
    const TokenPlace* places;
    const int32_t* blocks;
    Cache cache;  // fragments
    int32_t layer;
    int32_t heads;
    int32_t chunk;  // heads of a tile: at most 16
    float scale;
    Partials partials;
    float* out;
    int64_t out_stride;
  };
  // q as fragments, warps' outputs, merged outputs, then per row and warp
  // maximum and sum, per row maximum and sum.
  static constexpr int64_t SharedBytes(int64_t width) {
    return kMmaRows * width * 2 +
           4 * (kWarps * kMmaRows * kColumnsAtOnce + kMmaRows * width +
                2 * kWarps * kMmaRows + 2 * kMmaRows);
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const Tile tile(args, thread.block_x(), thread.block_y());
    const int32_t splits = tile.last_position / kSplitKeys + 1;
    const bool alone = tile.place.partial >= 0 && splits > 1;
    if (thread.block_z() > 0 && (!alone || thread.block_z() >= splits)) return;
    const Shared shared(thread.shared(), args.cache.width());
    LoadQueries(args, tile, shared, thread);
    const int32_t first = alone ? thread.block_z() : 0;
    const int32_t end = alone ? first + 1 : splits;
    for (int32_t s = first; s < end; ++s) {
      MergeSplit(args, tile, s, s == first, shared, thread);
    }
    Finish(args, tile, alone, first, shared, thread);
  }

 private:
  struct Tile {
    TokenTile tokens;
    TokenPlace place;  // of the first token
    int32_t last_position;
    int32_t kv_head;
    int32_t first_head;
    int32_t heads;  // of this chunk

    CARAVAN_DEVICE Tile(const Args& args, int32_t index, int32_t y)
        : tokens(args.tiles[index]), place(args.places[tokens.first]) {
      const int32_t group = args.heads / args.cache.kv_heads;
      const int32_t chunks = (group + args.chunk - 1) / args.chunk;
      last_position = place.position + tokens.count - 1;
      kv_head = y / chunks;
      first_head = kv_head * group + y % chunks * args.chunk;
      const int32_t left = (kv_head + 1) * group - first_head;
      heads = left < args.chunk ? left : args.chunk;
    }
    // Whether row r is a token and head; which.
    CARAVAN_DEVICE bool Has(int row, int32_t chunk) const {
      return row / chunk < tokens.count && row % chunk < heads;
    }
    CARAVAN_DEVICE int64_t Token(int row, int32_t chunk) const {
      return tokens.first + row / chunk;
    }
    CARAVAN_DEVICE int64_t Head(int row, int32_t chunk) const {
      return first_head + row % chunk;
    }
    // The last key that row r sees; -1 where it is none.
    CARAVAN_DEVICE int32_t Position(int row, int32_t chunk) const {
      return Has(row, chunk) ? place.position + row / chunk : -1;
    }
  };

  struct Shared {
    Words4* q;
    float* warp_out;  // [warp][row][kColumnsAtOnce]
    float* out;       // [row][width]
    float* warp_max;  // [warp][row]
    float* warp_sum;
    float* max;  // [row], of the splits so far
    float* sum;
    CARAVAN_DEVICE Shared(void* base, int64_t width)
        : q(static_cast<Words4*>(base)),
          warp_out(reinterpret_cast<float*>(q + 2 * width)),
          out(warp_out + kWarps * kMmaRows * kColumnsAtOnce),
          warp_max(out + kMmaRows * width),
          warp_sum(warp_max + kWarps * kMmaRows),
          max(warp_sum + kWarps * kMmaRows),
          sum(max + kMmaRows) {}
  };

  template <typename Thread>
  static CARAVAN_DEVICE void LoadQueries(const Args& args, const Tile& tile,
                                         const Shared& shared, Thread& thread) {
    const int64_t width = args.cache.width();
    const int32_t dim = args.cache.head_dim;
    uint16_t* const target = reinterpret_cast<uint16_t*>(shared.q);
    for (int64_t i = thread.thread(); i < kMmaRows * width; i += kThreads) {
      const int row = static_cast<int>(i / width);
      const int64_t column = i % width;
      const bool real = tile.Has(row, args.chunk) && column < dim;
      const int64_t source = tile.Token(row, args.chunk) * args.stride +
                             tile.Head(row, args.chunk) * dim + column;
      target[WeightOffset(row, column, width)] =
          ToBf16(real ? args.q[source] : 0.0f).bits;
    }
    thread.Sync();
  }

  // The fragments of keys, or values, of a block.
  static CARAVAN_DEVICE const Element* BlockOf(const Args& args,
                                               const Tile& tile, int32_t key,
                                               bool values) {
    const int64_t block = args.blocks[tile.place.blocks + key / kSlots];
    const int64_t base =
        values ? args.cache.ValueBase(args.layer, block, tile.kv_head)
               : args.cache.KeyBase(args.layer, block, tile.kv_head);
    return static_cast<const Element*>(args.cache.data) + base;
  }

  // One split of 512 keys into the merged results.
  template <typename Thread>
  static CARAVAN_DEVICE void MergeSplit(const Args& args, const Tile& tile,
                                        int32_t split, bool first,
                                        const Shared& shared, Thread& thread) {
    const int32_t begin = split * kSplitKeys + thread.warp() * kWarpKeys;
    float scores[2 * kWarpBlocks][4] = {};
    Scores(args, tile, begin, scores, shared, thread);
    uint32_t probabilities[kWarpBlocks][4];
    Probabilities(args, tile, begin, scores, probabilities, shared, thread);
    const int32_t steps = static_cast<int32_t>(args.cache.width() / 16);
    for (int32_t step = 0; step < steps; step += kStepsAtOnce) {
      WarpOutputs(args, tile, begin, step, probabilities, shared, thread);
      thread.Sync();
      MergeOutputs(args, tile, split, first, step, shared, thread);
      thread.Sync();
    }
    if (thread.thread() < kMmaRows) {
      MergeStats(args, tile, split, first, thread.thread(), shared);
    }
    thread.Sync();
  }

  // scores = q k of this warp's 64 keys, and their row maxima.
  template <typename Thread>
  static CARAVAN_DEVICE void Scores(const Args& args, const Tile& tile,
                                    int32_t begin,
                                    float (&scores)[2 * kWarpBlocks][4],
                                    const Shared& shared, Thread& thread) {
    const int lane = thread.lane();
    const int32_t steps = static_cast<int32_t>(args.cache.width() / 16);
    const Element* keys[kWarpBlocks];
    CARAVAN_UNROLL
    for (int b = 0; b < kWarpBlocks; ++b) {
      const int32_t key = begin + b * kSlots;
      keys[b] = key <= tile.last_position
                    ? BlockOf(args, tile, key, /*values=*/false)
                    : nullptr;
    }
    CARAVAN_UNROLL_2
    for (int32_t step = 0; step < steps; ++step) {
      const Words4 q = shared.q[step * kWarpLanes + lane];
      CARAVAN_UNROLL
      for (int b = 0; b < kWarpBlocks; ++b) {
        if (keys[b] == nullptr) continue;
        const Words4 k = Elements::Keys(keys[b], step, thread);
        thread.Mma(scores[2 * b], q.word, k.word);
        thread.Mma(scores[2 * b + 1], q.word, k.word + 2);
      }
    }
    float max[2];
    CARAVAN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = AccumulatorRow(lane, 2 * half);
      const int32_t position = tile.Position(row, args.chunk);
      max[half] = -std::numeric_limits<float>::infinity();
      CARAVAN_UNROLL
      for (int n = 0; n < 2 * kWarpBlocks; ++n) {
        CARAVAN_UNROLL
        for (int i = 0; i < 2; ++i) {
          float& score = scores[n][2 * half + i];
          score *= args.scale;
          const int32_t key = begin + 8 * n + AccumulatorColumn(lane, i);
          if (key <= position) max[half] = MaxOf(max[half], score);
        }
      }
      max[half] = MaxOf(max[half], thread.ShuffleXor(max[half], 1));
      max[half] = MaxOf(max[half], thread.ShuffleXor(max[half], 2));
      if (lane % 4 == 0) {
        shared.warp_max[thread.warp() * kMmaRows + row] = max[half];
      }
    }
    thread.Sync();
  }

  static CARAVAN_DEVICE float SplitMax(const Shared& shared, int row) {
    float max = shared.warp_max[row];
    CARAVAN_UNROLL
    for (int w = 1; w < kWarps; ++w) {
      max = MaxOf(max, shared.warp_max[w * kMmaRows + row]);
    }
    return max;
  }

  // exp(score - maximum of the split), rounded to bf16, as the A operand of
  // the product with values; and the warp's sums of them.
  template <typename Thread>
  static CARAVAN_DEVICE void Probabilities(
      const Args& args, const Tile& tile, int32_t begin,
      const float (&scores)[2 * kWarpBlocks][4],
      uint32_t (&probabilities)[kWarpBlocks][4], const Shared& shared,
      Thread& thread) {
    const int lane = thread.lane();
    CARAVAN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = AccumulatorRow(lane, 2 * half);
      const int32_t position = tile.Position(row, args.chunk);
      const float max = SplitMax(shared, row);
      float sum = 0;
      CARAVAN_UNROLL
      for (int n = 0; n < 2 * kWarpBlocks; ++n) {
        float p[2];
        CARAVAN_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int32_t key = begin + 8 * n + AccumulatorColumn(lane, i);
          p[i] = key <= position
                     ? ToFloat(ToBf16(Exp(scores[n][2 * half + i] - max)))
                     : 0.0f;
          sum += p[i];
        }
        probabilities[n / 2][n % 2 * 2 + half] = PackBf16(p[0], p[1]);
      }
      sum += thread.ShuffleXor(sum, 1);
      sum += thread.ShuffleXor(sum, 2);
      if (lane % 4 == 0) {
        shared.warp_sum[thread.warp() * kMmaRows + row] = sum;
      }
    }
  }

  // The warp's 64 probabilities times values, kStepsAtOnce steps of columns.
  template <typename Thread>
  static CARAVAN_DEVICE void WarpOutputs(
      const Args& args, const Tile& tile, int32_t begin, int32_t first_step,
      const uint32_t (&probabilities)[kWarpBlocks][4], const Shared& shared,
      Thread& thread) {
    const int lane = thread.lane();
    const int32_t steps = static_cast<int32_t>(args.cache.width() / 16);
    float sums[kStepsAtOnce][2][4] = {};
    CARAVAN_UNROLL
    for (int b = 0; b < kWarpBlocks; ++b) {
      const int32_t key = begin + b * kSlots;
      if (key > tile.last_position) break;
      const Element* const values = BlockOf(args, tile, key, /*values=*/true);
      const int32_t slots = tile.last_position + 1 - key;
      CARAVAN_UNROLL
      for (int s = 0; s < kStepsAtOnce; ++s) {
        if (first_step + s >= steps) break;
        const Words4 v =
            Elements::Values(values, first_step + s, slots, thread);
        thread.Mma(sums[s][0], probabilities[b], v.word);
        thread.Mma(sums[s][1], probabilities[b], v.word + 2);
      }
    }
    float* const own =
        shared.warp_out + thread.warp() * kMmaRows * kColumnsAtOnce;
    CARAVAN_UNROLL
    for (int s = 0; s < kStepsAtOnce; ++s) {
      CARAVAN_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int column = s * 16 + i / 4 * 8 + AccumulatorColumn(lane, i % 4);
        own[AccumulatorRow(lane, i % 4) * kColumnsAtOnce + column] =
            sums[s][i / 4][i % 4];
      }
    }
  }

  // Adds the warps' outputs and merges them with the splits before.
  template <typename Thread>
  static CARAVAN_DEVICE void MergeOutputs(const Args& args, const Tile& tile,
                                          int32_t split, bool first,
                                          int32_t step, const Shared& shared,
                                          Thread& thread) {
    const int64_t width = args.cache.width();
    for (int i = thread.thread(); i < kMmaRows * kColumnsAtOnce;
         i += kThreads) {
      const int row = i / kColumnsAtOnce;
      const int64_t column = int64_t{step} * 16 + i % kColumnsAtOnce;
      if (column >= width) continue;
      if (split * kSplitKeys > tile.Position(row, args.chunk)) continue;
      // No sum is minus zero, whatever zeros were added.
      const float next =
          Tree8(shared.warp_out + i, kMmaRows * kColumnsAtOnce) + 0.0f;
      float& out = shared.out[row * width + column];
      if (first) {
        out = next;
      } else {
        const MergeFactors f =
            FactorsOf(shared.max[row], SplitMax(shared, row));
        out = std::fma(out, f.all, next * f.next);
      }
    }
  }

  static CARAVAN_DEVICE void MergeStats(const Args& args, const Tile& tile,
                                        int32_t split, bool first, int row,
                                        const Shared& shared) {
    if (split * kSplitKeys > tile.Position(row, args.chunk)) return;
    const float max = SplitMax(shared, row);
    const float sum = Tree8(shared.warp_sum + row, kMmaRows);
    const MergeFactors f = FactorsOf(first ? max : shared.max[row], max);
    shared.sum[row] =
        first ? sum : std::fma(shared.sum[row], f.all, sum * f.next);
    shared.max[row] = f.max;
  }

  // Rows to the result, or to the partial results of `split`.
  template <typename Thread>
  static CARAVAN_DEVICE void Finish(const Args& args, const Tile& tile,
                                    bool alone, int32_t split,
                                    const Shared& shared, Thread& thread) {
    const int32_t dim = args.cache.head_dim;
    for (int i = thread.thread(); i < kMmaRows * dim; i += kThreads) {
      const int row = i / dim;
      const int32_t position = tile.Position(row, args.chunk);
      if (split * kSplitKeys > position) continue;
      const int64_t token = tile.Token(row, args.chunk);
      const int64_t head = tile.Head(row, args.chunk);
      const float out = shared.out[row * args.cache.width() + i % dim];
      // A row whose only split this is has no partial results.
      if (!alone || position < kSplitKeys) {
        args.out[token * args.out_stride + head * dim + i % dim] =
            out / shared.sum[row];
        continue;
      }
      const int64_t index =
          int64_t{args.places[token].partial + split} * args.heads + head;
      args.partials.outputs[index * dim + i % dim] = out;
      if (i % dim == 0) {
        args.partials.stats[2 * index] = shared.max[row];
        args.partials.stats[2 * index + 1] = shared.sum[row];
      }
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_ATTENTION_H_
