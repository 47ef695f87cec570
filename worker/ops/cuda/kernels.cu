// One thread of a grid as kernels see it (kernels/thread.h), and an entry point
// for every kernel of the list.
#include "worker/ops/cuda/hopper.h"
#include "worker/ops/cuda/kernels.h"

namespace caravan::worker::cuda {
namespace {

extern __shared__ __align__(1024) unsigned char shared_memory[];

class CudaThread {
 public:
  __device__ __forceinline__ int thread() const {
    return static_cast<int>(threadIdx.x);
  }
  __device__ __forceinline__ int lane() const {
    return static_cast<int>(threadIdx.x % kWarpLanes);
  }
  __device__ __forceinline__ int warp() const {
    return static_cast<int>(threadIdx.x / kWarpLanes);
  }
  __device__ __forceinline__ int block_x() const {
    return static_cast<int>(blockIdx.x);
  }
  __device__ __forceinline__ int block_y() const {
    return static_cast<int>(blockIdx.y);
  }
  __device__ __forceinline__ int block_z() const {
    return static_cast<int>(blockIdx.z);
  }
  __device__ __forceinline__ void* shared() const { return shared_memory; }
  __device__ __forceinline__ void Sync() { __syncthreads(); }
  __device__ __forceinline__ float ShuffleXor(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  __device__ __forceinline__ uint32_t ShuffleXor(uint32_t value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  __device__ __forceinline__ void AtomicAdd(uint32_t* address, uint32_t value) {
    atomicAdd(address, value);
  }
  __device__ __forceinline__ void AtomicAdd(uint64_t* address, uint64_t value) {
    atomicAdd(reinterpret_cast<unsigned long long*>(address),
              static_cast<unsigned long long>(value));
  }

  // Not volatile, as LoadStream is not: loads must be free to run ahead.
  __device__ __forceinline__ void Mma(float* c, const uint32_t* a,
                                      const uint32_t* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }

#if __CUDA_ARCH__ >= 890
  static constexpr bool kHasFp8Mma = true;
  __device__ __forceinline__ void MmaFp8(float* c, const uint32_t* a,
                                         const uint32_t* b) {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  static constexpr bool kHasFp8Mma = false;
#endif

  // Not kept in L1, which is for what several warps read.
  __device__ __forceinline__ Words4 LoadStream(const Words4* address) {
    Words4 value;
    asm("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]),
          "=r"(value.word[3])
        : "l"(address));
    return value;
  }
  __device__ __forceinline__ Words2 LoadStream(const Words2* address) {
    Words2 value;
    asm("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
        : "=r"(value.word[0]), "=r"(value.word[1])
        : "l"(address));
    return value;
  }

#ifdef CARAVAN_HOPPER
  static constexpr bool kHasWgmma = true;
  __device__ __forceinline__ uint32_t SharedAddress(const void* address) const {
    return hopper::SharedAddress(address);
  }
  __device__ __forceinline__ void InitBarrier(uint64_t* barrier, int count) {
    hopper::InitBarrier(barrier, count);
  }
  __device__ __forceinline__ void PublishBarriers() {
    hopper::PublishBarriers();
  }
  __device__ __forceinline__ void ArriveBarrier(uint64_t* barrier) {
    hopper::ArriveBarrier(barrier);
  }
  __device__ __forceinline__ void ExpectBytes(uint64_t* barrier, int bytes) {
    hopper::ExpectBytes(barrier, bytes);
  }
  __device__ __forceinline__ void WaitBarrier(uint64_t* barrier, int parity) {
    hopper::WaitBarrier(barrier, parity);
  }
  __device__ __forceinline__ void CopyBulk(void* target, const void* source,
                                           int bytes, uint64_t* barrier) {
    hopper::CopyBulk(target, source, bytes, barrier);
  }
  __device__ __forceinline__ void TakeRegisters() { hopper::TakeRegisters(); }
  __device__ __forceinline__ void GiveRegisters() { hopper::GiveRegisters(); }
  __device__ __forceinline__ void BeginWgmma() { hopper::BeginWgmma(); }
  template <int kSums>
  __device__ __forceinline__ void Wgmma(float (&c)[kSums], const uint32_t* a,
                                        uint64_t descriptor) {
    hopper::Wgmma(c, a, descriptor);
  }
  __device__ __forceinline__ void EndWgmma() { hopper::EndWgmma(); }
#else
  static constexpr bool kHasWgmma = false;
#endif
};

// Blocks of a multiprocessor to leave registers for; 0: as many as may be.
template <typename Kernel>
constexpr int MinBlocks() {
  if constexpr (requires { Kernel::kMinBlocks; }) {
    return Kernel::kMinBlocks;
  } else {
    return 0;
  }
}

// For grids that may start while the one before is ending: every kernel waits
// here for all that was written before it, and lets the next one start its
// blocks only then, so that no more than two grids overlap. The compiler may
// have LoadStream read weights ahead of this: they are not written by the
// kernel before, nor are addresses of the cache known before a table is read.
__device__ __forceinline__ void MeetGridBefore() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, MinBlocks<Kernel>())
    Entry(const __grid_constant__ typename Kernel::Args args) {
  MeetGridBefore();
  CudaThread thread;
  Kernel::Run(args, thread);
}

template <typename... Kernels>
const void* FunctionOf(int index, KernelList<Kernels...>) {
  static const void* const functions[] = {
      reinterpret_cast<const void*>(&Entry<Kernels>)...};
  return functions[index];
}

}  // namespace

const void* KernelFunction(int index) {
  return FunctionOf(index, AllKernels());
}

}  // namespace caravan::worker::cuda
