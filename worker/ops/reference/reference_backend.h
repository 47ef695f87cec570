// The scalar truth: every phase is the literal composition of the formulas in
// formulas.h. What other backends are compared with, bit for bit.
#ifndef CARAVAN_WORKER_OPS_REFERENCE_REFERENCE_BACKEND_H_
#define CARAVAN_WORKER_OPS_REFERENCE_REFERENCE_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

// One thread: the caller's. The KV cache holds fp32 rounded to its type. No
// errors.
absl::StatusOr<std::unique_ptr<Backend>> MakeReferenceBackend(
    const NumericsOptions& options);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_REFERENCE_REFERENCE_BACKEND_H_
