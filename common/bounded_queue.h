// A queue with a wall: several producers, several consumers, a capacity fixed
// at construction.
//
// Thread-safe.
#ifndef CARAVAN_COMMON_BOUNDED_QUEUE_H_
#define CARAVAN_COMMON_BOUNDED_QUEUE_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace caravan {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Appends, or returns false when the queue is full or closed; `item` is
  // then untouched.
  [[nodiscard]] bool TryPush(T&& item) {
    absl::MutexLock lock(&mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  // The oldest item, or nothing.
  std::optional<T> TryPop() {
    absl::MutexLock lock(&mutex_);
    return PopLocked();
  }

  // The oldest item, waiting up to `timeout`; nothing when the time is over or
  // the queue is closed and empty.
  std::optional<T> PopFor(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &BoundedQueue::ReadyLocked),
                            timeout);
    return PopLocked();
  }

  // All items, oldest first.
  std::vector<T> Drain() {
    absl::MutexLock lock(&mutex_);
    std::vector<T> drained(std::make_move_iterator(items_.begin()),
                           std::make_move_iterator(items_.end()));
    items_.clear();
    return drained;
  }

  // Nothing enters any more; waiting consumers return.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return items_.size();
  }
  size_t capacity() const { return capacity_; }

 private:
  bool ReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !items_.empty();
  }
  std::optional<T> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  const size_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caravan

#endif  // CARAVAN_COMMON_BOUNDED_QUEUE_H_
