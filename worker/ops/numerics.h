// Types of activations and cache by name, as flags give them.
#ifndef CARAVAN_WORKER_OPS_NUMERICS_H_
#define CARAVAN_WORKER_OPS_NUMERICS_H_

#include <string>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// "v1", the last part of a class of CPUs; "v2" where there are weights of nf4
// or fp4, whose products the first version made of widened weights.
std::string NumericsVersion(WeightTypes weights);

// `activations` is auto, fp32, bf16, int8 or fp8, `kv` auto, fp32, bf16, fp16
// or fp8 (--activations and --kv). Auto follows the weights: with some in
// blocks int8 (fp32 where those are of nf4 and fp4), with bf16 and fp8 ones
// only bf16, else fp32; and a cache of fp32 where all weights are fp32, else of
// bf16. Error: kUnsupportedParameter names flag and value. Thread-safe.
absl::StatusOr<NumericsOptions> ParseNumerics(const std::string& activations,
                                              const std::string& kv,
                                              WeightTypes weights);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_NUMERICS_H_
