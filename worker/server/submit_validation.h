// From a Submit of the wire to a GroupRequest of the engine: the only way in.
// Everything that the engine takes for granted is checked here.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_SERVER_SUBMIT_VALIDATION_H_
#define CARAVAN_WORKER_SERVER_SUBMIT_VALIDATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.pb.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// What a submit is held against.
struct SubmitLimits {
  uint64_t epoch = 0;
  int32_t vocabulary_size = 0;
  int32_t context_length = 0;
  std::vector<TokenId> eos_ids;  // the model's own end tokens
};

// Bytes of a name on the wire (request_id, tenant, ...).
inline constexpr int kMaxNameBytes = 256;

// The group, without its id. Errors, each naming field, limit and value:
// kStaleEpoch, kUnsupportedFeature, kUnsupportedParameter (adapter,
// response_format_json, embedding spans), kPromptTooLong, kDeadlineExceeded,
// kInvalidField.
absl::StatusOr<GroupRequest> MakeGroupRequest(const v1::Submit& submit,
                                              const SubmitLimits& limits,
                                              absl::Time now);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_SUBMIT_VALIDATION_H_
