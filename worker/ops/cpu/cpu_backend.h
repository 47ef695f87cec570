// The phases of ops.h on CPUs: packed weights streamed once per step, the
// layer's phases fused between few synchronization points, one set of kernels
// per instruction set chosen at run time, bits equal to the reference's.
#ifndef CARAVAN_WORKER_OPS_CPU_CPU_BACKEND_H_
#define CARAVAN_WORKER_OPS_CPU_CPU_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

enum class CpuIsa { kAuto, kAvx512Bf16, kAvx512, kAvx2, kPortable };

// "auto", "avx512bf16", "avx512", "avx2", "portable".
const char* Name(CpuIsa isa);

// What this build on this machine can run, best first; kPortable always.
std::vector<CpuIsa> AvailableCpuIsas();

struct CpuOptions {
  // Parameters that affect behaviour.
  NumericsOptions numerics;

  // Parameters that affect performance only.
  int threads = 1;   // [1, 256], the caller's included
  bool pin = false;  // bind threads to cores
  CpuIsa isa = CpuIsa::kAuto;
};

// Errors: kInvalidField (threads), kUnsupportedParameter (an
// instruction set that the machine or the build lacks).
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(
    const CpuOptions& options);

// How often the threads of a backend that MakeCpuBackend made have waited for
// one another so far.
int32_t Synchronizations(const Backend& cpu_backend);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_CPU_CPU_BACKEND_H_
