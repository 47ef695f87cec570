// Which models are served, by whom, and their vocabularies.
#ifndef CARAVAN_GATEWAY_BACKEND_MODEL_DIRECTORY_H_
#define CARAVAN_GATEWAY_BACKEND_MODEL_DIRECTORY_H_

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/router.pb.h"
#include "common/text/vocabulary.h"
#include "gateway/backend/router_client.h"
#include "gateway/backend/tokenizer_client.h"

namespace caravan::gateway {

using ModelPtr = std::shared_ptr<const v1::ModelInfo>;

// Thread-safe.
class ModelDirectory {
 public:
  // Both must outlive the directory.
  ModelDirectory(RouterClient* router, TokenizerClient* tokenizer)
      : router_(router), tokenizer_(tokenizer) {}

  // Asks the router now, and the tokenizer for vocabularies that are missing.
  boost::asio::awaitable<absl::Status> Refresh();

  // Refreshes every `interval`, until `stopping` says so.
  boost::asio::awaitable<void> KeepFresh(absl::Duration interval,
                                         std::function<bool()> stopping);

  // The identities that serve `name` ("": the only model), at least one. A
  // name that is not known is looked up once. Errors: kModelNotFound;
  // kNoReplica while nothing at all is served.
  boost::asio::awaitable<absl::StatusOr<std::vector<ModelPtr>>> Find(
      std::string name);

  // The vocabulary of that identity. Errors: kTokenizerUnavailable,
  // kModelNotFound; kIdentityMismatch when the tokenizer service has another.
  boost::asio::awaitable<
      absl::StatusOr<std::shared_ptr<const text::Vocabulary>>>
  VocabularyOf(ModelPtr model, Patience patience);

  // One for each name and identity, by name.
  std::vector<ModelPtr> List() const;

  // Replicas of `name` in the last list that was not empty: a router that just
  // started has none yet.
  std::vector<v1::WorkerStatus> LastKnownWorkers(std::string_view name) const;

  // Whether a request would find a model and its vocabulary.
  bool ready() const;

 private:
  std::vector<ModelPtr> FindLocked(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MissingLocked(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Take(const v1::ListWorkersResponse& response);
  std::shared_ptr<const text::Vocabulary> CachedVocabulary(
      const std::string& tokenizer_id) const;

  RouterClient* const router_;
  TokenizerClient* const tokenizer_;
  mutable absl::Mutex mutex_;
  // As last listed; and the last list that was not empty.
  std::vector<v1::WorkerStatus> listed_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::WorkerStatus> remembered_ ABSL_GUARDED_BY(mutex_);
  // Stay when the last replica goes: the model is then known, and down.
  std::vector<ModelPtr> models_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<const text::Vocabulary>>
      vocabularies_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_MODEL_DIRECTORY_H_
