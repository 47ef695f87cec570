// What becomes of rows that were gathered from all ranks: partial sums are
// added, rows of a table picked, columns of an output head put side by side.
// Floor of each: its bytes in and out, once.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_GATHERED_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_GATHERED_H_

#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

inline constexpr int kMostRanks = 8;

// The part of rank r begins at r * part, rows of `columns` one after another.
struct Gathered {
  const float* all;
  int64_t part;  // floats
  int64_t columns;

  CARAVAN_DEVICE float Read(int64_t rank, int64_t row, int64_t column) const {
    return all[rank * part + row * columns + column];
  }
};

// x += Tree(parts) + bias: neighbours first, as HostCollective
// (worker/shard/collective.h) adds them. Grid: (T, chunks of kThreads columns).
struct AddTreeKernel {
  static constexpr int kThreads = 256;
  struct Args {
    Gathered parts;
    int32_t ranks;      // 2, 4 or 8
    int32_t flush;      // whether subnormal sums become zero
    const float* bias;  // or null
    float* x;
    int64_t stride;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int64_t column =
        int64_t{thread.block_y()} * kThreads + thread.thread();
    if (column >= args.parts.columns) return;
    float sums[kMostRanks] = {};
    CARAVAN_UNROLL
    for (int r = 0; r < kMostRanks; ++r) {
      if (r < args.ranks) sums[r] = args.parts.Read(r, t, column);
    }
    CARAVAN_UNROLL
    for (int step = 1; step < kMostRanks; step *= 2) {
      CARAVAN_UNROLL
      for (int r = 0; r + step < kMostRanks; r += 2 * step) {
        if (r + step < args.ranks) {
          sums[r] = Sum(args, sums[r], sums[r + step]);
        }
      }
    }
    float sum = sums[0];
    if (args.bias != nullptr) sum += args.bias[column];
    args.x[t * args.stride + column] += sum;
  }

 private:
  static CARAVAN_DEVICE float Sum(const Args& args, float a, float b) {
    const float sum = a + b;
    const bool small = sum < 0x1p-126f && sum > -0x1p-126f;
    return args.flush != 0 && small ? 0.0f * sum : sum;
  }
};

// Rows of a table that ranks have dealt out.
struct RowOwners {
  int32_t first[kMostRanks + 1] = {};

  CARAVAN_DEVICE int Of(int32_t row) const {
    int rank = 0;
    CARAVAN_UNROLL
    for (int r = 1; r < kMostRanks; ++r) {
      if (row >= first[r]) rank = r;
    }
    return rank;
  }
};

// x[t, :] = the part of the rank that has row ids[t]. Grid: (T, chunks of
// kThreads columns).
struct PickRowsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    Gathered parts;
    RowOwners owners;
    const int32_t* ids;
    float* x;
    int64_t stride;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int64_t column =
        int64_t{thread.block_y()} * kThreads + thread.thread();
    if (column >= args.parts.columns) return;
    args.x[t * args.stride + column] =
        args.parts.Read(args.owners.Of(args.ids[t]), t, column);
  }
};

// y[t, c] = column c - first[r] of the rank r that has column c. Grid: (T,
// chunks of kThreads columns).
struct PlaceColumnsKernel {
  static constexpr int kThreads = 256;
  struct Args {
    Gathered parts;
    RowOwners owners;
    int64_t columns;  // of all ranks
    float* y;
    int64_t stride;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const int64_t column =
        int64_t{thread.block_y()} * kThreads + thread.thread();
    if (column >= args.columns) return;
    const int rank = args.owners.Of(static_cast<int32_t>(column));
    args.y[t * args.stride + column] =
        args.parts.Read(rank, t, column - args.owners.first[rank]);
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_GATHERED_H_
