#include "gateway/generation.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/build_info.h"
#include "common/log.h"
#include "common/receipt/receipt.h"
#include "common/sampling/proto.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/co_status.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
// A receipt stays below 2 KB: no more choices than this are listed.
constexpr size_t kMaxReceiptChoices = 16;
// The work of a request whose output is not bounded by its client.
constexpr double kUnboundedCost = 256;

uint64_t DrawSeed() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

ModelFacts FactsOf(const v1::ModelInfo& model) {
  ModelFacts facts;
  facts.name = model.name();
  facts.context_length = model.context_length();
  facts.vocabulary_size = model.vocabulary_size();
  facts.default_sampling = sampling::FromProto(model.default_sampling());
  facts.end_ids.assign(model.eos_token_ids().begin(),
                       model.eos_token_ids().end());
  return facts;
}

double CostOf(const GenerationRequest& request) {
  const double output =
      request.stop.max_tokens ? *request.stop.max_tokens + 1 : kUnboundedCost;
  return output * request.n * static_cast<double>(request.prompts.size());
}

// Whether another placement can help.
bool CanMove(Reason reason) {
  switch (reason) {
    case Reason::kWorkerLost:
    case Reason::kDraining:
    case Reason::kStaleEpoch:
    case Reason::kUnsupportedFeature:
    case Reason::kNumericFault:
    case Reason::kQueueFull:
    case Reason::kProtocolMismatch:
      return true;
    default:
      return false;
  }
}

// Nobody can take it now, and somebody may soon.
bool MayPass(Reason reason) {
  return reason == Reason::kNoReplica || reason == Reason::kNoReplicaOfClass ||
         reason == Reason::kModelNotFound ||
         reason == Reason::kRouterUnavailable;
}

std::string_view ResumeCause(Reason reason) {
  switch (reason) {
    case Reason::kWorkerLost:
      return "lost";
    case Reason::kDraining:
      return "drained";
    case Reason::kNumericFault:
      return "fault";
    default:
      return "other";
  }
}

v1::FinishReason ToProto(FinishReason reason) {
  return reason == FinishReason::kLength ? v1::FINISH_REASON_LENGTH
                                         : v1::FINISH_REASON_STOP;
}

}  // namespace

Generation::Generation(const GenerationContext& context,
                       GenerationRequest request)
    : context_(context),
      request_(std::move(request)),
      inbox_(std::make_shared<Inbox>(context.inbox, *context.clock)),
      arrival_(context.clock->Now()) {
  context_.metrics->in_flight->Add(1);
}

Generation::~Generation() {
  if (ended_) return;
  const absl::Status cancelled = inbox_->cancelled();
  End(cancelled.ok() ? MakeError(Reason::kCancelled, "the stream was dropped")
                     : cancelled);
}

asio::awaitable<absl::StatusOr<StreamEvents>> Generation::Next() {
  absl::StatusOr<StreamEvents> events = co_await Advance();
  if (!events.ok()) {
    End(events.status());
  } else if (events->finished) {
    End(absl::OkStatus());
  }
  co_return events;
}

asio::awaitable<absl::StatusOr<StreamEvents>> Generation::Advance() {
  if (!started_) {
    started_ = true;
    CARAVAN_CO_RETURN_IF_ERROR(co_await Start());
  }
  for (;;) {
    StreamEvents events = TakeEvents();
    if (!events.empty()) co_return events;
    CARAVAN_CO_RETURN_IF_ERROR(co_await RecoverAll());
    InboxContents contents = co_await inbox_->Wait();
    CARAVAN_CO_RETURN_IF_ERROR(inbox_->cancelled());
    CARAVAN_CO_RETURN_IF_ERROR(ApplyAll(std::move(contents)));
  }
}

// --- The stages -------------------------------------------------------------

asio::awaitable<absl::Status> Generation::Start() {
  co_await ArmDeadline();
  CARAVAN_CO_RETURN_IF_ERROR(co_await FindModel());
  CARAVAN_CO_RETURN_IF_ERROR(co_await Admit());
  CARAVAN_CO_RETURN_IF_ERROR(co_await FetchVocabulary());
  CARAVAN_CO_RETURN_IF_ERROR(co_await Prepare());
  CARAVAN_CO_RETURN_IF_ERROR(MakeGroups());
  co_return co_await SubmitAll();
}

