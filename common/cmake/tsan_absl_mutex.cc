// Teaches ThreadSanitizer what absl::Mutex orders. The distribution's Abseil is
// not instrumented, so that every field under a mutex would be reported.
//
// The linker sends calls of these functions here (--wrap). A lock takes over
// what the last unlock left, and an unlock leaves what this thread did.
// Conditions are evaluated by whoever unlocks, inside of Abseil, with the lock
// held but after the unlock was announced: their reads are not checked.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

// The names are those of Abseil's functions, as the linker knows them.
#define CARAVAN_MUTEX(name) _ZN4absl7debian35Mutex##name
#define CARAVAN_JOIN_INNER(a, b) a##b
#define CARAVAN_JOIN(a, b) CARAVAN_JOIN_INNER(a, b)
#define CARAVAN_REAL(symbol) CARAVAN_JOIN(__real_, symbol)
#define CARAVAN_WRAP(symbol) CARAVAN_JOIN(__wrap_, symbol)

#define CARAVAN_LOCK CARAVAN_MUTEX(4LockEv)
#define CARAVAN_TRY_LOCK CARAVAN_MUTEX(7TryLockEv)
#define CARAVAN_UNLOCK CARAVAN_MUTEX(6UnlockEv)
#define CARAVAN_READER_LOCK CARAVAN_MUTEX(10ReaderLockEv)
#define CARAVAN_READER_UNLOCK CARAVAN_MUTEX(12ReaderUnlockEv)
#define CARAVAN_AWAIT CARAVAN_MUTEX(5AwaitERKNS0_9ConditionE)
#define CARAVAN_AWAIT_TIMEOUT \
  CARAVAN_MUTEX(16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)
#define CARAVAN_AWAIT_DEADLINE \
  CARAVAN_MUTEX(17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE)
#define CARAVAN_NOTIFY _ZN4absl7debian312Notification6NotifyEv
#define CARAVAN_WAIT _ZNK4absl7debian312Notification19WaitForNotificationEv

namespace {

// While it lives, reads of this thread are not checked.
class UncheckedReads {
 public:
  UncheckedReads();
  ~UncheckedReads();
};

// Around a wait that gives the lock away and takes it again.
class LentLock {
 public:
  explicit LentLock(void* lock) : lock_(lock) { __tsan_release(lock_); }
  ~LentLock() { __tsan_acquire(lock_); }

 private:
  void* const lock_;
  UncheckedReads reads_;
};

}  // namespace

extern "C" {

void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);

void CARAVAN_REAL(CARAVAN_LOCK)(absl::Mutex* mutex);
bool CARAVAN_REAL(CARAVAN_TRY_LOCK)(absl::Mutex* mutex);
void CARAVAN_REAL(CARAVAN_UNLOCK)(absl::Mutex* mutex);
void CARAVAN_REAL(CARAVAN_READER_LOCK)(absl::Mutex* mutex);
void CARAVAN_REAL(CARAVAN_READER_UNLOCK)(absl::Mutex* mutex);
void CARAVAN_REAL(CARAVAN_AWAIT)(absl::Mutex* mutex,
                                 const absl::Condition& condition);
bool CARAVAN_REAL(CARAVAN_AWAIT_TIMEOUT)(absl::Mutex* mutex,
                                         const absl::Condition& condition,
                                         absl::Duration timeout);
bool CARAVAN_REAL(CARAVAN_AWAIT_DEADLINE)(absl::Mutex* mutex,
                                          const absl::Condition& condition,
                                          absl::Time deadline);
void CARAVAN_REAL(CARAVAN_NOTIFY)(absl::Notification* notification);
void CARAVAN_REAL(CARAVAN_WAIT)(absl::Notification* notification);

void CARAVAN_WRAP(CARAVAN_LOCK)(absl::Mutex* mutex) {
  CARAVAN_REAL(CARAVAN_LOCK)(mutex);
  __tsan_acquire(mutex);
}

bool CARAVAN_WRAP(CARAVAN_TRY_LOCK)(absl::Mutex* mutex) {
  const bool locked = CARAVAN_REAL(CARAVAN_TRY_LOCK)(mutex);
  if (locked) __tsan_acquire(mutex);
  return locked;
}

void CARAVAN_WRAP(CARAVAN_UNLOCK)(absl::Mutex* mutex) {
  __tsan_release(mutex);
  const UncheckedReads unchecked;
  CARAVAN_REAL(CARAVAN_UNLOCK)(mutex);
}

void CARAVAN_WRAP(CARAVAN_READER_LOCK)(absl::Mutex* mutex) {
  CARAVAN_REAL(CARAVAN_READER_LOCK)(mutex);
  __tsan_acquire(mutex);
}

void CARAVAN_WRAP(CARAVAN_READER_UNLOCK)(absl::Mutex* mutex) {
  __tsan_release(mutex);
  const UncheckedReads unchecked;
  CARAVAN_REAL(CARAVAN_READER_UNLOCK)(mutex);
}

void CARAVAN_WRAP(CARAVAN_AWAIT)(absl::Mutex* mutex,
                                 const absl::Condition& condition) {
  const LentLock lent(mutex);
  CARAVAN_REAL(CARAVAN_AWAIT)(mutex, condition);
}

bool CARAVAN_WRAP(CARAVAN_AWAIT_TIMEOUT)(absl::Mutex* mutex,
                                         const absl::Condition& condition,
                                         absl::Duration timeout) {
  const LentLock lent(mutex);
  return CARAVAN_REAL(CARAVAN_AWAIT_TIMEOUT)(mutex, condition, timeout);
}

bool CARAVAN_WRAP(CARAVAN_AWAIT_DEADLINE)(absl::Mutex* mutex,
                                          const absl::Condition& condition,
                                          absl::Time deadline) {
  const LentLock lent(mutex);
  return CARAVAN_REAL(CARAVAN_AWAIT_DEADLINE)(mutex, condition, deadline);
}

void CARAVAN_WRAP(CARAVAN_NOTIFY)(absl::Notification* notification) {
  __tsan_release(notification);
  CARAVAN_REAL(CARAVAN_NOTIFY)(notification);
}

void CARAVAN_WRAP(CARAVAN_WAIT)(absl::Notification* notification) {
  CARAVAN_REAL(CARAVAN_WAIT)(notification);
  __tsan_acquire(notification);
}

}  // extern "C"

namespace {

UncheckedReads::UncheckedReads() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
}
UncheckedReads::~UncheckedReads() {
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

}  // namespace
