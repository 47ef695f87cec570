#include "gateway/group_placer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/kv/block_hash.h"
#include "common/log.h"
#include "common/sampling/params.h"
#include "common/sampling/proto.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/co_status.h"
#include "gateway/resume_policy.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(1);

// Fewer positions than these are computed within a step or two: nothing that a
// client would notice.
constexpr int32_t kLeastWarmup = 64;
// How long a move waits for its target: a worker that drains wants to go.
constexpr absl::Duration kWarmupPatience = absl::Milliseconds(500);

// Output tokens that each choice has, as choice:count.
std::string OutputsOf(const PromptGroup& group) {
  std::string list;
  for (size_t i = 0; i < group.choices().size(); ++i) {
    StrAppend(&list, i == 0 ? "" : ",", i, ":",
              group.choices()[i].output().size());
  }
  return list;
}

}  // namespace

asio::awaitable<absl::Status> GroupPlacer::SubmitAll() {
  for (PromptGroup& group : run_.groups) {
    group.FinishSpent();
    CARAVAN_CO_RETURN_IF_ERROR(
        co_await PlaceAndSubmit(group, /*may_wait=*/false));
  }
  co_return absl::OkStatus();
}

asio::awaitable<absl::Status> GroupPlacer::RecoverAll() {
  for (PromptGroup& group : run_.groups) {
    if (!group.failure.ok()) {
      CARAVAN_CO_RETURN_IF_ERROR(co_await Recover(group));
    } else if (group.should_move && group.attached()) {
      co_await TryMove(group);
    } else if (const auto target = group.TakeWarmTarget(absl::Now())) {
      Move(group, *target);
    }
  }
  co_return absl::OkStatus();
}

