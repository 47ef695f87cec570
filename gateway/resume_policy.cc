#include "gateway/resume_policy.h"

#include "common/strings.h"

namespace caravan::gateway {

bool CanMove(Reason reason) {
  switch (reason) {
    case Reason::kWorkerLost:
    case Reason::kDraining:
    case Reason::kStaleEpoch:
    case Reason::kUnsupportedFeature:
    case Reason::kNumericFault:
    case Reason::kQueueFull:
    case Reason::kProtocolMismatch:
      return true;
    default:
      return false;
  }
}

bool MayPass(Reason reason) {
  return reason == Reason::kNoReplica || reason == Reason::kNoReplicaOfClass ||
         reason == Reason::kModelNotFound ||
         reason == Reason::kRouterUnavailable;
}

std::string_view ResumeCause(Reason reason) {
  switch (reason) {
    case Reason::kWorkerLost:
      return "lost";
    case Reason::kDraining:
      return "drained";
    case Reason::kNumericFault:
      return "fault";
    default:
      return "other";
  }
}

absl::Status CountFailure(PromptGroup& group) {
  const Reason reason = ReasonOf(group.failure);
  if (!CanMove(reason)) return group.failure;
  const bool death =
      (group.worker_died && !group.queued) || reason == Reason::kNumericFault;
  group.deaths += death ? 1 : 0;
  group.attempts += 1;
  group.excluded.push_back(group.replica());
  if (group.deaths >= kMaxDeaths) {
    return MakeError(
        Reason::kSuspectRequest,
        StrCat("the request was running at ", group.deaths,
               " worker failures without a token in between; the last was: ",
               ToStd(group.failure.message())),
        {{"deaths", StrCat(group.deaths)}});
  }
  return group.attempts < kMaxAttempts ? absl::OkStatus() : group.failure;
}

}  // namespace caravan::gateway
