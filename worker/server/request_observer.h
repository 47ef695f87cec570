// What becomes of requests, for metrics.
#ifndef CARAVAN_WORKER_SERVER_REQUEST_OBSERVER_H_
#define CARAVAN_WORKER_SERVER_REQUEST_OBSERVER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "common/status/errors.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// A group as it was submitted.
struct RequestShape {
  int32_t prompt_tokens = 0;
  int32_t choices = 0;
  int32_t max_tokens = 0;
};

// A choice as it ended.
struct FinishedChoice {
  ChoiceEnd end = ChoiceEnd::kStop;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;         // resumed ones included
  absl::Duration since_submit;       // until the end
  absl::Duration since_first_token;  // zero without tokens
};

// Called on the engine thread; OnRefused and OnSubmitted on those of sessions.
// Must not block. Thread-safe.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  virtual void OnSubmitted(const RequestShape& shape) = 0;
  virtual void OnRefused(Reason reason) = 0;
  virtual void OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) = 0;
  virtual void OnFirstToken(absl::Duration since_submit) = 0;
  virtual void OnNextToken(absl::Duration since_last) = 0;
  virtual void OnFinished(const FinishedChoice& choice) = 0;
  virtual void OnFailed(Reason reason) = 0;
  virtual void OnCancelled() = 0;
  // A session ended for this reason; its groups are cancelled besides.
  virtual void OnSessionDropped(Reason reason) = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_REQUEST_OBSERVER_H_
