#include "worker/server/stage_service.h"

#include <optional>
#include <utility>

#include "common/grpc/payload_message.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/stage_codec.h"

namespace caravan::worker {
namespace {

void SetTime(absl::Duration time, v1::StageResult* result) {
  const int64_t nanos = absl::ToInt64Nanoseconds(time);
  constexpr int64_t kNanosPerSecond = 1000000000;
  result->mutable_time()->set_seconds(nanos / kNanosPerSecond);
  result->mutable_time()->set_nanos(
      static_cast<int32_t>(nanos % kNanosPerSecond));
}

class ReceivedHidden final : public WireBytes {
 public:
  explicit ReceivedHidden(ReceivedBytes bytes) : bytes_(std::move(bytes)) {}
  size_t size() const override { return bytes_.size(); }
  void CopyTo(std::byte* target) const override { bytes_.CopyTo(target); }

 private:
  const ReceivedBytes bytes_;
};

}  // namespace

// The stream of the stage before. Lives until OnDone, however long the chain
// holds it.
//
// Thread-safe. One write is under way at a time, and none when it finishes.
class StageService::Stream final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
      public StageLinkEvents {
 public:
  static Stream* Open(StageService* service) {
    auto stream = std::make_shared<Stream>(service);
    stream->Hold(stream);
    stream->StartRead(&stream->buffer_);
    return stream.get();
  }

  explicit Stream(StageService* service) : service_(service) {}

  // Before Form only the reading thread writes them, afterwards nobody.
  uint64_t epoch() const { return hello_.epoch(); }
  const v1::Hello& hello() const { return hello_; }
  const v1::StageOffer& offer() const { return *offer_; }

  // The chain stands: commands go to `stage` until Detach.
  void Attach(LaterStage* stage, v1::StageFormed formed) {
    v1::StageResponse hello;
    *hello.mutable_hello() = MakeStageHello(service_->facts_, epoch());
    v1::StageResponse answer;
    *answer.mutable_formed() = std::move(formed);
    {
      absl::MutexLock lock(&mutex_);
      if (ending_) return;
      stage_ = stage;
    }
    Send(std::move(hello));
    Send(std::move(answer));
    absl::MutexLock lock(&mutex_);
    if (!ending_) StartRead(&buffer_);
  }

  // When it returns the stage gets no command any more.
  void Detach() {
    absl::MutexLock lock(&mutex_);
    stage_ = nullptr;
  }

  void SendDraining() {
    v1::StageResponse response;
    response.mutable_draining();
    Send(std::move(response));
  }

  void OnResult(StepResult result) override {
    v1::StageResponse response;
    v1::StageResult* const proto = response.mutable_result();
    *proto = ToProto(result, epoch());
    {
      absl::MutexLock lock(&mutex_);
      if (arrivals_.empty()) return;
      SetTime(absl::Now() - arrivals_.front(), proto);
      arrivals_.pop_front();
    }
    Send(std::move(response));
  }

  void OnBroken(const absl::Status& status) override { Fail(status); }

  // Ends the stream and asks for the end of its chain.
  void Fail(const absl::Status& status) {
    End(status);
    service_->AskToDrop(self());
  }

  // Ends the stream behind what is being written.
  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      if (std::exchange(ending_, true)) return;
      end_status_ = status;
      outbox_.clear();
    }
    Proceed();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Fail(absl::OkStatus());  // the stage before let go
    const absl::StatusOr<bool> go_on = OnMessage();
    if (!go_on.ok()) return Fail(go_on.status());
    if (*go_on) StartRead(&buffer_);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) {
        ending_ = true;
        outbox_.clear();
      }
    }
    Proceed();
  }

  void OnCancel() override { Fail(absl::CancelledError("stream cancelled")); }

  void OnDone() override {
    const std::shared_ptr<Stream> keep = self();  // beyond the lock
    service_->AskToDrop(keep);
    absl::MutexLock lock(&self_mutex_);
    self_.reset();
  }

 private:
  void Hold(std::shared_ptr<Stream> self) {
    absl::MutexLock lock(&self_mutex_);
    self_ = std::move(self);
  }

  std::shared_ptr<Stream> self() {
    absl::MutexLock lock(&self_mutex_);
    return self_;
  }

  // Whether the next message may be read at once.
  absl::StatusOr<bool> OnMessage() {
    CARAVAN_ASSIGN_OR_RETURN(
        hidden_,
        FromByteBuffer(buffer_, {.outer = kPlanField, .inner = kHiddenField},
                       &request_));
    CARAVAN_RETURN_IF_ERROR(CheckSeal(request_));
    switch (request_.kind_case()) {
      case v1::StageRequest::kHello:
        return OnHello();
      case v1::StageRequest::kOffer:
        return OnOffer();
      case v1::StageRequest::kAddSequence:
        return OnCommand(FromProto(request_.add_sequence(),
                                   service_->facts_.config.vocab_size));
      case v1::StageRequest::kDropSequenceId:
        return OnCommand(
            absl::StatusOr<SequenceId>(request_.drop_sequence_id()));
      case v1::StageRequest::kPlan:
        return OnPlan();
      case v1::StageRequest::KIND_NOT_SET:
        return true;  // of a later revision
    }
    return true;
  }

  absl::StatusOr<bool> OnHello() {
    CARAVAN_RETURN_IF_ERROR(CheckStageHello(request_.hello()));
    if (epoch() != 0) return OutOfTurn();
    hello_ = request_.hello();
    return true;
  }

  absl::StatusOr<bool> OnOffer() {
    if (epoch() == 0 || offer_.has_value()) return OutOfTurn();
    CARAVAN_RETURN_IF_ERROR(CheckOffer(service_->facts_, request_.offer()));
    offer_ = request_.offer();
    service_->AskToForm(self());
    return false;  // Attach reads on
  }

  absl::StatusOr<bool> OnPlan() {
    {
      absl::MutexLock lock(&mutex_);
      const auto depth = offer_.has_value() ? offer_->depth() : 0;
      if (std::ssize(arrivals_) >= depth) {
        return FieldError("plan", StrCat("one of ", depth, " in flight"),
                          "one more");
      }
      arrivals_.push_back(absl::Now());
    }
    return OnCommand(FromProto(
        request_.plan(),
        std::make_unique<ReceivedHidden>(std::exchange(hidden_, {})), epoch()));
  }

  template <typename Command>
  absl::StatusOr<bool> OnCommand(absl::StatusOr<Command> command) {
    CARAVAN_RETURN_IF_ERROR(command.status());
    absl::MutexLock lock(&mutex_);
    if (stage_ == nullptr)
      return ending_ ? absl::StatusOr<bool>(true) : OutOfTurn();
    stage_->Push(*std::move(command));
    return true;
  }

  absl::Status OutOfTurn() const {
    return FieldError("kind", "hello, offer, then commands, in this order",
                      StrCat("kind ", static_cast<int>(request_.kind_case())));
  }

  void Send(v1::StageResponse response) {
    Seal(&response);
    {
      absl::MutexLock lock(&mutex_);
      if (ending_) return;
      outbox_.push_back(ToByteBuffer(response));
    }
    Proceed();
  }

  // Starts the next write, or finishes, unless a write is under way.
  void Proceed() {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!outbox_.empty()) {
        writing_ = true;
        response_ = std::move(outbox_.front());
        outbox_.pop_front();
        StartWrite(&response_);
        return;
      }
      if (!ending_) return;
      finished_ = true;
      status = end_status_;
    }
    Finish(ToGrpcStatus(status));
  }

  StageService* const service_;
  grpc::ByteBuffer buffer_;   // of the read under way
  v1::StageRequest request_;  // the message in it, but for ...
  ReceivedBytes hidden_;      // ... plan.hidden
  v1::Hello hello_;
  std::optional<v1::StageOffer> offer_;
  grpc::ByteBuffer response_;  // of the write under way

  absl::Mutex self_mutex_;
  std::shared_ptr<Stream> self_ ABSL_GUARDED_BY(self_mutex_);  // until OnDone

  absl::Mutex mutex_;
  LaterStage* stage_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // Of plans that have no result yet: never more than the offer's depth.
  std::deque<absl::Time> arrivals_ ABSL_GUARDED_BY(mutex_);
  std::deque<grpc::ByteBuffer> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(mutex_);
};

