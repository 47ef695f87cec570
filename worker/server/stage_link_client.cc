#include "worker/server/stage_link_client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/grpc/payload_message.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/stage_codec.h"

namespace caravan::worker {
namespace {

// The raw method: its generated stub would copy a plan's residual stream.
constexpr char kMethod[] = "/caravan.v1.StageService/Run";

absl::Status OutOfTurn(const v1::StageResponse& response) {
  return FieldError("kind", "hello, formed, then results, in this order",
                    StrCat("kind ", static_cast<int>(response.kind_case())));
}

absl::Duration TimeOf(const v1::StageResult& result) {
  return absl::Seconds(result.time().seconds()) +
         absl::Nanoseconds(result.time().nanos());
}

}  // namespace

// The reactor. Lives until OnDone, however long the link holds it.
//
// Thread-safe.
class StageLinkClient::Stream final
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Stream(const StageLinkOptions& options, StageMetrics* metrics)
      : epoch_(options.epoch),
        on_draining_(options.on_draining),
        metrics_(metrics) {}

  static std::shared_ptr<Stream> Open(
      const std::shared_ptr<grpc::Channel>& channel,
      const StageLinkOptions& options, StageMetrics* metrics) {
    auto stream = std::make_shared<Stream>(options, metrics);
    stream->self_ = stream;
    stream->stub_ = std::make_unique<grpc::GenericStub>(channel);
    stream->stub_->PrepareBidiStreamingCall(&stream->call_, kMethod,
                                            grpc::StubOptions(), stream.get());
    stream->AddHold();  // for Send, which comes from outside
    stream->StartRead(&stream->buffer_);
    stream->StartCall();
    return stream;
  }

  void Send(v1::StageRequest request) {
    Seal(&request);
    absl::MutexLock lock(&mutex_);
    WriteLocked(ToByteBuffer(request));
  }

  // `hidden` is copied here, and nowhere else. Returns the message's size.
  size_t SendPlan(v1::StageRequest request, std::span<const float> hidden) {
    Seal(&request);
    grpc::ByteBuffer message =
        ToByteBuffer(request, {.outer = kPlanField, .inner = kHiddenField},
                     std::as_bytes(hidden));
    const size_t size = message.Length();
    absl::MutexLock lock(&mutex_);
    sent_plans_.push_back(absl::Now());
    WriteLocked(std::move(message));
    return size;
  }

