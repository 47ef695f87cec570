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
  bool library = false;    // plain rows of bf16 for the device's library
  bool four_bit = false;   // codes in fragment order, of `format`
  bool fp8 = false;        // codes of e4m3 in fragment order
  bool partial = false;    // a rank's segments: products are parts of sums
  OwnedRows owned_rows;    // of a table or an output head
  FourBitFormat format;
  int64_t rows = 0;
  SegmentTable segments;
  int64_t row_tiles = 0;  // of 16 packed rows, where there are fragments

  size_t bytes() const;
  // Fragments of bf16, not of codes.
  bool plain_fragments() const { return fragments && !four_bit && !fp8; }
};

// What matrices become. With tensor cores those of bf16 throughout, but those
// whose rows are only looked up, become fragments or rows for the library; so
// do those of 4 bits throughout whose segments begin at their groups
// (four_bit.h), and those of fp8 throughout (fp8.h), become fragments. Others
// keep their plain type, and all else is widened to fp32.
struct PackPolicy {
  bool tensor_cores = false;  // fragments
  bool library = false;       // rows for the library, where it takes them
};
MatrixLayout LayoutOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                      PackPolicy policy);

struct CudaMatrix final : PackedMatrix {
  MatrixLayout layout;
  DeviceBuffer buffer;
  // Of a matrix for the library: the most tokens of a product, and what expires
  // with the matrix.
  int32_t library_tokens = 0;
  std::shared_ptr<const int> alive;

  Weights weights() const;
};

// Uploads in pieces of at most `staging_bytes` (at least a row), turned into
// fragments on the device. `staging` is kept by the caller for the next matrix.
absl::StatusOr<std::unique_ptr<CudaMatrix>> PackMatrix(
    std::span<const RawMatrix> parts, const PackSpec& spec, PackPolicy policy,
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
