// The way to the next stage over gRPC.
#ifndef CARAVAN_WORKER_SERVER_STAGE_LINK_CLIENT_H_
#define CARAVAN_WORKER_SERVER_STAGE_LINK_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/stage.grpc.pb.h"
#include "worker/server/stage_handshake.h"
#include "worker/server/stage_metrics.h"
#include "worker/shard/stage_link.h"

namespace caravan::worker {

struct StageLinkOptions {
  uint64_t epoch = 0;  // of the chain
  int32_t depth = 1;   // plans whose results may be outstanding
  // For the answer of all stages behind.
  absl::Duration timeout = absl::Seconds(10);
  // Called on a thread of gRPC when a stage behind drains; may be null.
  std::function<void()> on_draining = {};
};

// StageLink: one thread calls.
class StageLinkClient final : public StageLink {
 public:
  // Forms the rest of the chain, `facts` being those of this stage. Waits for
  // it. Errors: those of the handshake (stage_handshake.h), kWorkerLost where
  // the next stage cannot be reached in time.
  static absl::StatusOr<std::unique_ptr<StageLinkClient>> Form(
      std::shared_ptr<grpc::Channel> channel, const StageFacts& facts,
      const StageLinkOptions& options, StageMetrics* metrics);
  ~StageLinkClient() override;

  // The stages behind this one.
  const v1::StageFormed& formed() const { return formed_; }

  void Start(StageLinkEvents* events) override;
  void AddSequence(const SequenceSpec& spec) override;
  void DropSequence(SequenceId id) override;
  void Run(const BatchPlan& plan, std::span<const float> hidden) override;

 private:
  class Stream;

  StageLinkClient(std::shared_ptr<Stream> stream, uint64_t epoch,
                  v1::StageFormed formed, StageMetrics* metrics);

  const std::shared_ptr<Stream> stream_;
  const uint64_t epoch_;
  const v1::StageFormed formed_;
  StageMetrics* const metrics_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STAGE_LINK_CLIENT_H_
