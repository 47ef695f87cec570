#include "gateway/admission/admission_queue.h"

namespace caravan::gateway {

AdmissionTicket& AdmissionTicket::operator=(AdmissionTicket&& other) noexcept {
  Release();
  queue_ = std::exchange(other.queue_, nullptr);
  id_ = other.id_;
  return *this;
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
