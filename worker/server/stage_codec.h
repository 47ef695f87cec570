// What stages say to each other, to and from the messages of stage.proto.
// Nothing that comes over the wire is believed: sizes, epochs and checksums are
// checked before a plan is computed or a token is taken.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_SERVER_STAGE_CODEC_H_
#define CARAVAN_WORKER_SERVER_STAGE_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/stage.pb.h"
#include "worker/engine/batch_plan.h"
#include "worker/shard/stage_thread.h"

namespace caravan::worker {

// The field of a StageRequest that travels beside its message, so that it is
// copied once on either side: plan.hidden.
inline constexpr int kPlanField = v1::StageRequest::kPlanFieldNumber;
inline constexpr int kHiddenField = v1::StagePlan::kHiddenFieldNumber;

// The bytes of a plan's residual stream, where they arrived.
class WireBytes {
 public:
  virtual ~WireBytes() = default;
  virtual size_t size() const = 0;
  // Copies size() bytes.
  virtual void CopyTo(std::byte* target) const = 0;
};

// Fills in the checksum of the whole message, which has no plan.hidden.
void Seal(v1::StageRequest* request);
void Seal(v1::StageResponse* response);

// Whether the message is the one that was sealed; else kWorkerLost with both
// checksums.
absl::Status CheckSeal(v1::StageRequest& request);
absl::Status CheckSeal(v1::StageResponse& response);

v1::StageSequence ToProto(const SequenceSpec& spec);
// Errors: those of sampling parameters, kInvalidField without prompt ids.
absl::StatusOr<SequenceSpec> FromProto(const v1::StageSequence& sequence,
                                       int32_t vocab_size);

// The plan with the checksum of its residual stream, whose bytes go beside it.
// Token ids stay here: later stages need their number only.
v1::StagePlan ToProto(const BatchPlan& plan, std::span<const float> hidden,
                      uint64_t epoch);
// The plan as it can be computed; its tokens are zeros. The checksum of the
// residual stream is compared when it is copied to where it is computed on:
// kWorkerLost then. Errors: kStaleEpoch for another epoch, kInvalidField.
absl::StatusOr<StageStep> FromProto(const v1::StagePlan& plan,
                                    std::unique_ptr<WireBytes> hidden,
                                    uint64_t epoch);

v1::StageResult ToProto(const StepResult& result, uint64_t epoch);
// Errors: kStaleEpoch for another epoch, kInvalidField.
absl::StatusOr<StepResult> FromProto(const v1::StageResult& result,
                                     uint64_t epoch);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STAGE_CODEC_H_
