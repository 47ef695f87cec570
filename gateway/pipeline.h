// What stands behind both front doors.
#ifndef CARAVAN_GATEWAY_PIPELINE_H_
#define CARAVAN_GATEWAY_PIPELINE_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gateway/generation.h"
#include "gateway/idempotency.h"
#include "gateway/request.h"
#include "gateway/stream/token_stream.h"

namespace caravan::gateway {

// Thread-safe. Must outlive its streams.
class Pipeline {
 public:
  Pipeline(GenerationContext context, const IdempotencyOptions& idempotency)
      : context_(std::move(context)), kept_(idempotency, context_.clock) {}

  // A stream that has not started: its first Next() does. With an idempotency
  // key: one that may run already. Errors: kDraining, those of
  // IdempotencyStore.
  absl::StatusOr<std::shared_ptr<TokenStream>> Open(GenerationRequest request);

  // Ids of a text or a conversation. Errors: those of the tokenizer;
  // kModelNotFound.
  boost::asio::awaitable<absl::StatusOr<std::vector<TokenId>>> Tokenize(
      std::string model, PromptInput prompt, bool add_special_tokens);

  // Text of ids. Errors: kInvalidField for an id outside the vocabulary.
  boost::asio::awaitable<absl::StatusOr<std::string>> Detokenize(
      std::string model, std::vector<TokenId> ids, bool skip_special_tokens);

  ModelDirectory& directory() { return *context_.directory; }
  GatewayMetrics& metrics() { return *context_.metrics; }
  const Clock& clock() const { return *context_.clock; }

  // New requests are refused with kDraining from now on.
  void StartDrain();
  bool draining() const;

  // Blocks until no stream is open, at most `timeout`. Returns whether none is.
  bool AwaitIdle(absl::Duration timeout);

  // Ends all streams with `status`.
  void CancelAll(const absl::Status& status);

 private:
  class Tracked;

  absl::StatusOr<std::shared_ptr<TokenStream>> Begin(GenerationRequest request);
  boost::asio::awaitable<void> Record(std::shared_ptr<TokenStream> stream,
                                      std::shared_ptr<Recording> recording);
  boost::asio::awaitable<void> Watch(std::weak_ptr<TokenStream> stream,
                                     std::shared_ptr<Recording> recording);
  void Forget(uint64_t id);
  Patience StartPatience() const;

  const GenerationContext context_;
  IdempotencyStore kept_;
  mutable absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::unordered_map<uint64_t, std::weak_ptr<TokenStream>> open_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_PIPELINE_H_
