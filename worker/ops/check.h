// Validation of the phases' arguments: once, before any backend, so that
// kernels may assume shapes, ranges and spans. A failed check is a fault of
// the caller in this process: kInternal naming phase, argument, limit, value.
#ifndef CARAVAN_WORKER_OPS_CHECK_H_
#define CARAVAN_WORKER_OPS_CHECK_H_

#include "absl/status/status.h"
#include "worker/ops/backend.h"
#include "worker/ops/ops.h"

namespace caravan::worker {

// Thread-safe: functions of their arguments.
absl::Status Check(const EmbedArgs& args);
absl::Status Check(const NormQkvRopeStoreArgs& args);
absl::Status Check(const AttendArgs& args);
absl::Status Check(const ProjectAddArgs& args);
absl::Status Check(const NormGateUpSiluArgs& args);
absl::Status Check(const DownAddArgs& args);
absl::Status Check(const NormHeadArgs& args);
absl::Status Check(const SampleArgs& args);
absl::Status Check(const CopyBlocksArgs& args);

// Matrices as Pack takes them: parts with data, equal cols and dtype.
absl::Status Check(std::span<const RawMatrix> parts, const PackSpec& spec);
absl::Status Check(const KvSpec& spec);

// A backend's phases behind these checks. Thread-safe as the backend is, which
// must outlive this.
class CheckedOps {
 public:
  explicit CheckedOps(Backend* backend) : backend_(backend) {}

  absl::Status Embed(const EmbedArgs& args);
  absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args);
  absl::Status Attend(const AttendArgs& args);
  absl::Status ProjectAdd(const ProjectAddArgs& args);
  absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args);
  absl::Status DownAdd(const DownAddArgs& args);
  absl::Status NormHead(const NormHeadArgs& args);
  absl::Status Sample(const SampleArgs& args);
  absl::Status CopyBlocks(const CopyBlocksArgs& args);

 private:
  Backend* backend_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_CHECK_H_
