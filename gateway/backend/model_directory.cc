#include "gateway/backend/model_directory.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

// Names of models that came and went are forgotten beyond this many.
constexpr size_t kMaxModels = 1024;

// A pause ends this much sooner when the process stops.
constexpr int kPauseParts = 20;

bool SameModel(const v1::ModelInfo& a, const v1::ModelInfo& b) {
  return a.name() == b.name() &&
         a.identity().weights_id() == b.identity().weights_id() &&
         a.identity().numerics_class() == b.identity().numerics_class() &&
         a.identity().fingerprint() == b.identity().fingerprint();
}

}  // namespace

void ModelDirectory::Take(const v1::ListWorkersResponse& response) {
  std::vector<ModelPtr> models;
  for (const v1::WorkerStatus& worker : response.workers()) {
    const v1::ModelInfo& info = worker.registration().model();
    const bool known =
        std::any_of(models.begin(), models.end(),
                    [&](const ModelPtr& m) { return SameModel(*m, info); });
    if (!known) models.push_back(std::make_shared<const v1::ModelInfo>(info));
  }
  absl::MutexLock lock(&mutex_);
  // A name that nobody serves now keeps what was known of it.
  for (ModelPtr& old : models_) {
    const bool served = std::any_of(
        models.begin(), models.end(),
        [&](const ModelPtr& m) { return m->name() == old->name(); });
    if (!served && models.size() < kMaxModels) models.push_back(old);
  }
  std::stable_sort(models.begin(), models.end(),
                   [](const ModelPtr& a, const ModelPtr& b) {
                     return a->name() < b->name();
                   });
  models_ = std::move(models);
  listed_.assign(response.workers().begin(), response.workers().end());
  if (!listed_.empty()) remembered_ = listed_;
}

asio::awaitable<absl::Status> ModelDirectory::Refresh() {
  const absl::StatusOr<v1::ListWorkersResponse> response =
      co_await router_->ListWorkers();
  if (!response.ok()) co_return response.status();
  Take(*response);
  Patience once;
  once.deadline = absl::InfinitePast();
  absl::Status status;
  for (const ModelPtr& model : List()) {
    const auto vocabulary = co_await VocabularyOf(model, once);
    if (!vocabulary.ok()) status = vocabulary.status();
  }
  co_return status;
}

asio::awaitable<void> ModelDirectory::KeepFresh(
    absl::Duration interval, std::function<bool()> stopping) {
  absl::Status last;
  while (!stopping()) {
    const absl::Status status = co_await Refresh();
    if (status.code() != last.code() && !status.ok()) {
      LogWarning("model_directory_stale", {{"cause", status}});
    }
    last = status;
    for (int i = 0; i < kPauseParts && !stopping(); ++i) {
      co_await PauseFor(interval / kPauseParts);
    }
  }
}

std::vector<ModelPtr> ModelDirectory::FindLocked(
    const std::string& name) const {
  std::vector<ModelPtr> found;
  for (const ModelPtr& model : models_) {
    if (name.empty() || model->name() == name) found.push_back(model);
  }
  const bool ambiguous =
      name.empty() && !found.empty() &&
      found.front()->name() != found.back()->name();  // sorted by name
  return ambiguous ? std::vector<ModelPtr>() : found;
}

absl::Status ModelDirectory::MissingLocked(const std::string& name) const {
  if (models_.empty()) {
    return MakeError(Reason::kNoReplica, "no model is served yet");
  }
  if (name.empty()) {
    return FieldError("model", "given where several models are served",
                      "nothing");
  }
  return MakeError(Reason::kModelNotFound,
                   StrCat("model must be one of /v1/models; got ", name),
                   {{"field", "model"}, {"value", name}});
}

asio::awaitable<absl::StatusOr<std::vector<ModelPtr>>> ModelDirectory::Find(
    std::string name) {
  for (const bool refreshed : {false, true}) {
    {
      absl::MutexLock lock(&mutex_);
      std::vector<ModelPtr> found = FindLocked(name);
      if (!found.empty()) co_return found;
      if (refreshed) co_return MissingLocked(name);
    }
    const absl::StatusOr<v1::ListWorkersResponse> response =
        co_await router_->ListWorkers();
    if (!response.ok()) co_return response.status();
    Take(*response);
  }
  co_return MakeError(Reason::kInternal, "unreachable");
}

std::shared_ptr<const text::Vocabulary> ModelDirectory::CachedVocabulary(
    const std::string& tokenizer_id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = vocabularies_.find(tokenizer_id);
  return it == vocabularies_.end() ? nullptr : it->second;
}

asio::awaitable<absl::StatusOr<std::shared_ptr<const text::Vocabulary>>>
ModelDirectory::VocabularyOf(ModelPtr model, Patience patience) {
  const std::string& wanted = model->identity().tokenizer_id();
  if (auto cached = CachedVocabulary(wanted)) co_return cached;
  const absl::StatusOr<NamedVocabulary> fetched =
      co_await tokenizer_->GetVocabulary(model->name(), patience);
  if (!fetched.ok()) co_return fetched.status();
  {
    absl::MutexLock lock(&mutex_);
    vocabularies_[fetched->tokenizer_id] = fetched->vocabulary;
  }
  if (fetched->tokenizer_id != wanted) {
    co_return MakeError(Reason::kIdentityMismatch,
                        StrCat("the tokenizer service has another vocabulary "
                               "for model ",
                               model->name(), " than its workers"));
  }
  co_return fetched->vocabulary;
}

std::vector<ModelPtr> ModelDirectory::List() const {
  absl::MutexLock lock(&mutex_);
  return models_;
}

std::vector<v1::WorkerStatus> ModelDirectory::LastKnownWorkers(
    std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::WorkerStatus> workers;
  for (const v1::WorkerStatus& worker : remembered_) {
    if (worker.registration().model().name() == name) {
      workers.push_back(worker);
    }
  }
  return workers;
}

bool ModelDirectory::ready() const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(
      listed_.begin(), listed_.end(), [this](const v1::WorkerStatus& worker) {
        mutex_.AssertHeld();
        return worker.state() == v1::WORKER_STATE_READY &&
               vocabularies_.contains(
                   worker.registration().model().identity().tokenizer_id());
      });
}

}  // namespace caravan::gateway
