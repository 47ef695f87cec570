// What kernels are written in. A kernel is a struct with
//
//   static constexpr int kThreads;    // of a block
//   struct Args { ... };              // plain data: passed by value
//   template <typename Thread>
//   static CARAVAN_DEVICE void Run(const Args& args, Thread& thread);
//
// and `Thread` is one thread of a grid:
//
//   thread(), lane(), warp()    place in the block and in its warp of 32
//   block_x(), block_y(), block_z()
//   shared()                    the block's shared memory, 1024-byte aligned
//   Sync()                      waits for all threads of the block
//   ShuffleXor(value, mask)     `value` (float, uint32_t) of lane() ^ mask; the
//                               whole warp calls
//   AtomicAdd(address, value)   of uint32_t or uint64_t, in either memory
//   Mma(c, a, b)                c += a b on tensor cores (fragments.h); the
//                               whole warp calls
//   kHasFp8Mma                  whether there is MmaFp8 (sm_89 and later)
//   MmaFp8(c, a, b)             the same for e4m3, 32 of k; the whole warp
//   calls LoadStream(address)         16 or 8 bytes that are read once
//   kHasWgmma                   whether there is what follows (sm_90a)
//
//   InitBarrier(barrier, n)     completes a phase after n arrivals and all
//   bytes
//                               that were expected; one thread calls
//   PublishBarriers()           after that; the whole block calls
//   ArriveBarrier(barrier)      one arrival
//   ExpectBytes(barrier, n)     one arrival, and n bytes to come
//   WaitBarrier(barrier, p)     until the phase of parity p (0 first) completed
//   CopyBulk(to, from, n, barrier)  n bytes to shared memory, later; multiples
//                               of 16
//   SharedAddress(address)      where shared memory lies for descriptors
//   TakeRegisters(), GiveRegisters()  of groups of four warps, to those that
//                               multiply from the one that does not
//   BeginWgmma()                before a row of Wgmma; four warps call
//   Wgmma(c, a, descriptor)     c += a b, later (swizzled.h); nobody touches c,
//                               a or b before
//   EndWgmma()                  waits for all of them
//
// The device has one implementation of Thread (kernels.cu), tests another that
// runs the same kernels on the host, so every index is checked without a GPU.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_THREAD_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_THREAD_H_

#include <cstdint>

#include "worker/ops/canonical_math.h"
#include "worker/ops/host_device.h"
#include "worker/tensor/dtype.h"

#ifdef __CUDACC__
#define CARAVAN_DEVICE __device__ __forceinline__
#define CARAVAN_UNROLL _Pragma("unroll")
#define CARAVAN_UNROLL_2 _Pragma("unroll 2")
#else
#define CARAVAN_DEVICE inline
#define CARAVAN_UNROLL
#define CARAVAN_UNROLL_2
#endif

namespace caravan::worker::cuda {

// 16 bytes: what one load of a thread fetches.
struct alignas(16) Words4 {
  uint32_t word[4];
};

// 8 bytes.
struct alignas(8) Words2 {
  uint32_t word[2];
};

// Two bf16 in one word, `low` first in memory; rounded to nearest even.
CARAVAN_DEVICE uint32_t PackBf16(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return uint32_t{ToBf16(low).bits} | (uint32_t{ToBf16(high).bits} << 16);
#endif
}

// The same value as ToFloat, by one instruction.
CARAVAN_DEVICE float HalfToFloat(uint16_t bits) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  return ToFloat(Fp16{bits});
#endif
}

CARAVAN_DEVICE float ReadElement(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFp32:
      return static_cast<const float*>(data)[i];
    case DType::kBf16:
      return ToFloat(static_cast<const Bf16*>(data)[i]);
    case DType::kFp16:
      return ToFloat(static_cast<const Fp16*>(data)[i]);
    case DType::kFp8:
      return ToFloat(static_cast<const Fp8*>(data)[i]);
  }
  return 0.0f;
}

CARAVAN_DEVICE void WriteElement(void* data, DType dtype, int64_t i,
                                 float value) {
  switch (dtype) {
    case DType::kFp32:
      static_cast<float*>(data)[i] = value;
      return;
    case DType::kBf16:
      static_cast<Bf16*>(data)[i] = ToBf16(value);
      return;
    case DType::kFp16:
      static_cast<Fp16*>(data)[i] = ToFp16(value);
      return;
    case DType::kFp8:
      static_cast<Fp8*>(data)[i] = ToFp8(value);
      return;
  }
}

CARAVAN_DEVICE float MaxOf(float a, float b) { return a > b ? a : b; }

// ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
CARAVAN_DEVICE float Tree8(const float* s, int64_t step) {
  return ((s[0] + s[step]) + (s[2 * step] + s[3 * step])) +
         ((s[4 * step] + s[5 * step]) + (s[6 * step] + s[7 * step]));
}

// The fold that ends Lanes16 (ops.h); `lanes` is overwritten.
CARAVAN_DEVICE float FoldLanes16(float* lanes) {
  for (int j = 0; j < 8; ++j) lanes[j] += lanes[j + 8];
  for (int j = 0; j < 4; ++j) lanes[j] += lanes[j + 4];
  lanes[0] += lanes[2];
  lanes[1] += lanes[3];
  return lanes[0] + lanes[1];
}

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_THREAD_H_
