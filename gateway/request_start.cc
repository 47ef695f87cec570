#include "gateway/request_start.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/sampling/proto.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/co_status.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

// Tokens that an output is expected to have at most, until it has ended.
constexpr double kExpectedOutput = 256;
// Of text, about.
constexpr double kBytesPerToken = 4;

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

double PromptCost(const PromptInput& prompt) {
  const auto* const ids = std::get_if<std::vector<TokenId>>(&prompt);
  return ids != nullptr
             ? static_cast<double>(ids->size())
             : static_cast<double>(TextBytes(prompt)) / kBytesPerToken;
}

// Tokens of prompts and outputs, as far as they can be known before prompts
// are encoded and outputs computed; settled when the request ends.
double CostOf(const GenerationRequest& request) {
  const double output = std::min<double>(
      request.stop.max_tokens.value_or(kExpectedOutput), kExpectedOutput);
  double cost = 1;
  for (const PromptInput& prompt : request.prompts) {
    cost += PromptCost(prompt) + output * request.n;
  }
  return cost;
}

}  // namespace

asio::awaitable<absl::Status> RequestStart::Run() {
  co_await ArmDeadline();
  CARAVAN_CO_RETURN_IF_ERROR(co_await FindModel());
  CARAVAN_CO_RETURN_IF_ERROR(co_await Admit());
  CARAVAN_CO_RETURN_IF_ERROR(co_await FetchVocabulary());
  CARAVAN_CO_RETURN_IF_ERROR(co_await Prepare());
  co_return MakeGroups();
}

// The worker knows the time that is left; this is for what waits elsewhere.
asio::awaitable<void> RequestStart::ArmDeadline() {
  if (run_.request.deadline == absl::InfiniteFuture()) co_return;
  run_.deadline_timer.emplace(co_await asio::this_coro::executor);
  run_.deadline_timer->expires_after(absl::ToChronoNanoseconds(
      run_.request.deadline - run_.context.clock->Now()));
  run_.deadline_timer->async_wait([inbox = run_.inbox](const auto& error) {
    if (error) return;
    inbox->Cancel(MakeError(Reason::kDeadlineExceeded,
                            "the time of the request is over"));
  });
}

asio::awaitable<absl::Status> RequestStart::FindModel() {
  absl::StatusOr<std::vector<ModelPtr>> models =
      co_await run_.context.directory->Find(run_.request.model);
  if (!models.ok()) co_return models.status();
  run_.models = *std::move(models);
  run_.facts = FactsOf(*run_.models.front());
  CARAVAN_CO_RETURN_IF_ERROR(CheckRequest(run_.request, run_.facts));
  run_.sampling = ResolveSampling(run_.request.sampling,
                                  run_.facts.default_sampling, DrawSeed());
  co_return PinIdentity();
}

// A client that has a part of the stream gets the rest from the same class.
absl::Status RequestStart::PinIdentity() {
  if (!run_.request.identity_tag) return absl::OkStatus();
  for (const ModelPtr& model : run_.models) {
    if (IdentityTag(model->identity()) != *run_.request.identity_tag) continue;
    run_.pinned_identity = model->identity();
    return absl::OkStatus();
  }
  if (run_.request.allow_inexact_resume) return absl::OkStatus();
  return MakeError(Reason::kNoReplicaOfClass,
                   StrCat("no replica of model ", run_.facts.name,
                          " is of the class that began the stream"),
                   {{"model", run_.facts.name}});
}

asio::awaitable<absl::Status> RequestStart::Admit() {
  AdmissionRequest admission;
  admission.tenant = run_.request.tenant;
  admission.weight = run_.request.tenant_weight;
  admission.priority = run_.request.priority;
  admission.cost = CostOf(run_.request);
  admission.deadline = run_.request.deadline;
  const absl::Time begin = run_.context.clock->Now();
  absl::StatusOr<AdmissionTicket> ticket =
      run_.context.admission->Enter(admission, run_.inbox);
  if (!ticket.ok()) co_return ticket.status();
  run_.ticket = *std::move(ticket);
  run_.context.metrics->queued->Add(1);
  for (bool admitted = false; !admitted && run_.inbox->cancelled().ok();) {
    const InboxContents contents = co_await run_.inbox->Wait();
    admitted = contents.admitted;
  }
  run_.context.metrics->queued->Add(-1);
  run_.context.metrics->queue_seconds->Observe(
      absl::ToDoubleSeconds(run_.context.clock->Now() - begin));
  if (run_.ticket.over_share()) run_.context.metrics->over_share->Increment();
  co_return run_.inbox->cancelled();
}

asio::awaitable<absl::Status> RequestStart::FetchVocabulary() {
  const Patience patience = run_.PatienceFor(run_.context.start_patience);
  const ModelPtr model = run_.models.front();
  auto vocabulary =
      co_await run_.context.directory->VocabularyOf(model, patience);
  CARAVAN_CO_RETURN_IF_ERROR(run_.inbox->cancelled());
  if (!vocabulary.ok()) co_return vocabulary.status();
  run_.vocabulary = *std::move(vocabulary);
  co_return absl::OkStatus();
}