// The worker knows the time that is left; this is for what waits elsewhere.
asio::awaitable<void> Generation::ArmDeadline() {
  if (request_.deadline == absl::InfiniteFuture()) co_return;
  deadline_timer_.emplace(co_await asio::this_coro::executor);
  deadline_timer_->expires_after(
      absl::ToChronoNanoseconds(request_.deadline - context_.clock->Now()));
  deadline_timer_->async_wait([inbox = inbox_](const auto& error) {
    if (error) return;
    inbox->Cancel(MakeError(Reason::kDeadlineExceeded,
                            "the time of the request is over"));
  });
}

asio::awaitable<absl::Status> Generation::FindModel() {
  absl::StatusOr<std::vector<ModelPtr>> models =
      co_await context_.directory->Find(request_.model);
  if (!models.ok()) co_return models.status();
  models_ = *std::move(models);
  facts_ = FactsOf(*models_.front());
  CARAVAN_CO_RETURN_IF_ERROR(CheckRequest(request_, facts_));
  sampling_ =
      ResolveSampling(request_.sampling, facts_.default_sampling, DrawSeed());
  co_return PinIdentity();
}

// A client that has a part of the stream gets the rest from the same class.
absl::Status Generation::PinIdentity() {
  if (!request_.identity_tag) return absl::OkStatus();
  for (const ModelPtr& model : models_) {
    if (IdentityTag(model->identity()) != *request_.identity_tag) continue;
    pinned_identity_ = model->identity();
    return absl::OkStatus();
  }
  if (request_.allow_inexact_resume) return absl::OkStatus();
  return MakeError(Reason::kNoReplicaOfClass,
                   StrCat("no replica of model ", facts_.name,
                          " is of the class that began the stream"),
                   {{"model", facts_.name}});
}

asio::awaitable<absl::Status> Generation::Admit() {
  AdmissionRequest admission;
  admission.tenant = request_.tenant;
  admission.weight = request_.tenant_weight;
  admission.priority = request_.priority;
  admission.cost = CostOf(request_);
  const absl::Time begin = context_.clock->Now();
  absl::StatusOr<AdmissionTicket> ticket =
      context_.admission->Enter(admission, inbox_);
  if (!ticket.ok()) co_return ticket.status();
  ticket_ = *std::move(ticket);
  context_.metrics->queued->Add(1);
  for (bool admitted = false; !admitted && inbox_->cancelled().ok();) {
    const InboxContents contents = co_await inbox_->Wait();
    admitted = contents.admitted;
  }
  context_.metrics->queued->Add(-1);
  context_.metrics->queue_seconds->Observe(
      absl::ToDoubleSeconds(context_.clock->Now() - begin));
  co_return inbox_->cancelled();
}

asio::awaitable<absl::Status> Generation::FetchVocabulary() {
  const Patience patience = PatienceFor(context_.start_patience);
  const ModelPtr model = models_.front();
  auto vocabulary = co_await context_.directory->VocabularyOf(model, patience);
  CARAVAN_CO_RETURN_IF_ERROR(inbox_->cancelled());
  if (!vocabulary.ok()) co_return vocabulary.status();
  vocabulary_ = *std::move(vocabulary);
  co_return absl::OkStatus();
}

std::string Generation::PromptField(size_t index) const {
  return request_.prompts.size() == 1 ? "prompt"
                                      : StrCat("prompt[", index, "]");
}