asio::awaitable<absl::Status> GroupPlacer::Recover(PromptGroup& group) {
  CARAVAN_CO_RETURN_IF_ERROR(CountFailure(group));
  const Reason reason = ReasonOf(group.failure);
  run_.context.metrics->CountResume(ResumeCause(reason));
  LogInfo("stream_resumes", {{"request_id", run_.request.request_id},
                             {"output_tokens", group.output_token_count()},
                             {"outputs", OutputsOf(group)},
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
asio::awaitable<void> GroupPlacer::TryMove(PromptGroup& group) {
  group.should_move = false;
  const ReplicaLife draining = group.replica();
  group.excluded.push_back(draining);
  const absl::StatusOr<v1::Target> target =
      co_await FindPlace(group, /*same_identity=*/true);
  if (!target.ok() || !run_.inbox->cancelled().ok()) co_return;
  if (!StartWarmup(group, *target)) Move(group, *target);
}

// The target computes what is known now, while the stream goes on; behind all
// that its clients wait for. False where that is not worth it.
bool GroupPlacer::StartWarmup(PromptGroup& group, const v1::Target& target) {
  const int32_t known = static_cast<int32_t>(group.ids().size()) +
                        group.output_token_count() -
                        target.matched_block_count() * kv::kBlockTokens;
  if (group.choices().size() > 1 || known < kLeastWarmup) return false;
  absl::StatusOr<std::shared_ptr<WorkerSession>> session =
      run_.context.workers->Get(target.address());
  if (!session.ok()) return false;
  const uint64_t handle = run_.context.workers->NewHandle();
  if (!(*session)->Submit(MakeWarmup(group, target, handle), run_.inbox)) {
    return false;
  }
  group.BeginWarmup({.session = *std::move(session),
                     .handle = handle,
                     .target = target,
                     .give_up = absl::Now() + kWarmupPatience});
  return true;
}

// A prompt of all that is known, of which nothing is wanted.
v1::Submit GroupPlacer::MakeWarmup(const PromptGroup& group,
                                   const v1::Target& target,
                                   uint64_t handle) const {
  v1::Submit submit = MakeSubmit(group, target, handle);
  submit.set_request_id(StrCat(run_.request.request_id, "/warm-up"));
  submit.clear_idempotency_key();
  submit.set_priority(std::max(-sampling::kMaxPriority, submit.priority() - 1));
  submit.mutable_sampling()->clear_prompt_logprob_count();
  submit.mutable_stop()->set_max_tokens(0);
  submit.mutable_stop()->set_min_tokens(0);
  v1::SubmitChoice& choice = *submit.mutable_choices(0);
  submit.mutable_prompt(0)->mutable_tokens()->mutable_token_ids()->Add(
      choice.output_token_ids().begin(), choice.output_token_ids().end());
  choice.clear_output_token_ids();
  return submit;
}

void GroupPlacer::Move(PromptGroup& group, const v1::Target& target) {
  run_.context.metrics->CountResume("drained");
  LogInfo("stream_moves", {{"request_id", run_.request.request_id},
                           {"output_tokens", group.output_token_count()},
                           {"outputs", OutputsOf(group)}});
  group.Detach();
  group.failure = SubmitTo(group, target);
}

asio::awaitable<absl::Status> GroupPlacer::PlaceAndSubmit(PromptGroup& group,
                                                          bool may_wait) {
  if (group.complete()) co_return absl::OkStatus();
  const absl::Time give_up = absl::Now() + run_.context.resume_patience;
  absl::Duration pause = kFirstPause;
  for (;;) {
    const absl::StatusOr<v1::Target> target =
        co_await FindPlaceOrInexact(group);
    CARAVAN_CO_RETURN_IF_ERROR(run_.inbox->cancelled());
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
    co_await run_.inbox->Pause(pause);
    CARAVAN_CO_RETURN_IF_ERROR(run_.inbox->cancelled());
    pause = std::min(pause * 2, kLongestPause);
  }
}

asio::awaitable<absl::StatusOr<v1::Target>> GroupPlacer::FindPlace(
    PromptGroup& group, bool same_identity) {
  PlacementQuery query;
  query.request = &run_.request;
  query.model = run_.facts.name;
  query.identities = run_.models;
  if (same_identity) query.required_identity = WantedIdentity(group);
  group.Describe(query);
  const Patience patience = run_.PatienceFor(run_.context.start_patience);
  co_return co_await run_.context.placement->Find(std::move(query), patience);
}

// The class in which the group has to go on: its own, else the request's.
std::optional<v1::ModelIdentity> GroupPlacer::WantedIdentity(
    const PromptGroup& group) const {
  if (group.identity) return group.identity;
  return run_.first_identity ? run_.first_identity : run_.pinned_identity;
}

// In the class of what was streamed; in another one where nothing was yet, or
// where the client allows it.
asio::awaitable<absl::StatusOr<v1::Target>> GroupPlacer::FindPlaceOrInexact(
    PromptGroup& group) {
  absl::StatusOr<v1::Target> target =
      co_await FindPlace(group, /*same_identity=*/true);
  const bool nothing_yet = !run_.has_output() && !run_.pinned_identity;
  const bool free_to_choose =
      WantedIdentity(group) &&
      (nothing_yet || run_.request.allow_inexact_resume) && !target.ok() &&
      ReasonOf(target.status()) == Reason::kNoReplicaOfClass;
  if (free_to_choose) {
    target = co_await FindPlace(group, /*same_identity=*/false);
  }
  co_return target;
}

// From here on another class computes the group's choices.
void GroupPlacer::MarkInexact(const PromptGroup& group,
                              const v1::ModelIdentity& identity) {
  for (size_t i = 0; i < group.choices().size(); ++i) {
    const ChoiceStream& choice = group.choices()[i];
    if (choice.finished()) continue;
    const InexactResume resume = {
        group.index() * run_.request.n + static_cast<int32_t>(i),
        static_cast<int32_t>(choice.output().size()),
        identity.numerics_class()};
    // One that gave no token leaves no mark.
    std::erase_if(run_.inexact_resumes, [&](const InexactResume& old) {
      return old.choice == resume.choice &&
             old.from_position == resume.from_position;
    });
    run_.inexact_resumes.push_back(resume);
  }
}

// The first placement fixes who computes; a later one in another class is
// recorded, unless nothing was computed before.
absl::Status GroupPlacer::AdoptIdentity(PromptGroup& group,
                                        const v1::Target& target) {
  const v1::ModelIdentity& identity = target.model().identity();
  if (identity.tokenizer_id() !=
      run_.models.front()->identity().tokenizer_id()) {
    return MakeError(Reason::kIdentityMismatch,
                     StrCat("worker ", target.worker_id(), " serves ",
                            run_.facts.name, " with another tokenizer"));
  }
  const bool others_run = std::any_of(
      run_.groups.begin(), run_.groups.end(), [&](const PromptGroup& g) {
        return &g != &group && g.identity.has_value();
      });
  if (!run_.first_identity) {
    run_.first_identity =
        run_.pinned_identity ? run_.pinned_identity : identity;
  } else if (!run_.has_output() && !others_run && !run_.pinned_identity) {
    run_.first_identity = identity;
  }
  const v1::ModelIdentity& before =
      group.identity ? *group.identity : *run_.first_identity;
  const bool moved =
      !SameIdentity(before, identity) &&
      (run_.has_output() || !SameIdentity(*run_.first_identity, identity));
  if (moved) MarkInexact(group, identity);
  group.identity = identity;
  return absl::OkStatus();
}

absl::Status GroupPlacer::SubmitTo(PromptGroup& group,
                                   const v1::Target& target) {
  CARAVAN_ASSIGN_OR_RETURN(std::shared_ptr<WorkerSession> session,
                           run_.context.workers->Get(target.address()));
  CARAVAN_RETURN_IF_ERROR(AdoptIdentity(group, target));
  const uint64_t handle = run_.context.workers->NewHandle();
  if (!session->Submit(MakeSubmit(group, target, handle), run_.inbox)) {
    return MakeError(Reason::kWorkerLost, StrCat("session with worker ",
                                                 target.address(), " is over"));
  }
  run_.ticket.OnPlaced(target.worker_id());
  group.Attach(std::move(session), handle, target);
  return absl::OkStatus();
}

v1::Submit GroupPlacer::MakeSubmit(const PromptGroup& group,
                                   const v1::Target& target,
                                   uint64_t handle) const {
  v1::Submit submit;
  submit.set_handle(handle);
  submit.set_request_id(run_.request.request_id);
  submit.set_idempotency_key(run_.request.idempotency_key);
  submit.set_tenant(run_.request.tenant);
  submit.set_priority(run_.request.priority);
  submit.set_over_share(run_.ticket.over_share());
  submit.set_traceparent(run_.request.traceparent);
  submit.set_epoch(target.epoch());
  *submit.mutable_sampling() = sampling::ToProto(run_.sampling);
  *submit.mutable_stop() = sampling::ToProto(group.stop());
  submit.mutable_stop()->clear_stop();  // found here, in text
  if (run_.request.deadline != absl::InfiniteFuture()) {
    const int64_t left_ms = std::max<int64_t>(
        1, absl::ToInt64Milliseconds(run_.request.deadline -
                                     run_.context.clock->Now()));
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

}  // namespace caravan::gateway
