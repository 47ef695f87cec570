// What a class of numerics computes, as 32 bytes: a worker runs this at start
// and registers the result, so that two workers which agree on class and
// fingerprint may continue each other's streams. Changed bits without a new
// version of the class fail a test that holds the expected values.
#ifndef CARAVAN_WORKER_OPS_SELF_TEST_H_
#define CARAVAN_WORKER_OPS_SELF_TEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// Runs every phase of `backend` on seeded inputs, in steps of 64, 7 and 1 rows
// and across borders of blocks and attention splits, with weights of each of
// the types in turn; gives the SHA-256 (32 bytes, not text) of all result bits,
// of several types that of their digests. Takes some milliseconds a type.
// Errors are the backend's.
absl::StatusOr<std::string> RunSelfTest(Backend* backend, WeightTypes weights);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_SELF_TEST_H_