// Texts and conversations to ids, in one call for all prompts.
asio::awaitable<absl::Status> Generation::Prepare() {
  v1::PrepareRequest prepare;
  prepare.set_model(facts_.name);
  prompts_.resize(request_.prompts.size());
  std::vector<size_t> encoded;  // indices of prompts that are not ids yet
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    const PromptInput& prompt = request_.prompts[i];
    if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) {
      prompts_[i] = *ids;
      continue;
    }
    CARAVAN_CO_RETURN_IF_ERROR(
        CheckPromptText(PromptField(i), prompt, *vocabulary_, facts_));
    *prepare.add_inputs() = ToPrepareInput(prompt);
    encoded.push_back(i);
  }
  if (encoded.empty()) co_return absl::OkStatus();
  const Patience patience = PatienceFor(context_.start_patience);
  const absl::StatusOr<v1::PrepareResponse> response =
      co_await context_.tokenizer->Prepare(prepare, patience);
  CARAVAN_CO_RETURN_IF_ERROR(inbox_->cancelled());
  if (!response.ok()) co_return response.status();
  if (response->tokenizer_id() != models_.front()->identity().tokenizer_id()) {
    co_return MakeError(
        Reason::kIdentityMismatch,
        StrCat("the tokenizer service encodes for model ", facts_.name,
               " with another vocabulary than its workers"));
  }
  if (response->prompts_size() != static_cast<int>(encoded.size())) {
    co_return MakeError(
        Reason::kInternal,
        StrCat("the tokenizer answered ", response->prompts_size(), " of ",
               encoded.size(), " prompts"));
  }
  for (size_t i = 0; i < encoded.size(); ++i) {
    const v1::PreparedPrompt& prompt = response->prompts(static_cast<int>(i));
    const auto& ids = prompt.token_ids();
    prompts_[encoded[i]].assign(ids.begin(), ids.end());
    AdoptAnswerEnd(prompt);
  }
  co_return absl::OkStatus();
}

void Generation::AdoptAnswerEnd(const v1::PreparedPrompt& prompt) {
  if (request_.stop.ignore_eos) return;
  const std::vector<TokenId>& model_ends = facts_.end_ids;
  for (const TokenId id : prompt.end_token_ids()) {
    const auto knows = [id](const std::vector<TokenId>& ids) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    if (!knows(model_ends) && !knows(format_end_ids_)) {
      format_end_ids_.push_back(id);
    }
  }
  for (const std::string& text : prompt.stop_texts()) {
    std::vector<std::string>& texts = format_stop_texts_;
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) {
      texts.push_back(text);
    }
  }
}

absl::StatusOr<sampling::StopCriteria> Generation::StopOf(
    int32_t prompt_tokens) const {
  CARAVAN_ASSIGN_OR_RETURN(sampling::StopCriteria stop,
                           ResolveStop(request_, facts_, prompt_tokens));
  stop.stop.insert(stop.stop.end(), format_stop_texts_.begin(),
                   format_stop_texts_.end());
  stop.stop_token_ids.insert(stop.stop_token_ids.end(), format_end_ids_.begin(),
                             format_end_ids_.end());
  return stop;
}

void Generation::MakeToolFilters() {
  std::string id;
  for (const char c : request_.request_id) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) id += c;
  }
  id.resize(std::min<size_t>(id.size(), 24));
  for (const PromptInput& prompt : request_.prompts) {
    const auto* const chat = std::get_if<Conversation>(&prompt);
    if (chat == nullptr || chat->tools.empty()) return;
    for (int32_t i = 0; i < request_.n; ++i) {
      tool_filters_.emplace_back(
          chat->tools, StrCat("call_", id, "_", tool_filters_.size(), "_"));
    }
  }
}

absl::Status Generation::MakeGroups() {
  std::vector<std::string> stop_texts = request_.stop.stop;
  stop_texts.insert(stop_texts.end(), format_stop_texts_.begin(),
                    format_stop_texts_.end());
  choice_options_.stop = StopTexts(std::move(stop_texts));
  choice_options_.end_ids.insert(format_end_ids_.begin(),
                                 format_end_ids_.end());
  choice_options_.min_tokens = request_.stop.min_tokens.value_or(0);
  choice_options_.include_stop = request_.stop.include_stop_str_in_output;
  choice_options_.end_ids.insert(request_.stop.stop_token_ids.begin(),
                                 request_.stop.stop_token_ids.end());
  if (!request_.stop.ignore_eos) {
    choice_options_.end_ids.insert(facts_.end_ids.begin(),
                                   facts_.end_ids.end());
  }
  groups_.reserve(prompts_.size());
  for (size_t i = 0; i < prompts_.size(); ++i) {
    PromptGroup::Init init;
    init.index = static_cast<int32_t>(i);
    init.ids = std::move(prompts_[i]);
    CARAVAN_RETURN_IF_ERROR(CheckPromptIds(PromptField(i), init.ids, facts_));
    CARAVAN_ASSIGN_OR_RETURN(init.stop,
                             StopOf(static_cast<int32_t>(init.ids.size())));
    init.n = request_.n;
    init.wants_scores = sampling_.prompt_logprob_count.has_value();
    init.wants_text = request_.echo;
    init.skip_special_tokens = request_.skip_special_tokens;
    groups_.emplace_back(std::move(init), *vocabulary_, choice_options_);
  }
  for (const ResumedChoice& resumed : request_.resumed_choices) {
    CARAVAN_RETURN_IF_ERROR(
        groups_.front().Resume(resumed.index, resumed.output));
  }
  MakeToolFilters();
  return absl::OkStatus();
}

