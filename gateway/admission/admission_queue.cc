#include "gateway/admission/admission_queue.h"

namespace caravan::gateway {

AdmissionTicket& AdmissionTicket::operator=(AdmissionTicket&& other) noexcept {
  Release();
  queue_ = std::exchange(other.queue_, nullptr);
  id_ = other.id_;
  return *this;
}

void AdmissionTicket::OnPlaced(const std::string& worker) {
  if (queue_ != nullptr) queue_->OnPlaced(worker);
}

void AdmissionTicket::OnWaitAtWorker() {
  if (queue_ != nullptr) queue_->OnWaitAtWorker(id_);
}

void AdmissionTicket::OnFirstToken() {
  if (queue_ != nullptr) queue_->OnFirstToken(id_);
}

void AdmissionTicket::Settle(double cost) {
  if (queue_ != nullptr) queue_->Settle(id_, cost);
}

bool AdmissionTicket::over_share() const {
  return queue_ != nullptr && queue_->over_share(id_);
}

void AdmissionTicket::Release() {
  if (queue_ != nullptr) std::exchange(queue_, nullptr)->Release(id_);
}

absl::StatusOr<AdmissionTicket> AdmissionQueue::Enter(
    const AdmissionRequest& request, std::shared_ptr<Inbox> inbox) {
  absl::MutexLock lock(&mutex_);
  const absl::StatusOr<TicketId> id = limiter_.Enqueue(request, clock_.Now());
  if (!id.ok()) return id.status();
  waiting_.emplace(*id, std::move(inbox));
  Start();
  return AdmissionTicket(this, *id);
}

int32_t AdmissionQueue::queued_count() const {
  absl::MutexLock lock(&mutex_);
  return limiter_.queued_count();
}

void AdmissionQueue::OnPlaced(const std::string& worker) {
  absl::MutexLock lock(&mutex_);
  limiter_.OnPlaced(worker, clock_.Now());
  Start();  // the window may be wider
}

void AdmissionQueue::OnWaitAtWorker(TicketId id) {
  absl::MutexLock lock(&mutex_);
  limiter_.OnWaitAtWorker(id);
}

void AdmissionQueue::OnFirstToken(TicketId id) {
  absl::MutexLock lock(&mutex_);
  limiter_.OnFirstToken(id, clock_.Now());
  Start();
}

void AdmissionQueue::Settle(TicketId id, double cost) {
  absl::MutexLock lock(&mutex_);
  limiter_.Settle(id, cost, clock_.Now());
}

bool AdmissionQueue::over_share(TicketId id) const {
  absl::MutexLock lock(&mutex_);
  return limiter_.over_share(id);
}

void AdmissionQueue::Release(TicketId id) {
  absl::MutexLock lock(&mutex_);
  limiter_.Release(id);
  waiting_.erase(id);
  Start();
}

void AdmissionQueue::Start() {
  for (const TicketId id : limiter_.Start(clock_.Now())) {
    const auto it = waiting_.find(id);
    it->second->Admit();
    waiting_.erase(it);
  }
}

}  // namespace caravan::gateway