std::string RequestStart::PromptField(size_t index) const {
  return run_.request.prompts.size() == 1 ? "prompt"
                                          : StrCat("prompt[", index, "]");
}

// Texts and conversations to ids, in one call for all prompts.
asio::awaitable<absl::Status> RequestStart::Prepare() {
  v1::PrepareRequest prepare;
  prepare.set_model(run_.facts.name);
  prompts_.resize(run_.request.prompts.size());
  std::vector<size_t> encoded;  // indices of prompts that are not ids yet
  for (size_t i = 0; i < run_.request.prompts.size(); ++i) {
    const PromptInput& prompt = run_.request.prompts[i];
    if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) {
      prompts_[i] = *ids;
      continue;
    }
    CARAVAN_CO_RETURN_IF_ERROR(
        CheckPromptText(PromptField(i), prompt, *run_.vocabulary, run_.facts));
    *prepare.add_inputs() = ToPrepareInput(prompt);
    encoded.push_back(i);
  }
  if (encoded.empty()) co_return absl::OkStatus();
  const Patience patience = run_.PatienceFor(run_.context.start_patience);
  const absl::StatusOr<v1::PrepareResponse> response =
      co_await run_.context.tokenizer->Prepare(prepare, patience);
  CARAVAN_CO_RETURN_IF_ERROR(run_.inbox->cancelled());
  if (!response.ok()) co_return response.status();
  if (response->tokenizer_id() !=
      run_.models.front()->identity().tokenizer_id()) {
    co_return MakeError(
        Reason::kIdentityMismatch,
        StrCat("the tokenizer service encodes for model ", run_.facts.name,
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

void RequestStart::AdoptAnswerEnd(const v1::PreparedPrompt& prompt) {
  if (run_.request.stop.ignore_eos) return;
  const std::vector<TokenId>& model_ends = run_.facts.end_ids;
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

absl::StatusOr<sampling::StopCriteria> RequestStart::StopOf(
    int32_t prompt_tokens) const {
  CARAVAN_ASSIGN_OR_RETURN(
      sampling::StopCriteria stop,
      ResolveStop(run_.request, run_.facts, prompt_tokens));
  stop.stop.insert(stop.stop.end(), format_stop_texts_.begin(),
                   format_stop_texts_.end());
  stop.stop_token_ids.insert(stop.stop_token_ids.end(), format_end_ids_.begin(),
                             format_end_ids_.end());
  return stop;
}

void RequestStart::MakeToolFilters() {
  std::string id;
  for (const char c : run_.request.request_id) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) id += c;
  }
  id.resize(std::min<size_t>(id.size(), 24));
  for (const PromptInput& prompt : run_.request.prompts) {
    const auto* const chat = std::get_if<Conversation>(&prompt);
    if (chat == nullptr || chat->tools.empty()) return;
    for (int32_t i = 0; i < run_.request.n; ++i) {
      run_.tool_filters.emplace_back(
          chat->tools, StrCat("call_", id, "_", run_.tool_filters.size(), "_"));
    }
  }
}

absl::Status RequestStart::MakeGroups() {
  std::vector<std::string> stop_texts = run_.request.stop.stop;
  stop_texts.insert(stop_texts.end(), format_stop_texts_.begin(),
                    format_stop_texts_.end());
  run_.choice_options.stop = StopTexts(std::move(stop_texts));
  run_.choice_options.end_ids.insert(format_end_ids_.begin(),
                                     format_end_ids_.end());
  run_.choice_options.min_tokens = run_.request.stop.min_tokens.value_or(0);
  run_.choice_options.include_stop =
      run_.request.stop.include_stop_str_in_output;
  run_.choice_options.end_ids.insert(run_.request.stop.stop_token_ids.begin(),
                                     run_.request.stop.stop_token_ids.end());
  if (!run_.request.stop.ignore_eos) {
    run_.choice_options.end_ids.insert(run_.facts.end_ids.begin(),
                                       run_.facts.end_ids.end());
  }
  run_.groups.reserve(prompts_.size());
  for (size_t i = 0; i < prompts_.size(); ++i) {
    PromptGroup::Init init;
    init.index = static_cast<int32_t>(i);
    init.ids = std::move(prompts_[i]);
    CARAVAN_RETURN_IF_ERROR(
        CheckPromptIds(PromptField(i), init.ids, run_.facts));
    CARAVAN_ASSIGN_OR_RETURN(init.stop,
                             StopOf(static_cast<int32_t>(init.ids.size())));
    init.n = run_.request.n;
    init.wants_scores = run_.sampling.prompt_logprob_count.has_value();
    init.wants_text = run_.request.echo;
    init.skip_special_tokens = run_.request.skip_special_tokens;
    run_.groups.emplace_back(std::move(init), *run_.vocabulary,
                             run_.choice_options);
  }
  for (const ResumedChoice& resumed : run_.request.resumed_choices) {
    CARAVAN_RETURN_IF_ERROR(
        run_.groups.front().Resume(resumed.index, resumed.output));
  }
  MakeToolFilters();
  return absl::OkStatus();
}

}  // namespace caravan::gateway