asio::awaitable<absl::Status> Generation::SubmitAll() {
  for (PromptGroup& group : groups_) {
    group.FinishSpent();
    CARAVAN_CO_RETURN_IF_ERROR(
        co_await PlaceAndSubmit(group, /*may_wait=*/false));
  }
  co_return absl::OkStatus();
}

// --- The stream -------------------------------------------------------------

PromptGroup* Generation::GroupOf(uint64_t handle) {
  for (PromptGroup& group : groups_) {
    if (group.attached() && group.handle() == handle) return &group;
  }
  return nullptr;
}

absl::Status Generation::ApplyAll(InboxContents contents) {
  for (HandleEvents& events : contents.events) {
    PromptGroup* const group = GroupOf(events.handle);
    if (group == nullptr) continue;  // of a placement that was given up
    CARAVAN_ASSIGN_OR_RETURN(const int32_t tokens,
                             group->Apply(std::move(events)));
    if (tokens > 0) CountTokens(tokens);
    group->EndFinished();
  }
  return absl::OkStatus();
}

// Without tools there is nothing to look for.
void Generation::FilterToolCalls(StreamEvents& events) {
  if (tool_filters_.empty()) return;
  std::vector<ChoiceDelta> passed;
  for (ChoiceDelta& delta : events.deltas) {
    ToolCallFilter& filter =
        tool_filters_[delta.prompt * request_.n + delta.choice];
    if (auto out = filter.Apply(std::move(delta))) {
      passed.push_back(*std::move(out));
    }
  }
  events.deltas = std::move(passed);
}

StreamEvents Generation::TakeEvents() {
  StreamEvents events;
  bool complete = true;
  for (PromptGroup& group : groups_) {
    group.TakeEvents(events);
    complete = complete && group.complete() && group.ready();
  }
  FilterToolCalls(events);
  if (!started_sent_ && !events.prompts.empty()) {
    started_sent_ = true;
    ticket_.Release();  // its first answer is there: it is no longer starting
    const v1::ModelIdentity identity =
        first_identity_.value_or(models_.front()->identity());
    events.started = Started{
        request_.request_id,   facts_.name,
        sampling_.seed,        receipt::SystemFingerprint(identity, BuildId()),
        IdentityTag(identity), vocabulary_};
  }
  if (complete && started_sent_) events.finished = MakeFinished();
  return events;
}

Finished Generation::MakeFinished() const {
  Finished finished;
  for (const PromptGroup& group : groups_) {
    finished.prompt_token_count += static_cast<int32_t>(group.ids().size());
    finished.output_token_count += group.output_token_count();
    finished.cached_token_count += group.cached_token_count();
  }
  finished.receipt = MakeReceipt();
  finished.inexact_resumes = inexact_resumes_;
  return finished;
}

