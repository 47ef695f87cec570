// One request on its way: validate, admit, prepare, place, submit, stream.
#ifndef CARAVAN_GATEWAY_GENERATION_H_
#define CARAVAN_GATEWAY_GENERATION_H_

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "gateway/admission/admission_queue.h"
#include "gateway/backend/model_directory.h"
#include "gateway/backend/tokenizer_client.h"
#include "gateway/backend/worker_client.h"
#include "gateway/gateway_metrics.h"
#include "gateway/placement.h"
#include "gateway/prompt_group.h"
#include "gateway/request.h"
#include "gateway/resolve.h"
#include "gateway/stream/inbox.h"
#include "gateway/stream/token_stream.h"
#include "gateway/stream/tool_calls.h"

namespace caravan::gateway {

// What all requests stand on; all of it outlives them.
struct GenerationContext {
  TokenizerClient* tokenizer = nullptr;
  WorkerClient* workers = nullptr;
  ModelDirectory* directory = nullptr;
  Placement* placement = nullptr;
  AdmissionQueue* admission = nullptr;
  GatewayMetrics* metrics = nullptr;
  const Clock* clock = nullptr;
  InboxOptions inbox;
  // Where generations run that outlive their readers (idempotency keys).
  boost::asio::any_io_executor executor;
  // How long a new request waits for a tokenizer or a router that is away, and
  // a running one for a replica that can continue it.
  absl::Duration start_patience = absl::Seconds(30);
  absl::Duration resume_patience = absl::Seconds(30);
};

// Submits of a prompt without a new token in between.
inline constexpr int32_t kMaxAttempts = 8;
// Deaths of workers, likewise, after which the request is suspected.
inline constexpr int32_t kMaxDeaths = 2;

// Runs on its reader's executor; Cancel, BeginWrite and EndWrite may come from
// any thread.
class Generation final : public TokenStream {
 public:
  Generation(const GenerationContext& context, GenerationRequest request);
  ~Generation() override;

  const GenerationRequest& request() const override { return request_; }
  boost::asio::awaitable<absl::StatusOr<StreamEvents>> Next() override;
  void Cancel(absl::Status status) override { inbox_->Cancel(status); }
  void BeginWrite() override { inbox_->BeginWrite(); }
  void EndWrite() override { inbox_->EndWrite(); }

 private:
  // The stages, in order; each once.
  boost::asio::awaitable<absl::Status> Start();
  boost::asio::awaitable<void> ArmDeadline();
  boost::asio::awaitable<absl::Status> FindModel();
  boost::asio::awaitable<absl::Status> Admit();
  boost::asio::awaitable<absl::Status> FetchVocabulary();
  boost::asio::awaitable<absl::Status> Prepare();
  void AdoptAnswerEnd(const v1::PreparedPrompt& prompt);
  absl::StatusOr<sampling::StopCriteria> StopOf(int32_t prompt_tokens) const;
  absl::Status MakeGroups();
  void MakeToolFilters();
  boost::asio::awaitable<absl::Status> SubmitAll();

  // The stream.
  boost::asio::awaitable<absl::StatusOr<StreamEvents>> Advance();
  absl::Status ApplyAll(InboxContents contents);
  StreamEvents TakeEvents();
  void FilterToolCalls(StreamEvents& events);
  Finished MakeFinished() const;
  std::string MakeReceipt() const;

  // Placement, again where one failed.
  boost::asio::awaitable<absl::Status> RecoverAll();
  boost::asio::awaitable<absl::Status> Recover(PromptGroup& group);
  boost::asio::awaitable<void> TryMove(PromptGroup& group);
  boost::asio::awaitable<absl::Status> PlaceAndSubmit(PromptGroup& group,
                                                      bool may_wait);
  boost::asio::awaitable<absl::StatusOr<v1::Target>> FindPlace(
      PromptGroup& group, bool same_identity);
  boost::asio::awaitable<absl::StatusOr<v1::Target>> FindPlaceOrInexact(
      PromptGroup& group);
  absl::Status SubmitTo(PromptGroup& group, const v1::Target& target);
  absl::Status PinIdentity();
  std::optional<v1::ModelIdentity> WantedIdentity(
      const PromptGroup& group) const;
  absl::Status AdoptIdentity(PromptGroup& group, const v1::Target& target);
  void MarkInexact(const PromptGroup& group, const v1::ModelIdentity& identity);
  v1::Submit MakeSubmit(const PromptGroup& group, const v1::Target& target,
                        uint64_t handle) const;
  absl::Status CountFailure(PromptGroup& group) const;

  // Measures.
  void CountTokens(int32_t count);
  void End(const absl::Status& status);

  PromptGroup* GroupOf(uint64_t handle);
  std::string PromptField(size_t index) const;
  Patience PatienceFor(absl::Duration duration) const;
  bool has_output() const;

  const GenerationContext& context_;
  const GenerationRequest request_;
  const std::shared_ptr<Inbox> inbox_;
  const absl::Time arrival_;

  // Known after FindModel.
  std::vector<ModelPtr> models_;  // the identities of the name
  ModelFacts facts_;
  sampling::SamplingParams sampling_;
  // After Admit.
  AdmissionTicket ticket_;
  // After FetchVocabulary, Prepare and MakeGroups.
  std::shared_ptr<const text::Vocabulary> vocabulary_;
  std::vector<std::vector<TokenId>> prompts_;
  // What ends an answer in the prompt's format, beside what the request says.
  std::vector<TokenId> format_end_ids_;
  std::vector<std::string> format_stop_texts_;
  ChoiceOptions choice_options_;
  std::vector<PromptGroup> groups_;
  std::vector<ToolCallFilter> tool_filters_;  // by choice; empty without tools
  // What the client's cursor demands.
  std::optional<v1::ModelIdentity> pinned_identity_;
  // After the first placement: who computes, as the receipt says. What was
  // computed by others is marked.
  std::optional<v1::ModelIdentity> first_identity_;
  std::vector<InexactResume> inexact_resumes_;

  std::optional<boost::asio::steady_timer> deadline_timer_;
  bool started_ = false;
  bool started_sent_ = false;
  bool ended_ = false;
  std::optional<absl::Time> last_token_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GENERATION_H_
