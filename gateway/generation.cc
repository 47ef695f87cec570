#include "gateway/generation.h"

#include <utility>

#include "common/build_info.h"
#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "gateway/co_status.h"
#include "gateway/ending.h"
#include "gateway/request_start.h"

namespace caravan::gateway {

namespace asio = boost::asio;

Generation::Generation(const GenerationContext& context,
                       GenerationRequest request)
    : run_(context, std::move(request)) {
  run_.context.metrics->in_flight->Add(1);
}

Generation::~Generation() {
  if (ended_) return;
  const absl::Status cancelled = run_.inbox->cancelled();
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
    CARAVAN_CO_RETURN_IF_ERROR(co_await RequestStart(&run_).Run());
    CARAVAN_CO_RETURN_IF_ERROR(co_await placer_.SubmitAll());
  }
  for (;;) {
    StreamEvents events = TakeEvents();
    if (!events.empty()) co_return events;
    CARAVAN_CO_RETURN_IF_ERROR(co_await placer_.RecoverAll());
    InboxContents contents = co_await run_.inbox->Wait();
    CARAVAN_CO_RETURN_IF_ERROR(run_.inbox->cancelled());
    CARAVAN_CO_RETURN_IF_ERROR(ApplyAll(std::move(contents)));
  }
}

PromptGroup* Generation::GroupOf(uint64_t handle) {
  for (PromptGroup& group : run_.groups) {
    if (group.Hears(handle)) return &group;
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
    if (group->queued) run_.ticket.OnWaitAtWorker();
    group->EndFinished();
  }
  return absl::OkStatus();
}

// Without tools there is nothing to look for.
void Generation::FilterToolCalls(StreamEvents& events) {
  if (run_.tool_filters.empty()) return;
  std::vector<ChoiceDelta> passed;
  for (ChoiceDelta& delta : events.deltas) {
    ToolCallFilter& filter =
        run_.tool_filters[delta.prompt * run_.request.n + delta.choice];
    if (auto out = filter.Apply(std::move(delta))) {
      passed.push_back(*std::move(out));
    }
  }
  events.deltas = std::move(passed);
}

StreamEvents Generation::TakeEvents() {
  StreamEvents events;
  bool complete = true;
  for (PromptGroup& group : run_.groups) {
    group.TakeEvents(events);
    complete = complete && group.complete() && group.ready();
  }
  FilterToolCalls(events);
  if (!started_sent_ && !events.prompts.empty()) {
    started_sent_ = true;
    run_.ticket.OnFirstToken();
    const v1::ModelIdentity identity =
        run_.first_identity.value_or(run_.models.front()->identity());
    events.started = Started{run_.request.request_id,
                             run_.facts.name,
                             run_.sampling.seed,
                             receipt::SystemFingerprint(identity, BuildId()),
                             IdentityTag(identity),
                             run_.vocabulary};
  }
  if (complete && started_sent_) events.finished = MakeFinished(run_);
  return events;
}

void Generation::CountTokens(int32_t count) {
  const absl::Time now = run_.context.clock->Now();
  run_.context.metrics->generated_tokens->Increment(count);
  generated_tokens_ += count;
  if (!last_token_) {
    run_.context.metrics->first_token_seconds->Observe(
        absl::ToDoubleSeconds(now - run_.arrival));
  } else {
    run_.context.metrics->inter_token_seconds->Observe(
        absl::ToDoubleSeconds(now - *last_token_));
  }
  last_token_ = now;
}

// Its tenant is charged for what was computed, not for what was expected.
void Generation::SettleAdmission() {
  auto tokens = static_cast<double>(generated_tokens_);
  for (const PromptGroup& group : run_.groups) {
    tokens += static_cast<double>(group.ids().size());
  }
  run_.ticket.Settle(tokens);
  run_.ticket.Release();
}

void Generation::End(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  for (PromptGroup& group : run_.groups) group.Detach();
  SettleAdmission();
  GatewayMetrics& metrics = *run_.context.metrics;
  metrics.in_flight->Add(-1);
  metrics.CountRequest(run_.request.endpoint,
                       status.ok() ? "ok" : ReasonName(ReasonOf(status)));
  metrics.request_seconds->Observe(
      absl::ToDoubleSeconds(run_.context.clock->Now() - run_.arrival));
  for (const PromptGroup& group : run_.groups) {
    metrics.prompt_tokens->Increment(static_cast<double>(group.ids().size()));
    metrics.cached_tokens->Increment(group.cached_token_count());
  }
}

}  // namespace caravan::gateway