  // The stages behind, once they stand.
  absl::StatusOr<v1::StageFormed> AwaitFormed(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return formed_.has_value() || status_.has_value();
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&settled), timeout)) {
      return MakeError(Reason::kWorkerLost,
                       StrCat("the next stage must answer within ",
                              absl::FormatDuration(timeout)));
    }
    if (formed_.has_value()) return *formed_;
    return LostLocked();
  }

  void Start(StageLinkEvents* events) {
    absl::Status lost;
    {
      absl::MutexLock lock(&mutex_);
      events_ = events;
      if (!status_.has_value()) return;
      lost = LostLocked();
    }
    events->OnBroken(lost);
  }

  // Nothing is told any more when it returns.
  void End() {
    {
      absl::MutexLock lock(&mutex_);
      events_ = nullptr;  // what ends now is not lost
    }
    Break(absl::CancelledError("the link was closed"));
    absl::MutexLock lock(&mutex_);
    const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return done_;
    };
    mutex_.Await(absl::Condition(&done));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Break(absl::OkStatus());
    const absl::Status status = OnMessage();
    if (!status.ok()) return Break(status);
    StartRead(&buffer_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Break(absl::OkStatus());
    absl::MutexLock lock(&mutex_);
    outbox_.pop_front();
    if (!outbox_.empty()) StartWrite(&outbox_.front());
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Stream> self = std::move(self_);
    StageLinkEvents* events = nullptr;
    absl::Status lost;
    {
      absl::MutexLock lock(&mutex_);
      status_ = FromGrpcStatus(status);
      events = events_;
      lost = LostLocked();
    }
    if (events != nullptr) events->OnBroken(lost);
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }

 private:
  void WriteLocked(grpc::ByteBuffer message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (broken_) return;
    outbox_.push_back(std::move(message));
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
  }

  absl::Status OnMessage() {
    CARAVAN_RETURN_IF_ERROR(FromByteBuffer(buffer_, &incoming_));
    CARAVAN_RETURN_IF_ERROR(CheckSeal(incoming_));
    switch (incoming_.kind_case()) {
      case v1::StageResponse::kHello:
        return OnHello(incoming_.hello());
      case v1::StageResponse::kFormed:
        return OnFormed(incoming_.formed());
      case v1::StageResponse::kResult:
        return OnResult(incoming_.result());
      case v1::StageResponse::kError:
        return FromProtoError(incoming_.error());
      case v1::StageResponse::kDraining:
        if (on_draining_) on_draining_();
        return absl::OkStatus();
      case v1::StageResponse::KIND_NOT_SET:
        return absl::OkStatus();  // of a later revision
    }
    return absl::OkStatus();
  }

  absl::Status OnHello(const v1::Hello& hello) {
    CARAVAN_RETURN_IF_ERROR(CheckStageHello(hello));
    if (std::exchange(greeted_, true)) return OutOfTurn(incoming_);
    if (hello.epoch() == epoch_) return absl::OkStatus();
    return MakeError(
        Reason::kStaleEpoch,
        StrCat("epoch of the chain must be ", epoch_, "; got ", hello.epoch()));
  }

  absl::Status OnFormed(const v1::StageFormed& formed) {
    absl::MutexLock lock(&mutex_);
    if (!greeted_ || formed_.has_value()) return OutOfTurn(incoming_);
    formed_ = formed;
    return absl::OkStatus();
  }

  absl::Status OnResult(const v1::StageResult& result) {
    CARAVAN_ASSIGN_OR_RETURN(StepResult step, FromProto(result, epoch_));
    StageLinkEvents* events = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (events_ == nullptr || sent_plans_.empty()) {
        return OutOfTurn(incoming_);
      }
      metrics_->OnHop(absl::Now() - sent_plans_.front() - TimeOf(result));
      sent_plans_.pop_front();
      events = events_;
    }
    events->OnResult(std::move(step));
    return absl::OkStatus();
  }

  // No write starts any more, so the hold can go. `status` says why; OK where
  // the stream has ended and gRPC will say it.
  void Break(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) call_.TryCancel();
    if (std::exchange(broken_, true)) return;
    cause_ = status;
    RemoveHold();
  }

  // Why the stage is lost. What it says of itself is kept; all else is a loss.
  absl::Status LostLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Status& cause = cause_.ok() ? *status_ : cause_;
    const Reason reason = ReasonOf(cause);
    if (reason == Reason::kIdentityMismatch || reason == Reason::kStaleEpoch ||
        reason == Reason::kProtocolMismatch || reason == Reason::kWorkerLost) {
      return cause;
    }
    return MakeError(
        Reason::kWorkerLost,
        StrCat("the next stage is lost: ",
               cause.ok() ? "it closed the stream" : ToStd(cause.message())));
  }

  const uint64_t epoch_;
  const std::function<void()> on_draining_;
  StageMetrics* const metrics_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext call_;
  grpc::ByteBuffer buffer_;       // of the read under way
  v1::StageResponse incoming_;    // the message in it
  bool greeted_ = false;          // of the reading thread
  std::shared_ptr<Stream> self_;  // until OnDone
  absl::Mutex mutex_;
  // The first is being written.
  std::deque<grpc::ByteBuffer> outbox_ ABSL_GUARDED_BY(mutex_);
  std::deque<absl::Time> sent_plans_ ABSL_GUARDED_BY(mutex_);
  StageLinkEvents* events_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::optional<v1::StageFormed> formed_ ABSL_GUARDED_BY(mutex_);
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status cause_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::StatusOr<std::unique_ptr<StageLinkClient>> StageLinkClient::Form(
    std::shared_ptr<grpc::Channel> channel, const StageFacts& facts,
    const StageLinkOptions& options, StageMetrics* metrics) {
  const std::shared_ptr<Stream> stream =
      Stream::Open(channel, options, metrics);
  v1::StageRequest hello;
  *hello.mutable_hello() = MakeStageHello(facts, options.epoch);
  stream->Send(std::move(hello));
  v1::StageRequest offer;
  *offer.mutable_offer() = MakeOffer(facts, options.depth);
  stream->Send(std::move(offer));
  absl::StatusOr<v1::StageFormed> formed = stream->AwaitFormed(options.timeout);
  const absl::Status status =
      formed.ok() ? CheckFormed(facts, *formed) : formed.status();
  if (!status.ok()) {
    stream->End();
    return status;
  }
  return std::unique_ptr<StageLinkClient>(
      new StageLinkClient(stream, options.epoch, *std::move(formed), metrics));
}

StageLinkClient::StageLinkClient(std::shared_ptr<Stream> stream, uint64_t epoch,
                                 v1::StageFormed formed, StageMetrics* metrics)
    : stream_(std::move(stream)),
      epoch_(epoch),
      formed_(std::move(formed)),
      metrics_(metrics) {}

StageLinkClient::~StageLinkClient() { stream_->End(); }

void StageLinkClient::Start(StageLinkEvents* events) { stream_->Start(events); }

void StageLinkClient::AddSequence(const SequenceSpec& spec) {
  v1::StageRequest request;
  *request.mutable_add_sequence() = ToProto(spec);
  stream_->Send(std::move(request));
}

void StageLinkClient::DropSequence(SequenceId id) {
  v1::StageRequest request;
  request.set_drop_sequence_id(id);
  stream_->Send(std::move(request));
}

void StageLinkClient::Run(const BatchPlan& plan,
                          std::span<const float> hidden) {
  v1::StageRequest request;
  *request.mutable_plan() = ToProto(plan, hidden, epoch_);
  metrics_->OnSent(plan.token_count(),
                   stream_->SendPlan(std::move(request), hidden));
}

}  // namespace caravan::worker