StageService::StageService(StageFacts facts, Shard* shard, FormNext form_next,
                           StageMetrics* metrics)
    : facts_(std::move(facts)),
      shard_(shard),
      form_next_(std::move(form_next)),
      metrics_(metrics),
      thread_([this] { RunJobs(); }) {}

StageService::~StageService() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StageService::Run(
    grpc::CallbackServerContext*) {
  return Stream::Open(this);
}

bool StageService::Drain(absl::Duration grace) {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  if (current_ != nullptr) {
    jobs_.push_back([this] { PassDrainingOn(); });
  }
  const auto let_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return current_ == nullptr;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&let_go), grace);
}

void StageService::AskToForm(std::shared_ptr<Stream> stream) {
  absl::MutexLock lock(&mutex_);
  jobs_.push_back([this, stream = std::move(stream)] { Form(stream); });
}

void StageService::AskToDrop(std::shared_ptr<Stream> stream) {
  if (stream == nullptr) return;  // it was dropped at its end
  absl::MutexLock lock(&mutex_);
  jobs_.push_back([this, stream = std::move(stream)] {
    if (chain_.stream == stream) {
      DropChain(MakeError(Reason::kWorkerLost, "the stage before let go"));
    }
  });
}

void StageService::RunJobs() {
  while (true) {
    std::function<void()> job;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !jobs_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (stopping_) break;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
  DropChain(absl::CancelledError("the stage ends"));
}

void StageService::Form(const std::shared_ptr<Stream>& stream) {
  DropChain(MakeError(Reason::kStaleEpoch,
                      StrCat("the chain has a new epoch, ", stream->epoch())));
  std::unique_ptr<StageLinkClient> next;
  absl::StatusOr<v1::StageFormed> formed = FormBehind(stream, &next);
  if (!formed.ok()) {
    LogWarning("chain_not_formed", {{"status", formed.status()}});
    return stream->End(formed.status());
  }
  chain_.stream = stream;
  chain_.stage = std::make_unique<LaterStage>(shard_, std::move(next),
                                              stream.get(), metrics_);
  {
    absl::MutexLock lock(&mutex_);
    current_ = stream;
  }
  metrics_->OnFormed();
  LogInfo("chain_formed", {{"epoch", stream->epoch()},
                           {"stage", facts_.config.stage.index},
                           {"before", stream->hello().sender_id()}});
  stream->Attach(chain_.stage.get(), *std::move(formed));
}

absl::StatusOr<v1::StageFormed> StageService::FormBehind(
    const std::shared_ptr<Stream>& stream,
    std::unique_ptr<StageLinkClient>* next) {
  {
    absl::MutexLock lock(&mutex_);
    if (draining_) {
      return MakeError(Reason::kDraining, "the stage drains");
    }
  }
  if (facts_.config.stage.last()) return MakeFormed(facts_, v1::StageFormed());
  StageLinkOptions options;
  options.epoch = stream->epoch();
  options.depth = stream->offer().depth();
  options.on_draining = [this] {
    absl::MutexLock lock(&mutex_);
    jobs_.push_back([this] { PassDrainingOn(); });
  };
  CARAVAN_ASSIGN_OR_RETURN(*next, form_next_(options));
  return MakeFormed(facts_, (*next)->formed());
}

void StageService::DropChain(const absl::Status& status) {
  if (chain_.stream == nullptr) return;
  metrics_->OnLost(status);
  LogInfo("chain_ended",
          {{"epoch", chain_.stream->epoch()}, {"status", status}});
  chain_.stream->Detach();
  chain_.stage.reset();
  chain_.stream->End(status);
  chain_.stream.reset();
  absl::MutexLock lock(&mutex_);
  current_.reset();
}

void StageService::PassDrainingOn() {
  if (chain_.stream != nullptr) chain_.stream->SendDraining();
}

}  // namespace caravan::worker
