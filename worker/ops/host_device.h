// Marks functions that the CUDA compiler builds for the device too; means
// nothing to other compilers.
#ifndef CARAVAN_WORKER_OPS_HOST_DEVICE_H_
#define CARAVAN_WORKER_OPS_HOST_DEVICE_H_

#ifdef __CUDACC__
#define CARAVAN_HOST_DEVICE __host__ __device__
#else
#define CARAVAN_HOST_DEVICE
#endif

#endif  // CARAVAN_WORKER_OPS_HOST_DEVICE_H_
