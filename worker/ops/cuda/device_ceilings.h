// What a device can do at most, measured now: figures mean something only
// beside a measurement of the same run.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_CEILINGS_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_CEILINGS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/ops/cuda/device.h"

namespace caravan::worker::cuda {

struct DeviceCeilings {
  std::string card;                  // and library, as far as they are told
  double read_bytes_per_second = 0;  // every byte once, result thrown away
  double copy_bytes_per_second = 0;  // read and written, both counted
  double mma_flops = 0;              // mma.sync out of registers
  double gemm_flops = 0;  // the library's largest product; 0 without one
};

struct CeilingOptions {
  size_t bytes = size_t{4} << 30;  // read; a fourth of it is copied
  int32_t gemm_size = 8192;        // rows, columns and tokens, at most
                                   // kMaxGemmTokens of the last
  int32_t mma_rounds = 2000;
  int repeats = 5;  // the median counts
};

// Needs options.bytes of the device's memory, which is free again afterwards.
// Errors are the device's.
absl::StatusOr<DeviceCeilings> MeasureCeilings(Device* device,
                                               const Clock& clock,
                                               const CeilingOptions& options);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_CEILINGS_H_
