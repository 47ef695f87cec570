// One thread of a grid as kernels see it (kernels/thread.h), and an entry point
// for every kernel of the list.
#include "worker/ops/cuda/kernels.h"

namespace caravan::worker::cuda {
namespace {

extern __shared__ __align__(16) unsigned char shared_memory[];

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

  // Not kept in L1, which is for what several warps read.
  __device__ __forceinline__ Words4 LoadStream(const Words4* address) {
    Words4 value;
    asm("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]),
          "=r"(value.word[3])
        : "l"(address));
    return value;
  }
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    Entry(const __grid_constant__ typename Kernel::Args args) {
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
