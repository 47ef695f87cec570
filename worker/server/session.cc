#include "worker/server/session.h"

#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/request_trail.h"

namespace caravan::worker {
namespace {

RequestShape ShapeOf(const GroupRequest& group) {
  return {.prompt_tokens = static_cast<int32_t>(group.prompt->size()),
          .choices = static_cast<int32_t>(group.choices.size()),
          .max_tokens = group.stop.max_tokens};
}

std::vector<int32_t> IndicesOf(const GroupRequest& group) {
  std::vector<int32_t> indices;
  for (const ChoiceStart& choice : group.choices) {
    indices.push_back(choice.index);
  }
  return indices;
}

void SetDuration(absl::Duration from, google::protobuf::Duration* to) {
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &from));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(from)));
}

}  // namespace

void Session::Open() {
  v1::SessionResponse response;
  v1::Hello& hello = *response.mutable_hello();
  hello = MakeHello(*context_->facts);
  SetDuration(kSessionHeartbeat, hello.mutable_heartbeat_interval());
  Send(std::move(response));
}

void Session::SendHeartbeat() {
  v1::SessionResponse response;
  *response.mutable_heartbeat()->mutable_load() = context_->load->Current();
  Send(std::move(response));
}

absl::Status Session::OnMessage(const v1::SessionRequest& request) {
  const bool hello = request.kind_case() == v1::SessionRequest::kHello;
  if (hello == greeted_) {
    return FieldError("kind", "hello in the first message and in no other",
                      hello ? "another hello" : "no hello");
  }
  switch (request.kind_case()) {
    case v1::SessionRequest::kHello:
      return OnHello(request.hello());
    case v1::SessionRequest::kSubmit:
      OnSubmit(request.submit());
      return absl::OkStatus();
    case v1::SessionRequest::kCancel:
      OnCancel(request.cancel());
      return absl::OkStatus();
    case v1::SessionRequest::KIND_NOT_SET:
      break;
  }
  return FieldError("kind", "hello, submit or cancel", "none of them");
}

absl::Status Session::OnHello(const v1::Hello& hello) {
  CARAVAN_RETURN_IF_ERROR(CheckHello(hello));
  greeted_ = true;
  peer_id_ = hello.sender_id();
  LogInfo("session_opened", {{"peer", peer_id_}, {"build", hello.build()}});
  return absl::OkStatus();
}

void Session::OnSubmit(const v1::Submit& submit) {
  const GroupId group = context_->dispatcher->NextGroupId();
  LogSubmit(submit, group, peer_id_);
  absl::Status status = Claim(submit.handle(), group);
  if (status.ok()) {
    status = Start(submit, group);
    if (!status.ok()) Forget(submit.handle());
  }
  if (status.ok()) return;
  context_->observer->OnRefused(ReasonOf(status));
  SendError(submit.handle(), status);
}

absl::Status Session::Claim(uint64_t handle, GroupId group) {
  absl::MutexLock lock(&mutex_);
  if (!used_.Insert(handle)) {
    return FieldError("handle", "used once in a session", StrCat(handle));
  }
  open_.emplace(handle, group);
  return absl::OkStatus();
}

absl::Status Session::Start(const v1::Submit& submit, GroupId group) {
  CARAVAN_ASSIGN_OR_RETURN(
      GroupRequest request,
      MakeGroupRequest(submit, context_->limits, context_->clock->Now()));
  request.id = group;
  const RequestShape shape = ShapeOf(request);
  context_->dispatcher->Open(group, submit.handle(), shape, IndicesOf(request),
                             shared_from_this());
  if (const absl::Status status = context_->engine->Submit(std::move(request));
      !status.ok()) {
    context_->dispatcher->Close(group);
    return status;
  }
  context_->observer->OnSubmitted(shape);
  // Close may have run between Claim and Submit.
  if (closed() && context_->dispatcher->Close(group)) {
    context_->engine->Cancel(group);
  }
  return absl::OkStatus();
}

void Session::OnCancel(const v1::Cancel& cancel) {
  GroupId group = 0;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = open_.find(cancel.handle());
    if (found != open_.end()) {
      group = found->second;
    } else if (used_.Contains(cancel.handle())) {
      return;  // ended while the cancel travelled
    }
  }
  if (group == 0) {
    SendError(cancel.handle(), FieldError("handle", "submitted before",
                                          StrCat(cancel.handle())));
  } else if (cancel.choices().empty()) {
    CancelGroup(cancel.handle(), group);
  } else {
    CancelChoices(cancel.handle(), group,
                  std::span(cancel.choices().data(), cancel.choices().size()));
  }
}

void Session::CancelGroup(uint64_t handle, GroupId group) {
  Forget(handle);
  if (context_->dispatcher->Close(group)) context_->observer->OnCancelled();
  context_->engine->Cancel(group);
}

// The engine hears of each choice once, however often a gateway cancels it.
void Session::CancelChoices(uint64_t handle, GroupId group,
                            std::span<const int32_t> choices) {
  StepDispatcher::ClosedChoices closed =
      context_->dispatcher->CloseChoices(group, choices);
  if (closed.last) {
    Forget(handle);
    context_->observer->OnCancelled();
  }
  context_->engine->CancelChoices(group, std::move(closed.choices));
}

void Session::SendDraining(absl::Duration grace) {
  v1::SessionResponse response;
  SetDuration(grace, response.mutable_draining()->mutable_grace());
  Send(std::move(response));
}

void Session::Close() {
  absl::flat_hash_map<uint64_t, GroupId> open;
  {
    absl::MutexLock lock(&mutex_);
    transport_ = nullptr;
    open.swap(open_);
  }
  for (const auto& [handle, group] : open) {
    if (context_->dispatcher->Close(group)) context_->observer->OnCancelled();
    context_->engine->Cancel(group);
  }
}

void Session::Deliver(v1::StepOutput output,
                      const std::vector<uint64_t>& ended) {
  v1::SessionResponse response;
  *response.mutable_step() = std::move(output);
  absl::MutexLock lock(&mutex_);
  for (const uint64_t handle : ended) open_.erase(handle);
  if (transport_ != nullptr) transport_->Send(std::move(response));
}

void Session::Forget(uint64_t handle) {
  absl::MutexLock lock(&mutex_);
  open_.erase(handle);
}

bool Session::closed() const {
  absl::MutexLock lock(&mutex_);
  return transport_ == nullptr;
}

void Session::SendError(uint64_t handle, const absl::Status& status) {
  v1::SessionResponse response;
  v1::StepOutput* const step = response.mutable_step();
  v1::HandleError* const error = step->add_errors();
  error->set_handle(handle);
  *error->mutable_error() = ToProtoError(status);
  *step->mutable_load() = context_->load->Current();
  Send(std::move(response));
}

void Session::Send(v1::SessionResponse response) {
  absl::MutexLock lock(&mutex_);
  if (transport_ != nullptr) transport_->Send(std::move(response));
}

}  // namespace caravan::worker
