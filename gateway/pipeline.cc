#include "gateway/pipeline.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <utility>

#include "common/status/errors.h"
#include "common/text/incremental_decoder.h"
#include "gateway/co_status.h"

namespace caravan::gateway {

namespace asio = boost::asio;

// A generation that leaves the pipeline's list when it goes.
class Pipeline::Tracked final : public TokenStream {
 public:
  Tracked(Pipeline* pipeline, uint64_t id, GenerationRequest request)
      : pipeline_(pipeline),
        id_(id),
        generation_(std::make_unique<Generation>(pipeline->context_,
                                                 std::move(request))) {}
  ~Tracked() override {
    generation_.reset();
    pipeline_->Forget(id_);
  }

  const GenerationRequest& request() const override {
    return generation_->request();
  }
  asio::awaitable<absl::StatusOr<StreamEvents>> Next() override {
    return generation_->Next();
  }
  void Cancel(absl::Status status) override { generation_->Cancel(status); }
  void BeginWrite() override { generation_->BeginWrite(); }
  void EndWrite() override { generation_->EndWrite(); }

 private:
  Pipeline* const pipeline_;
  const uint64_t id_;
  std::unique_ptr<Generation> generation_;
};

absl::StatusOr<std::shared_ptr<TokenStream>> Pipeline::Open(
    GenerationRequest request) {
  if (request.idempotency_key.empty()) {
    if (request.resume_cursor.empty()) return Begin(std::move(request));
    return FieldError("Last-Event-ID", "sent with the idempotency key",
                      "no key");
  }
  const auto start = [this](GenerationRequest started,
                            std::shared_ptr<Recording> recording) {
    absl::StatusOr<std::shared_ptr<TokenStream>> stream =
        Begin(std::move(started));
    if (!stream.ok()) return stream.status();
    // Posted, for it must not run inside of the store's call.
    asio::post(context_.executor, [this, stream = *std::move(stream),
                                   recording = std::move(recording)] {
      asio::co_spawn(asio::make_strand(context_.executor),
                     Record(stream, recording), asio::detached);
      asio::co_spawn(context_.executor, Watch(stream, recording),
                     asio::detached);
    });
    return absl::OkStatus();
  };
  return kept_.Open(std::move(request), start);
}

// Ends a generation that nobody has read for too long, whether or not it gives
// anything.
asio::awaitable<void> Pipeline::Watch(std::weak_ptr<TokenStream> stream,
                                      std::shared_ptr<Recording> recording) {
  while (!recording->ended()) {
    if (kept_.IsForsaken(*recording)) {
      if (const auto running = stream.lock()) {
        running->Cancel(
            MakeError(Reason::kCancelled, "nobody reads the stream"));
      }
      co_return;
    }
    co_await PauseFor(kept_.watch_interval());
  }
}

// Reads a generation to its end, whoever else does.
asio::awaitable<void> Pipeline::Record(std::shared_ptr<TokenStream> stream,
                                       std::shared_ptr<Recording> recording) {
  absl::Status end;
  for (bool over = false; !over;) {
    absl::StatusOr<StreamEvents> events = co_await stream->Next();
    over = !events.ok() || events->finished.has_value();
    if (events.ok()) {
      recording->Append(*std::move(events));
    } else {
      end = events.status();
    }
  }
  recording->End(end);
  kept_.Ended(recording);
}

absl::StatusOr<std::shared_ptr<TokenStream>> Pipeline::Begin(
    GenerationRequest request) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return MakeError(Reason::kDraining,
                     "the gateway is shutting down; try another");
  }
  const uint64_t id = next_id_++;
  auto stream = std::make_shared<Tracked>(this, id, std::move(request));
  open_.emplace(id, stream);
  return stream;
}

void Pipeline::Forget(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  open_.erase(id);
}

Patience Pipeline::StartPatience() const {
  Patience patience;
  patience.deadline = absl::Now() + context_.start_patience;
  patience.wanted = [this] { return !draining(); };
  return patience;
}

asio::awaitable<absl::StatusOr<std::vector<TokenId>>> Pipeline::Tokenize(
    std::string model, PromptInput prompt, bool add_special_tokens) {
  const auto models = co_await context_.directory->Find(std::move(model));
  if (!models.ok()) co_return models.status();
  v1::PrepareRequest prepare;
  prepare.set_model(models->front()->name());
  *prepare.add_inputs() = ToPrepareInput(prompt, add_special_tokens);
  const Patience patience = StartPatience();
  const absl::StatusOr<v1::PrepareResponse> response =
      co_await context_.tokenizer->Prepare(prepare, patience);
  if (!response.ok()) co_return response.status();
  if (response->prompts_size() != 1) {
    co_return MakeError(Reason::kInternal, "the tokenizer answered nothing");
  }
  const auto& ids = response->prompts(0).token_ids();
  co_return std::vector<TokenId>(ids.begin(), ids.end());
}

asio::awaitable<absl::StatusOr<std::string>> Pipeline::Detokenize(
    std::string model, std::vector<TokenId> ids, bool skip_special_tokens) {
  const auto models = co_await context_.directory->Find(std::move(model));
  if (!models.ok()) co_return models.status();
  const ModelPtr first = models->front();
  const Patience patience = StartPatience();
  const auto vocabulary =
      co_await context_.directory->VocabularyOf(first, patience);
  if (!vocabulary.ok()) co_return vocabulary.status();
  ModelFacts facts;
  facts.vocabulary_size = (*vocabulary)->size();
  if (!ids.empty()) {
    CARAVAN_CO_RETURN_IF_ERROR(CheckPromptIds("tokens", ids, facts));
  }
  co_return text::Decode(**vocabulary, ids, skip_special_tokens);
}

void Pipeline::StartDrain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool Pipeline::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

bool Pipeline::AwaitIdle(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return open_.empty();
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), timeout);
}

void Pipeline::CancelAll(const absl::Status& status) {
  std::vector<std::shared_ptr<TokenStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, weak] : open_) {
      if (auto stream = weak.lock()) streams.push_back(std::move(stream));
    }
  }
  for (const auto& stream : streams) stream->Cancel(status);
}

}  // namespace caravan::gateway
