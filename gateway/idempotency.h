// Requests with an idempotency key: the same key, tenant and body attach to
// the generation that runs, or has ended a short while ago, instead of
// computing again.
#ifndef CARAVAN_GATEWAY_IDEMPOTENCY_H_
#define CARAVAN_GATEWAY_IDEMPOTENCY_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "gateway/request.h"
#include "gateway/stream/recording.h"
#include "gateway/stream/token_stream.h"

namespace caravan::gateway {

inline constexpr size_t kMaxIdempotencyKeyBytes = 256;

struct IdempotencyOptions {
  // How long a generation that ended is kept.
  absl::Duration window = absl::Minutes(5);
  // How long one goes on that nobody reads.
  absl::Duration linger = absl::Seconds(30);
  // Of what is kept after the end; the oldest goes first.
  int64_t max_bytes = int64_t{64} << 20;
};

// Thread-safe.
class IdempotencyStore {
 public:
  // Starts a generation that writes to the recording and reports its end.
  using StartGeneration = std::function<absl::Status(
      GenerationRequest, std::shared_ptr<Recording>)>;

  IdempotencyStore(const IdempotencyOptions& options, const Clock* clock)
      : options_(options), clock_(clock) {}

  // A reader of the request's generation, from its cursor on. Where none is
  // known it is started: after a cursor with its seed and in its class.
  // Errors: kInvalidField (the key, the cursor, too many choices),
  // kIdempotencyConflict, those of `start`.
  absl::StatusOr<std::shared_ptr<TokenStream>> Open(
      GenerationRequest request, const StartGeneration& start);

  // The generation has ended. One that failed is forgotten: the next attempt
  // computes.
  void Ended(const std::shared_ptr<Recording>& recording);

  // Whether the generation may end because nobody has read it for too long.
  bool IsForsaken(const Recording& recording) const;
  // How often to ask.
  absl::Duration watch_interval() const {
    return std::clamp(options_.linger / 4, absl::Milliseconds(20),
                      absl::Seconds(1));
  }

 private:
  struct Entry {
    std::string body_digest;
    std::shared_ptr<Recording> recording;
  };

  void ForgetFailed(const std::string& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // At most once a second.
  void Evict() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const IdempotencyOptions options_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  absl::Time last_evicted_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // By tenant and key.
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_IDEMPOTENCY_H_
