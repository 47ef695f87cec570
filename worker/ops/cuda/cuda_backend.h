// The phases of ops.h on a CUDA device.
//
// Classes. With fp32 activations every phase is computed in the reference's
// order (splits of 256 keys): the reference's and the cpu backend's bits, for
// parity. With bf16 activations, products with matrices of bf16, of 4 bits and
// of fp8 run on tensor cores, attention too where the cache is bf16 or fp8, and
// splits have 512 keys. With fp8 activations the same, but matrices of fp8 meet
// rows rounded to fp8. Weights of other types meet fp32 activations in all.
//
// The phases' views may lie in the backend's memory (AllocateArena), where
// nothing is copied, or in the host's.
#ifndef CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_
#define CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/device_ceilings.h"

namespace caravan::worker {

// What a step's products promise.
enum class CudaProfile {
  kExact,  // a token's bits do not depend on what else is in the step
  kFast,   // they may: matrices of bf16 are the device's library's; a class of
           // its own
};

// The instruction of products on tensor cores.
enum class TensorCores {
  // mma.sync, and wgmma for large steps where a check at start finds the bits
  // of mma.sync.
  kAuto,
  kMma,
  kWgmma,  // for every number of tokens: a class of its own
};

// How devices that are ranks reach each other.
enum class CudaPeers {
  kNccl,  // opened at run time
  kHost,  // through page-locked memory: no graphs, for comparison
};

// "nccl" or "host"; kInvalidArgument otherwise.
absl::StatusOr<CudaPeers> ParseCudaPeers(std::string_view name);

// "auto", "mma" or "wgmma"; kInvalidArgument otherwise.
absl::StatusOr<TensorCores> ParseTensorCores(std::string_view name);

struct CudaOptions {
  NumericsOptions numerics = {ActivationType::kBf16, DType::kBf16};
  CudaProfile profile = CudaProfile::kExact;
  // Fast: where measured algorithms are kept (gemm_algorithms.h); "": nowhere.
  std::string gemm_algorithms = {};
  int32_t device = 0;  // ordinal
  // Which of how many ranks this is, in {1, 2, 4, 8}: matrices may be packed
  // with a rank's segments and rows, and the phases that end with a sum, a look
  // up or logits give the whole on every rank, who all call them at the same
  // time. Views of x and of logits in host memory are written by rank 0.
  int32_t rank = 0;
  int32_t ranks = 1;
  // Exact: products of up to so many tokens with qkv and the head are the
  // library's for shapes whose bits are found equal to our kernels' when they
  // are packed (library_check.h), in [0, kMaxGemmTokens]; 0: none are.
  int32_t library_check_tokens = 0;
  // Piece in which weights are uploaded.
  size_t staging_bytes = size_t{32} << 20;
  // Steps that only decode are padded to buckets (graph_buckets.h) and replayed
  // as graphs: the same bits. Their views must have room for the tokens of
  // ReserveScratch.
  bool graphs = true;
  // Small grids start while the one before ends (geometry.h): the same bits.
  bool early_starts = true;
  TensorCores tensor_cores = TensorCores::kAuto;
  // Columns of the products by which wgmma is compared with mma.sync.
  int64_t check_columns = 4096;
};

// On the machine's device. Errors: kUnsupportedParameter where this build has
// no CUDA, the machine no such device or no wgmma that computes where it is
// asked for or no tensor cores for fp8 activations, activations are int8, or
// the profile is fast with fp32 activations or without the library. Those of
// the file of algorithms.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(
    const CudaOptions& options);

// Ranks on the machine's devices 0 to options.ranks - 1.
struct CudaRanks {
  std::vector<std::unique_ptr<Backend>> backends;  // in order
  // To be called when one has failed: ends what the others wait for.
  std::function<void(const absl::Status&)> give_up;
};
// Errors: those of MakeCudaBackend, and kUnsupportedParameter where there are
// fewer devices than ranks, or no NCCL for kNccl.
absl::StatusOr<CudaRanks> MakeCudaRanks(const CudaOptions& options,
                                        CudaPeers peers);

// What the machine's device can do, with the defaults of CeilingOptions. Error:
// kUnsupportedParameter as above.
absl::StatusOr<cuda::DeviceCeilings> MeasureCudaCeilings(int32_t device);

// The same without a device: it says what will be allocated, and no more.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaPlanner(
    const CudaOptions& options);

namespace cuda {

// On a given device. `clock` must outlive the backend.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackendOn(
    std::unique_ptr<Device> device, const CudaOptions& options,
    const Clock& clock = SystemClock::Get());
// One that is asked for plans only, and may have no library.
absl::StatusOr<std::unique_ptr<Backend>> MakePlannerOn(
    std::unique_ptr<Device> device, const CudaOptions& options);

// Partial results of attention at once (geometry.h).
inline constexpr int32_t kPartialSlots = 1024;

}  // namespace cuda
}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_
