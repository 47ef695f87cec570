// Weights and caches in the memory of a device.
#ifndef CARAVAN_WORKER_OPS_CUDA_STORAGE_H_
#define CARAVAN_WORKER_OPS_CUDA_STORAGE_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {

// How a matrix is stored: fields are valid without data.
struct MatrixLayout {
  PackKind kind = PackKind::kQkv;
  DType dtype = DType::kFp32;
  bool fragments = false;  // for tensor cores, else plain rows
  int64_t rows = 0;
  SegmentTable segments;
  int64_t row_tiles = 0;  // of 16 packed rows, where there are fragments

  size_t bytes() const;
};

// `tensor_cores`: matrices of bf16 throughout, but those whose rows are only
// looked up, become fragments. Others keep their plain type, and all else is
// widened to fp32.
MatrixLayout LayoutOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                      bool tensor_cores);

struct CudaMatrix final : PackedMatrix {
  MatrixLayout layout;
  DeviceBuffer buffer;

  Weights weights() const;
};

// Uploads in pieces of at most `staging_bytes` (at least a row), turned into
// fragments on the device. `staging` is kept by the caller for the next matrix.
absl::StatusOr<std::unique_ptr<CudaMatrix>> PackMatrix(
    std::span<const RawMatrix> parts, const PackSpec& spec, bool tensor_cores,
    size_t staging_bytes, DeviceBuffer& staging, Device* device);

struct CudaKv final : KvStorage {
  KvSpec spec;
  Cache cache;
  DeviceBuffer buffer;

  // Elements of one block of one layer.
  int64_t block_elements() const;
};

size_t CacheBytes(const KvSpec& spec, DType dtype, bool fragments);
absl::StatusOr<std::unique_ptr<CudaKv>> AllocateCache(const KvSpec& spec,
                                                      DType dtype,
                                                      bool fragments,
                                                      Device* device);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_STORAGE_H_