std::string Generation::MakeReceipt() const {
  v1::Receipt receipt;
  receipt.set_build(std::string(BuildId()));
  receipt.set_model(facts_.name);
  if (first_identity_) *receipt.mutable_identity() = *first_identity_;
  *receipt.mutable_sampling() = sampling::ToProto(sampling_);
  *receipt.mutable_stop() = sampling::ToProto(groups_.front().stop());
  // Several prompts are hashed as one, in order; so are more choices than a
  // receipt has room for, by leaving them out.
  std::vector<TokenId> ids;
  for (const PromptGroup& group : groups_) {
    ids.insert(ids.end(), group.ids().begin(), group.ids().end());
  }
  receipt.set_prompt_token_count(static_cast<int32_t>(ids.size()));
  receipt.set_prompt_sha256(receipt::Sha256OfIds(ids));
  const bool listed = groups_.size() * request_.n <= kMaxReceiptChoices;
  for (size_t g = 0; listed && g < groups_.size(); ++g) {
    for (const ChoiceStream& stream : groups_[g].choices()) {
      v1::ReceiptChoice& choice = *receipt.add_choices();
      choice.set_index(receipt.choices_size() - 1);
      choice.set_output_token_count(
          static_cast<int32_t>(stream.output().size()));
      choice.set_output_sha256(receipt::Sha256OfIds(stream.output()));
      choice.set_finish_reason(ToProto(stream.finish_reason()));
    }
  }
  for (const InexactResume& resume : inexact_resumes_) {
    v1::InexactResume& out = *receipt.add_inexact_resumes();
    out.set_numerics_class(resume.numerics_class);
    out.set_from_position(resume.from_position);
    out.set_choice(resume.choice);
  }
  absl::StatusOr<std::string> serialized =
      receipt::SerializeReceipt(std::move(receipt));
  if (serialized.ok()) return *std::move(serialized);
  LogError("receipt_failed", {{"request_id", request_.request_id},
                              {"cause", serialized.status()}});
  return "";
}

// --- Placement --------------------------------------------------------------

bool Generation::has_output() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const PromptGroup& g) { return g.has_output(); });
}

Patience Generation::PatienceFor(absl::Duration duration) const {
  Patience patience;
  patience.deadline =
      std::min(absl::Now() + duration,
               request_.deadline == absl::InfiniteFuture()
                   ? absl::InfiniteFuture()
                   : absl::Now() + (request_.deadline - context_.clock->Now()));
  patience.wanted = [inbox = inbox_] { return inbox->cancelled().ok(); };
  return patience;
}

asio::awaitable<absl::Status> Generation::RecoverAll() {
  for (PromptGroup& group : groups_) {
    if (!group.failure.ok()) {
      CARAVAN_CO_RETURN_IF_ERROR(co_await Recover(group));
    } else if (group.should_move && group.attached()) {
      co_await TryMove(group);
    }
  }
  co_return absl::OkStatus();
}

// What a failure counts, and whether it ends the request.
absl::Status Generation::CountFailure(PromptGroup& group) const {
  const Reason reason = ReasonOf(group.failure);
  if (!CanMove(reason)) return group.failure;
  const bool death = group.worker_died || reason == Reason::kNumericFault;
  group.deaths += death ? 1 : 0;
  group.attempts += 1;
  group.excluded.push_back(group.replica());
  if (group.deaths >= kMaxDeaths) {
    return MakeError(
        Reason::kSuspectRequest,
        StrCat("the request was running at ", group.deaths,
               " worker failures without a token in between; the last was: ",
               ToStd(group.failure.message())),
        {{"deaths", StrCat(group.deaths)}});
  }
  return group.attempts < kMaxAttempts ? absl::OkStatus() : group.failure;
}

asio::awaitable<absl::Status> Generation::Recover(PromptGroup& group) {
  CARAVAN_CO_RETURN_IF_ERROR(CountFailure(group));
  const Reason reason = ReasonOf(group.failure);
  context_.metrics->CountResume(ResumeCause(reason));
  LogInfo("stream_resumes", {{"request_id", request_.request_id},
                             {"output_tokens", group.output_token_count()},
                             {"attempt", group.attempts},
                             {"cause", group.failure}});
  const absl::Status cause = group.failure;
  group.FinishSpent();
  const absl::Status status = co_await PlaceAndSubmit(group, /*may_wait=*/true);
  // A worker that only was busy says more than that there is no other.
  const bool was_busy =
      reason == Reason::kQueueFull && MayPass(ReasonOf(status));
  co_return was_busy ? cause : status;
}

