// Kernels that move and round: embedding, packing of weights and activations,
// rotation and storing of keys and values, copies of blocks. Floor of each: its
// bytes in and out, once; none is compute-bound.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_ELEMENTWISE_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_ELEMENTWISE_H_

#include "worker/ops/cuda/kernels/operands.h"
#include "worker/ops/cuda/kernels/swizzled.h"

namespace caravan::worker::cuda {

// x[t, :] = table[ids[t] - first_row, :], where the table has that row. Grid:
// (T).
struct EmbedKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const int32_t* ids;
    Weights table;
    float* x;
    int64_t stride;
    int64_t first_row;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int64_t row = args.ids[t] - args.first_row;
    if (row < 0 || row >= args.table.rows) return;
    for (int64_t k = thread.thread(); k < args.table.segments.columns();
         k += kThreads) {
      args.x[t * args.stride + k] = args.table.Read(row, k);
    }
  }
};

// Rows of bf16, as in a checkpoint, to fragments. Row i of the source is row
// `first_row + i` of part `part`, whose rows begin at `part_begin` of the
// matrix unless parts are interleaved. Padding stays as it is. Grid: (rows).
struct PackWeightsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const uint16_t* source;
    uint16_t* target;
    SegmentTable segments;
    int64_t first_row;
    int64_t part_begin;
    int32_t part;
    bool interleaved;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t i = thread.block_x();
    const int64_t row = args.first_row + i;
    const int64_t target_row = args.interleaved ? InterleavedRow(row, args.part)
                                                : args.part_begin + row;
    const int64_t columns = args.segments.columns();
    for (int64_t k = thread.thread(); k < columns; k += kThreads) {
      args.target[WeightOffset(target_row, args.segments.Pad(k),
                               args.segments.depth())] =
          args.source[i * columns + k];
    }
  }
};

// Rounds activations (T, columns) to bf16 fragments. Padded columns and the
// tokens up to a multiple of 8 become zero. Grid: (tokens rounded up to 8).
struct PackActivationsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const float* x;
    int64_t stride;
    int32_t tokens;
    SegmentTable segments;
    uint32_t* target;
    ActivationOrder order;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const float* const row = args.x + t * args.stride;
    const bool real = t < args.tokens;
    const int64_t depth = args.segments.depth();
    for (int64_t p = 2 * thread.thread(); p < depth; p += 2 * kThreads) {
      const int64_t low = args.segments.Unpad(p);
      const int64_t high = args.segments.Unpad(p + 1);
      args.target[OrderedOffset(args.order, t, p, args.tokens, depth) / 2] =
          PackBf16(real && low >= 0 ? row[low] : 0.0f,
                   real && high >= 0 ? row[high] : 0.0f);
    }
  }
};

// Rounds activations (T, columns) to rows of bf16. Grid: (T).
struct RoundRowsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const float* x;
    int64_t stride;
    int64_t columns;
    uint16_t* target;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    for (int64_t k = thread.thread(); k < args.columns; k += kThreads) {
      args.target[t * args.columns + k] =
          ToBf16(args.x[t * args.stride + k]).bits;
    }
  }
};

// What a library's product is not asked to do: the epilogue of products y that
// lie in memory, for kSilu of all gates followed by all ups. y may be where the
// epilogue stores. Grid: (T, chunks of kThreads columns).
struct FinishProductKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const float* y;
    int64_t stride;
    Epilogue epilogue;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int64_t column =
        int64_t{thread.block_y()} * kThreads + thread.thread();
    const Epilogue& epilogue = args.epilogue;
    if (column >= epilogue.columns) return;
    const float* const y = args.y + t * args.stride + column;
    if (epilogue.mode == EpilogueMode::kSilu) {
      epilogue.PutSilu(t, column, y[0], y[epilogue.columns]);
    } else {
      epilogue.Put(t, column, y[0]);
    }
  }
};

// Turns q and k by their positions' angles; q goes out, k and v to the cache.
// qkv: (T, (H + 2 G) d), biases added. Grid: (T, H + 2 G).
struct RopeStoreKernel {
  static constexpr int kThreads = 64;
  struct Args {
    const float* qkv;
    int64_t stride;
    const float* cos;  // (T, d / 2)
    const float* sin;
    const int64_t* slots;
    int32_t layer;
    int32_t heads;
    Cache cache;
    float* q;
    int64_t q_stride;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int32_t head = thread.block_y();
    const int32_t half = args.cache.head_dim / 2;
    const float* const in =
        args.qkv + t * args.stride + int64_t{head} * args.cache.head_dim;
    const bool turns = head < args.heads + args.cache.kv_heads;
    for (int32_t i = thread.thread(); i < half; i += kThreads) {
      float a = in[i];
      float b = in[i + half];
      if (turns) {
        const float cos = args.cos[t * half + i];
        const float sin = args.sin[t * half + i];
        const float turned = std::fma(a, cos, -(b * sin));
        b = std::fma(b, cos, a * sin);
        a = turned;
      }
      Put(args, t, head, i, a);
      Put(args, t, head, i + half, b);
    }
  }

 private:
  static CARAVAN_DEVICE void Put(const Args& args, int64_t t, int32_t head,
                                 int32_t dim, float value) {
    const Cache& cache = args.cache;
    if (head < args.heads) {
      args.q[t * args.q_stride + int64_t{head} * cache.head_dim + dim] = value;
      return;
    }
    if (args.slots[t] < 0) return;
    const int64_t block = args.slots[t] / kSlots;
    const int64_t slot = args.slots[t] % kSlots;
    const int32_t kv = head - args.heads;
    const int64_t element =
        kv < cache.kv_heads
            ? cache.KeyBase(args.layer, block, kv) + cache.KeyElement(slot, dim)
            : cache.ValueBase(args.layer, block, kv - cache.kv_heads) +
                  cache.ValueElement(slot, dim);
    WriteElement(cache.data, cache.dtype, element, value);
  }
};

// One whole block, keys and values. Grid: (layers, chunks of kWords words).
struct CopyBlockKernel {
  static constexpr int kThreads = 256;
  static constexpr int kWords = 1024;  // of 4 bytes, a block of threads
  struct Args {
    uint32_t* data;
    int64_t layer_words;  // between layers
    int64_t block_words;
    int64_t source;  // block ids
    int64_t target;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    uint32_t* const layer = args.data + thread.block_x() * args.layer_words;
    const int64_t begin = int64_t{thread.block_y()} * kWords;
    for (int64_t i = thread.thread(); i < kWords; i += kThreads) {
      if (begin + i >= args.block_words) return;
      layer[args.target * args.block_words + begin + i] =
          layer[args.source * args.block_words + begin + i];
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_ELEMENTWISE_H_
