// Products by a device's own library (cuBLASLt on NVIDIA's), as the backend
// sees it: which algorithms it has, and one that runs.
#ifndef CARAVAN_WORKER_OPS_CUDA_GEMM_LIBRARY_H_
#define CARAVAN_WORKER_OPS_CUDA_GEMM_LIBRARY_H_

#include <cstdint>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/gemm_algorithms.h"

namespace caravan::worker::cuda {

// y[t, n] = sum_k x[t, k] w[n, k], or + y[t, n]: rows of bf16, one after the
// other, results in fp32. Plain data without padding; pointers are the
// device's, aligned to 16 bytes.
struct LibraryGemm {
  const uint16_t* w = nullptr;  // (rows, columns)
  const uint16_t* x = nullptr;  // (tokens, columns)
  float* y = nullptr;           // (tokens, rows)
  int64_t stride = 0;           // of y, a multiple of 4
  int32_t tokens = 0;
  int32_t rows = 0;     // a multiple of kLibraryUnit
  int32_t columns = 0;  // a multiple of kLibraryUnit
  int32_t adds = 0;     // 1: to what y holds
  GemmAlgorithm algorithm;
  void* workspace = nullptr;  // of algorithm.workspace_bytes
};
static_assert(std::has_unique_object_representations_v<LibraryGemm>);

// What rows and columns are multiples of, so that every row is aligned.
inline constexpr int64_t kLibraryUnit = 8;

// Which algorithms are asked for.
struct GemmSearch {
  int count = 16;
  int64_t workspace_bytes = kGemmWorkspaceBytes;
  // Only those that add a row's k in one piece, ascending as far as can be
  // asked for: no part of K apart from the others.
  bool ordered = false;
};

// Runs in the order of its device's stream. One caller at a time.
class GemmLibrary {
 public:
  virtual ~GemmLibrary() = default;

  virtual const GemmSite& site() const = 0;
  // For a product's shape (pointers are not read), the best guess first; at
  // least one, or kUnsupportedParameter.
  virtual absl::StatusOr<std::vector<GemmAlgorithm>> Candidates(
      const LibraryGemm& gemm, const GemmSearch& search) = 0;
  // Whether gemm.algorithm computes it on this device in its workspace: what
  // was read from a file may not.
  virtual bool CanRun(const LibraryGemm& gemm) = 0;
  virtual absl::Status Run(const LibraryGemm& gemm) = 0;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_GEMM_LIBRARY_H_