// To a replica of the class, if there is one; the worker runs on otherwise.
asio::awaitable<void> Generation::TryMove(PromptGroup& group) {
  group.should_move = false;
  const ReplicaLife draining = group.replica();
  group.excluded.push_back(draining);
  const absl::StatusOr<v1::Target> target =
      co_await FindPlace(group, /*same_identity=*/true);
  if (!target.ok() || !inbox_->cancelled().ok()) co_return;
  context_.metrics->CountResume("drained");
  group.Detach();
  group.failure = SubmitTo(group, *target);
}

asio::awaitable<absl::Status> Generation::PlaceAndSubmit(PromptGroup& group,
                                                         bool may_wait) {
  if (group.complete()) co_return absl::OkStatus();
  const absl::Time give_up = absl::Now() + context_.resume_patience;
  absl::Duration pause = kFirstPause;
  for (;;) {
    const absl::StatusOr<v1::Target> target =
        co_await FindPlaceOrInexact(group);
    CARAVAN_CO_RETURN_IF_ERROR(inbox_->cancelled());
    if (target.ok()) {
      const absl::Status submitted = SubmitTo(group, *target);
      if (submitted.ok()) co_return submitted;
      group.excluded.push_back({target->worker_id(), target->epoch()});
      if (++group.attempts >= kMaxAttempts) co_return submitted;
      continue;
    }
    const bool wait = may_wait && MayPass(ReasonOf(target.status())) &&
                      absl::Now() + pause < give_up;
    if (!wait) co_return target.status();
    co_await inbox_->Pause(pause);
    CARAVAN_CO_RETURN_IF_ERROR(inbox_->cancelled());
    pause = std::min(pause * 2, kLongestPause);
  }
}

asio::awaitable<absl::StatusOr<v1::Target>> Generation::FindPlace(
    PromptGroup& group, bool same_identity) {
  PlacementQuery query;
  query.request = &request_;
  query.model = facts_.name;
  query.identities = models_;
  if (same_identity) query.required_identity = WantedIdentity(group);
  group.Describe(query);
  const Patience patience = PatienceFor(context_.start_patience);
  co_return co_await context_.placement->Find(std::move(query), patience);
}

// The class in which the group has to go on: its own, else the request's.
std::optional<v1::ModelIdentity> Generation::WantedIdentity(
    const PromptGroup& group) const {
  if (group.identity) return group.identity;
  return first_identity_ ? first_identity_ : pinned_identity_;
}

// In the class of what was streamed; in another one where nothing was yet, or
// where the client allows it.
asio::awaitable<absl::StatusOr<v1::Target>> Generation::FindPlaceOrInexact(
    PromptGroup& group) {
  absl::StatusOr<v1::Target> target =
      co_await FindPlace(group, /*same_identity=*/true);
  const bool nothing_yet = !has_output() && !pinned_identity_;
  const bool free_to_choose =
      WantedIdentity(group) && (nothing_yet || request_.allow_inexact_resume) &&
      !target.ok() && ReasonOf(target.status()) == Reason::kNoReplicaOfClass;
  if (free_to_choose) {
    target = co_await FindPlace(group, /*same_identity=*/false);
  }
  co_return target;
}

// From here on another class computes the group's choices.
void Generation::MarkInexact(const PromptGroup& group,
                             const v1::ModelIdentity& identity) {
  for (size_t i = 0; i < group.choices().size(); ++i) {
    const ChoiceStream& choice = group.choices()[i];
    if (choice.finished()) continue;
    const InexactResume resume = {
        group.index() * request_.n + static_cast<int32_t>(i),
        static_cast<int32_t>(choice.output().size()),
        identity.numerics_class()};
    // One that gave no token leaves no mark.
    std::erase_if(inexact_resumes_, [&](const InexactResume& old) {
      return old.choice == resume.choice &&
             old.from_position == resume.from_position;
    });
    inexact_resumes_.push_back(resume);
  }
}

