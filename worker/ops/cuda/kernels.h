// The door from C++ to the kernels that the CUDA compiler built.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_H_

#include <cuda_runtime_api.h>

#include "worker/ops/cuda/device.h"

namespace caravan::worker::cuda {

// The __global__ function of kernel `index` of AllKernels, for
// cudaLaunchKernel: one argument, the kernel's Args.
const void* KernelFunction(int index);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_H_
