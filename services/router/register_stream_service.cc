#include "services/router/register_stream_service.h"

#include <utility>

#include "common/build_info.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/router/router_service.h"
#include "services/router/wire.h"

namespace caravan::router {
namespace {

absl::Status OutOfOrder(std::string_view wanted) {
  return FieldError("kind", wanted, "another message");
}

}  // namespace

void RegisterStream::End(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!end_) end_ = status;
  FinishWhenSent();
}

void RegisterStream::FinishWhenSent() {
  if (!end_ || finished_ || !outbox_.empty()) return;
  finished_ = true;
  Finish(ToGrpcStatus(*end_));
}

void RegisterStream::Send(v1::RegisterResponse response) {
  absl::MutexLock lock(&mutex_);
  if (end_) return;
  if (outbox_.size() >= kMaxUnsent) {
    end_ = MakeError(
        Reason::kSlowReader,
        StrCat("a replica may leave at most ", kMaxUnsent, " answers unread"));
    context_->TryCancel();  // ends the write under way, which waits for it
    outbox_.resize(1);
    return;
  }
  outbox_.push_back(std::move(response));
  if (outbox_.size() == 1) StartWrite(&outbox_.front());
}

void RegisterStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  outbox_.pop_front();
  if (!ok) {
    outbox_.clear();
    if (!end_) end_ = MakeError(Reason::kCancelled, "the stream broke");
  }
  if (!outbox_.empty()) return StartWrite(&outbox_.front());
  FinishWhenSent();
}

void RegisterStream::OnReadDone(bool ok) {
  if (!ok) return End(absl::OkStatus());
  const absl::Status status = Handle(request_);
  if (!status.ok()) return End(status);
  StartRead(&request_);
}

void RegisterStream::OnCancel() {
  End(MakeError(Reason::kCancelled, "the replica went away"));
}

void RegisterStream::OnDone() {
  service_->OnStreamDone(this);
  delete this;
}

absl::Status RegisterStream::Handle(const v1::RegisterRequest& request) {
  if (!greeted_ && !request.has_hello()) return OutOfOrder("hello first");
  switch (request.kind_case()) {
    case v1::RegisterRequest::kHello:
      return HandleHello(request.hello());
    case v1::RegisterRequest::kRegistration:
      return HandleRegistration(request.registration());
    case v1::RegisterRequest::kHeartbeat:
      if (!registered_) return OutOfOrder("registration after hello");
      return service_->HandleHeartbeat(id_, request.heartbeat());
    case v1::RegisterRequest::kKvEvents:
      if (!registered_) return OutOfOrder("registration after hello");
      return HandleKvEvents(request.kv_events());
    case v1::RegisterRequest::KIND_NOT_SET:
      return absl::OkStatus();  // of a later revision
  }
  return absl::OkStatus();
}

absl::Status RegisterStream::HandleHello(const v1::Hello& hello) {
  if (greeted_) return OutOfOrder("hello only once");
  greeted_ = true;
  v1::RegisterResponse response;
  *response.mutable_hello() = service_->MakeHello();
  Send(std::move(response));
  const absl::Status status = CheckHello(hello);
  if (status.ok()) return status;
  v1::RegisterResponse refusal;
  *refusal.mutable_refused() = ToProtoError(status);
  Send(std::move(refusal));
  service_->RecordRefusal(hello.sender_id(), status);
  return status;
}

absl::Status RegisterStream::HandleRegistration(
    const v1::Registration& registration) {
  const absl::Status status = service_->HandleRegistration(id_, registration);
  v1::RegisterResponse response;
  if (status.ok()) {
    registered_ = true;
    *response.mutable_registered()->mutable_heartbeat_interval() =
        ToProto(service_->heartbeat_interval());
  } else {
    *response.mutable_refused() = ToProtoError(status);
  }
  Send(std::move(response));
  return status;
}

absl::Status RegisterStream::HandleKvEvents(const v1::KvEvents& events) {
  CARAVAN_ASSIGN_OR_RETURN(const KvChange change, ToKvChange(events));
  if (const std::optional<int64_t> last =
          service_->HandleKvChange(id_, change)) {
    v1::RegisterResponse response;
    response.mutable_snapshot_wanted()->set_last_sequence_number(*last);
    Send(std::move(response));
  }
  return absl::OkStatus();
}

}  // namespace caravan::router
