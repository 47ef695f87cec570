// What a failed placement means for its request: whether another one can help,
// whether waiting can, and when it is enough.
#ifndef CARAVAN_GATEWAY_RESUME_POLICY_H_
#define CARAVAN_GATEWAY_RESUME_POLICY_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "common/status/errors.h"
#include "gateway/prompt_group.h"

namespace caravan::gateway {

// Submits of a prompt without a new token in between.
inline constexpr int32_t kMaxAttempts = 8;
// Deaths of workers at which it ran, likewise, after which the request is
// suspected. At a worker that had said that it waits it did not run.
inline constexpr int32_t kMaxDeaths = 2;

// Whether another placement can help.
bool CanMove(Reason reason);

// Nobody can take it now, and somebody may soon.
bool MayPass(Reason reason);

// Label of the metric of resumes.
std::string_view ResumeCause(Reason reason);

// Counts the group's failure and excludes the replica of it. Not OK where the
// request ends with it: the failure itself, or kSuspectRequest.
absl::Status CountFailure(PromptGroup& group);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_RESUME_POLICY_H_
