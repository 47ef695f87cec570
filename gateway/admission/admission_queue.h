// The limiter among threads: tells a request's inbox when it may start.
#ifndef CARAVAN_GATEWAY_ADMISSION_ADMISSION_QUEUE_H_
#define CARAVAN_GATEWAY_ADMISSION_ADMISSION_QUEUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "gateway/admission/limiter.h"
#include "gateway/stream/inbox.h"

namespace caravan::gateway {

class AdmissionQueue;

// A request's place in the books of admission, from the queue to its end.
// Given back on destruction, or before by Release. Move-only. What an empty
// one is told is lost.
class AdmissionTicket {
 public:
  AdmissionTicket() = default;
  AdmissionTicket(AdmissionTicket&& other) noexcept
      : queue_(std::exchange(other.queue_, nullptr)), id_(other.id_) {}
  AdmissionTicket& operator=(AdmissionTicket&& other) noexcept;
  ~AdmissionTicket() { Release(); }

  // As Limiter says.
  void OnPlaced(const std::string& worker);
  void OnWaitAtWorker();
  void OnFirstToken();
  void Settle(double cost);
  void Release();

  // Once it was admitted.
  bool over_share() const;

 private:
  friend class AdmissionQueue;
  AdmissionTicket(AdmissionQueue* queue, TicketId id)
      : queue_(queue), id_(id) {}

  AdmissionQueue* queue_ = nullptr;
  TicketId id_ = 0;
};

// Thread-safe. Must outlive its tickets.
class AdmissionQueue {
 public:
  explicit AdmissionQueue(const LimiterOptions& options,
                          const Clock& clock = SystemClock::Get())
      : clock_(clock), limiter_(options) {}

  // Queues a request; `inbox` is admitted when it may start, at once where
  // there is room. Error: kQueueFull.
  absl::StatusOr<AdmissionTicket> Enter(const AdmissionRequest& request,
                                        std::shared_ptr<Inbox> inbox);

  int32_t queued_count() const;

 private:
  friend class AdmissionTicket;
  void OnPlaced(const std::string& worker);
  void OnWaitAtWorker(TicketId id);
  void OnFirstToken(TicketId id);
  void Settle(TicketId id, double cost);
  void Release(TicketId id);
  bool over_share(TicketId id) const;
  void Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock& clock_;
  mutable absl::Mutex mutex_;
  Limiter limiter_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<TicketId, std::shared_ptr<Inbox>> waiting_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_ADMISSION_QUEUE_H_
