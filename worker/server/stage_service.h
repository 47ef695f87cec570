// StageService over gRPC: the place of a later stage in a chain.
#ifndef CARAVAN_WORKER_SERVER_STAGE_SERVICE_H_
#define CARAVAN_WORKER_SERVER_STAGE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/stage.grpc.pb.h"
#include "worker/server/stage_handshake.h"
#include "worker/server/stage_link_client.h"
#include "worker/server/stage_metrics.h"
#include "worker/shard/later_stage.h"
#include "worker/shard/shard.h"

namespace caravan::worker {

// Thread-safe. One chain at a time: a stream with a new epoch ends the one
// before, and with it every sequence that its shard knew. The gRPC server must
// be down before the service goes.
class StageService final : public v1::StageService::WithRawCallbackMethod_Run<
                               v1::StageService::Service> {
 public:
  // Forms the rest of the chain; not called on the last stage.
  using FormNext =
      std::function<absl::StatusOr<std::unique_ptr<StageLinkClient>>(
          const StageLinkOptions& options)>;

  // `shard` and `metrics` must outlive the service.
  StageService(StageFacts facts, Shard* shard, FormNext form_next,
               StageMetrics* metrics);
  ~StageService() override;

  // Raw: a plan's residual stream is copied once, to where it is computed on.
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Run(
      grpc::CallbackServerContext* call) override;

  // Tells the stage before that this one goes, and waits up to `grace` for it
  // to let go. Returns whether it did.
  bool Drain(absl::Duration grace);

 private:
  class Stream;
  // The chain that stands.
  struct Chain {
    std::shared_ptr<Stream> stream;
    std::unique_ptr<LaterStage> stage;
  };

  // On threads of gRPC.
  void AskToForm(std::shared_ptr<Stream> stream);
  void AskToDrop(std::shared_ptr<Stream> stream);

  // On the forming thread, which alone may wait.
  void RunJobs();
  void Form(const std::shared_ptr<Stream>& stream);
  absl::StatusOr<v1::StageFormed> FormBehind(
      const std::shared_ptr<Stream>& stream,
      std::unique_ptr<StageLinkClient>* next);
  void DropChain(const absl::Status& status);
  void PassDrainingOn();

  const StageFacts facts_;
  Shard* const shard_;
  const FormNext form_next_;
  StageMetrics* const metrics_;
  Chain chain_;  // of the forming thread

  mutable absl::Mutex mutex_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Stream> current_ ABSL_GUARDED_BY(mutex_);  // chain_'s

  std::jthread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STAGE_SERVICE_H_