// The first placement fixes who computes; a later one in another class is
// recorded, unless nothing was computed before.
absl::Status Generation::AdoptIdentity(PromptGroup& group,
                                       const v1::Target& target) {
  const v1::ModelIdentity& identity = target.model().identity();
  if (identity.tokenizer_id() != models_.front()->identity().tokenizer_id()) {
    return MakeError(Reason::kIdentityMismatch,
                     StrCat("worker ", target.worker_id(), " serves ",
                            facts_.name, " with another tokenizer"));
  }
  const bool others_run =
      std::any_of(groups_.begin(), groups_.end(), [&](const PromptGroup& g) {
        return &g != &group && g.identity.has_value();
      });
  if (!first_identity_) {
    first_identity_ = pinned_identity_ ? pinned_identity_ : identity;
  } else if (!has_output() && !others_run && !pinned_identity_) {
    first_identity_ = identity;
  }
  const v1::ModelIdentity& before =
      group.identity ? *group.identity : *first_identity_;
  const bool moved =
      !SameIdentity(before, identity) &&
      (has_output() || !SameIdentity(*first_identity_, identity));
  if (moved) MarkInexact(group, identity);
  group.identity = identity;
  return absl::OkStatus();
}

absl::Status Generation::SubmitTo(PromptGroup& group,
                                  const v1::Target& target) {
  CARAVAN_ASSIGN_OR_RETURN(std::shared_ptr<WorkerSession> session,
                           context_.workers->Get(target.address()));
  CARAVAN_RETURN_IF_ERROR(AdoptIdentity(group, target));
  const uint64_t handle = context_.workers->NewHandle();
  if (!session->Submit(MakeSubmit(group, target, handle), inbox_)) {
    return MakeError(Reason::kWorkerLost, StrCat("session with worker ",
                                                 target.address(), " is over"));
  }
  group.Attach(std::move(session), handle, target);
  return absl::OkStatus();
}

v1::Submit Generation::MakeSubmit(const PromptGroup& group,
                                  const v1::Target& target,
                                  uint64_t handle) const {
  v1::Submit submit;
  submit.set_handle(handle);
  submit.set_request_id(request_.request_id);
  submit.set_idempotency_key(request_.idempotency_key);
  submit.set_tenant(request_.tenant);
  submit.set_priority(request_.priority);
  submit.set_traceparent(request_.traceparent);
  submit.set_epoch(target.epoch());
  *submit.mutable_sampling() = sampling::ToProto(sampling_);
  *submit.mutable_stop() = sampling::ToProto(group.stop());
  submit.mutable_stop()->clear_stop();  // found here, in text
  if (request_.deadline != absl::InfiniteFuture()) {
    const int64_t left_ms = std::max<int64_t>(
        1,
        absl::ToInt64Milliseconds(request_.deadline - context_.clock->Now()));
    submit.mutable_time_left()->set_seconds(left_ms / 1000);
    submit.mutable_time_left()->set_nanos(left_ms % 1000 * 1'000'000);
  }
  group.Describe(submit);
  PlacementQuery query;
  group.Describe(query);
  for (const v1::Feature feature : query.required_features) {
    submit.add_required_features(feature);
  }
  return submit;
}

// --- Measures ---------------------------------------------------------------

void Generation::CountTokens(int32_t count) {
  const absl::Time now = context_.clock->Now();
  context_.metrics->generated_tokens->Increment(count);
  if (!last_token_) {
    context_.metrics->first_token_seconds->Observe(
        absl::ToDoubleSeconds(now - arrival_));
  } else {
    context_.metrics->inter_token_seconds->Observe(
        absl::ToDoubleSeconds(now - *last_token_));
  }
  last_token_ = now;
}

void Generation::End(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  for (PromptGroup& group : groups_) group.Detach();
  ticket_.Release();
  GatewayMetrics& metrics = *context_.metrics;
  metrics.in_flight->Add(-1);
  metrics.CountRequest(request_.endpoint,
                       status.ok() ? "ok" : ReasonName(ReasonOf(status)));
  metrics.request_seconds->Observe(
      absl::ToDoubleSeconds(context_.clock->Now() - arrival_));
  for (const PromptGroup& group : groups_) {
    metrics.prompt_tokens->Increment(static_cast<double>(group.ids().size()));
    metrics.cached_tokens->Increment(group.cached_token_count());
  }
}

}  // namespace caravan::gateway
