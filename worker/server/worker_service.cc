#include "worker/server/worker_service.h"

#include <deque>
#include <utility>
#include <vector>

#include "common/build_info.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"

namespace caravan::worker {

// The stream of one session. Deletes itself in OnDone.
//
// One write is under way at a time, and none when the stream finishes.
class WorkerService::SessionReactor final
    : public grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>,
      public SessionTransport {
 public:
  SessionReactor(WorkerService* service, grpc::CallbackServerContext* call)
      : service_(service),
        call_(call),
        session_(std::make_shared<worker::Session>(&service->context_, this)) {}

  const std::shared_ptr<worker::Session>& session() const { return session_; }

  void Begin() {
    session_->Open();
    service_->Add(this);
    StartRead(&request_);
  }

  void Send(v1::SessionResponse response) override {
    {
      absl::MutexLock lock(&mutex_);
      if (ending_) return;
      const size_t bytes = response.ByteSizeLong();
      outbox_bytes_ += bytes;
      outbox_.push_back({std::move(response), bytes});
      if (outbox_bytes_ > service_->max_outbox_bytes_) DropReader();
    }
    Proceed();
  }

  // Ends the stream, after what is in the outbox if `flush`.
  void End(const absl::Status& status, bool flush) {
    {
      absl::MutexLock lock(&mutex_);
      if (ending_) return;
      ending_ = true;
      end_status_ = status;
      if (!flush) ClearOutbox();
    }
    Proceed();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {  // the gateway closed its side, or the stream broke
      session_->Close();
      return End(absl::OkStatus(), /*flush=*/false);
    }
    const absl::Status status = session_->OnMessage(request_);
    if (status.ok()) return StartRead(&request_);
    session_->Close();
    End(status, /*flush=*/true);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      outbox_bytes_ -= std::exchange(in_flight_bytes_, 0);
      if (!ok) {
        ending_ = true;
        ClearOutbox();
      }
    }
    Proceed();
  }

  void OnCancel() override {
    session_->Close();
    End(absl::CancelledError("session cancelled"), /*flush=*/false);
  }

  void OnDone() override {
    session_->Close();
    service_->Remove(this);
    delete this;
  }

 private:
  struct Message {
    v1::SessionResponse response;
    size_t bytes;
  };

  // Starts the next write, or finishes, unless a write is under way.
  void Proceed() {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!outbox_.empty()) return WriteNext();
      if (!ending_) return;
      finished_ = true;
      status = end_status_;
    }
    Finish(ToGrpcStatus(status));
  }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    response_ = std::move(outbox_.front().response);
    in_flight_bytes_ = outbox_.front().bytes;
    outbox_.pop_front();
    StartWrite(&response_);
  }

  void ClearOutbox() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    outbox_.clear();
    outbox_bytes_ = in_flight_bytes_;
  }

  // A write that the peer does not take cannot be finished, only cancelled:
  // OnCancel then closes the session.
  void DropReader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ending_ = true;
    end_status_ = MakeError(
        Reason::kSlowReader,
        StrCat("unread messages must be at most ", service_->max_outbox_bytes_,
               " bytes; got ", outbox_bytes_));
    ClearOutbox();
    LogWarning("session_dropped",
               {{"reason", "SLOW_READER"}, {"status", end_status_}});
    service_->context_.observer->OnSessionDropped(Reason::kSlowReader);
    call_->TryCancel();
  }

  WorkerService* const service_;
  grpc::CallbackServerContext* const call_;
  const std::shared_ptr<worker::Session> session_;
  v1::SessionRequest request_;    // of the read under way
  v1::SessionResponse response_;  // of the write under way
  absl::Mutex mutex_;
  std::deque<Message> outbox_ ABSL_GUARDED_BY(mutex_);
  size_t outbox_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // the one under way too
  size_t in_flight_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(mutex_);
};

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>*
WorkerService::Session(grpc::CallbackServerContext* call) {
  auto* const reactor = new SessionReactor(this, call);
  reactor->Begin();
  return reactor;
}

grpc::ServerUnaryReactor* WorkerService::GetWorkerInfo(
    grpc::CallbackServerContext* call, const v1::GetWorkerInfoRequest* request,
    v1::GetWorkerInfoResponse* response) {
  const WorkerFacts& facts = *context_.facts;
  response->set_worker_id(facts.worker_id);
  *response->mutable_model() = facts.model;
  response->set_epoch(facts.epoch);
  response->set_build(std::string(BuildId()));
  for (const v1::Feature feature : KnownFeatures()) {
    response->add_features(feature);
  }
  *response->mutable_load() = context_.load->Current();
  *response->mutable_memory() = facts.memory;
  response->set_draining(draining());
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

void WorkerService::StartDrain(absl::Duration grace) {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  grace_ = grace;
  for (SessionReactor* const reactor : sessions_) {
    reactor->session()->SendDraining(grace);
  }
}

void WorkerService::SendHeartbeats() {
  absl::MutexLock lock(&mutex_);
  for (SessionReactor* const reactor : sessions_) {
    reactor->session()->SendHeartbeat();
  }
}

void WorkerService::EndSessions(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  for (SessionReactor* const reactor : sessions_) {
    reactor->End(status, /*flush=*/true);
  }
}

int64_t WorkerService::session_count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(sessions_.size());
}

void WorkerService::Add(SessionReactor* reactor) {
  absl::MutexLock lock(&mutex_);
  sessions_.insert(reactor);
  if (draining_) reactor->session()->SendDraining(grace_);
}

void WorkerService::Remove(SessionReactor* reactor) {
  absl::MutexLock lock(&mutex_);
  sessions_.erase(reactor);
}

bool WorkerService::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

}  // namespace caravan::worker
