#include "gateway/admission/limiter.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

constexpr absl::Duration kLeastRetry = absl::Seconds(1);
constexpr absl::Duration kMostRetry = absl::Seconds(60);
// Of an exponential mean: what the newest counts for.
constexpr double kNewest = 0.1;
// Starts per second below which they tell nothing.
constexpr double kLeastRate = 1e-3;

absl::Status Later(absl::Status status, absl::Duration delay) {
  return WithRetryAfter(std::move(status),
                        std::clamp(delay, kLeastRetry, kMostRetry));
}

// Time for `count` starts; infinite where there were none lately.
absl::Duration TimeOf(double count, double per_second) {
  return per_second > 0 ? absl::Seconds(count / per_second)
                        : absl::InfiniteDuration();
}

}  // namespace

absl::StatusOr<TicketId> Limiter::Enqueue(const AdmissionRequest& request,
                                          absl::Time now) {
  // What is refused was asked for as well.
  shares_.Ask(request.tenant, request.weight, request.cost, now);
  const QueuedRequest queued{.priority = request.priority,
                             .tenant = request.tenant,
                             .weight = request.weight};
  CARAVAN_RETURN_IF_ERROR(CheckRoom(request, queued, now));
  const TicketId id = next_id_++;
  queue_.Push(id, queued);
  tickets_.emplace(
      id, Ticket{.request = queued, .cost = request.cost, .start = now});
  return id;
}

// Whether the request starts at once, or the queue takes it and it can wait as
// long as it has to.
absl::Status Limiter::CheckRoom(const AdmissionRequest& request,
                                const QueuedRequest& queued, absl::Time now) {
  if (starting_count() < options_.max_starting &&
      MayStart(request.tenant, now)) {
    return absl::OkStatus();
  }
  if (queued_count() >= options_.max_queued) {
    return Later(MakeError(Reason::kQueueFull,
                           StrCat("at most ", options_.max_queued,
                                  " requests may wait; got one more"),
                           {{"limit", StrCat(options_.max_queued)},
                            {"queued", StrCat(queued_count())}}),
                 TimeOf(queued_count(), starts_.PerSecond(now)));
  }
  if (request.deadline == absl::InfiniteFuture()) return absl::OkStatus();
  const absl::Duration expected = ExpectedWait(queued, now);
  const absl::Duration left = request.deadline - now;
  if (expected <= left) return absl::OkStatus();
  const std::string expected_ms = StrCat(absl::ToInt64Milliseconds(expected));
  const std::string left_ms = StrCat(absl::ToInt64Milliseconds(left));
  return Later(
      MakeError(Reason::kQueueFull,
                StrCat("the time of the request must reach to its first "
                       "token, in about ",
                       expected_ms, " ms; got ", left_ms, " ms"),
                {{"expected_ms", expected_ms}, {"left_ms", left_ms}}),
      expected - left);
}

// Until the first token, as things go; zero where nothing has started lately.
absl::Duration Limiter::ExpectedWait(const QueuedRequest& request,
                                     absl::Time now) const {
  const double rate = starts_.PerSecond(now);
  if (rate < kLeastRate) return absl::ZeroDuration();
  return TimeOf(queue_.CountAhead(request, mean_cost_) + 1, rate) +
         mean_start_time_;
}

bool Limiter::MayStart(const std::string& tenant, absl::Time now) {
  if (tenant.empty()) return true;
  if (shares_.OverShare(tenant, now)) {
    return over_share_.starting < over_share_window();
  }
  const auto it = starting_of_.find(tenant);
  return it == starting_of_.end() || it->second < tenant_window();
}

std::vector<TicketId> Limiter::Start(absl::Time now) {
  const auto may_start = [this, now](const std::string& tenant) {
    return MayStart(tenant, now);
  };
  std::vector<TicketId> started;
  while (starting_count() < options_.max_starting) {
    const std::optional<TicketId> id = queue_.Next(may_start);
    if (!id) break;
    StartNow(*id, now);
    started.push_back(*id);
  }
  return started;
}

void Limiter::StartNow(TicketId id, absl::Time now) {
  Ticket& ticket = tickets_.at(id);
  queue_.Start(id, ticket.cost);
  ticket.state = State::kStarting;
  ticket.start = now;
  const std::string& tenant = ticket.request.tenant;
  ticket.over_share = shares_.OverShare(tenant, now);
  ++LaneOf(ticket).starting;
  if (!ticket.over_share) ++starting_of_[tenant];
  starts_.Count(now);
  mean_cost_ += kNewest * (ticket.cost - mean_cost_);
}

bool Limiter::over_share(TicketId id) const {
  const auto it = tickets_.find(id);
  return it != tickets_.end() && it->second.over_share;
}

void Limiter::OnWaitAtWorker(TicketId id) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end() || it->second.state != State::kStarting) return;
  Ticket& ticket = it->second;
  if (std::exchange(ticket.waited_at_worker, true)) return;
  Lane& lane = LaneOf(ticket);
  lane.window.OnWait(++lane.waiting);
}

void Limiter::OnFirstToken(TicketId id, absl::Time now) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end() || it->second.state != State::kStarting) return;
  Ticket& ticket = it->second;
  Lane& lane = LaneOf(ticket);
  if (!ticket.waited_at_worker) lane.window.OnPrompt(lane.starting);
  LeaveStarting(ticket);
  ticket.state = State::kRunning;
  const absl::Duration took = now - ticket.start;
  const bool first = mean_start_time_ == absl::ZeroDuration();
  mean_start_time_ += (first ? 1 : kNewest) * (took - mean_start_time_);
}

void Limiter::LeaveStarting(const Ticket& ticket) {
  Lane& lane = LaneOf(ticket);
  --lane.starting;
  if (ticket.waited_at_worker) --lane.waiting;
  if (ticket.over_share) return;
  const auto it = starting_of_.find(ticket.request.tenant);
  if (--it->second == 0) starting_of_.erase(it);
}

void Limiter::Settle(TicketId id, double cost, absl::Time now) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end() || it->second.state == State::kQueued) return;
  Ticket& ticket = it->second;
  const double more = cost - std::exchange(ticket.cost, cost);
  queue_.Correct(ticket.request, more);
  shares_.Correct(ticket.request.tenant, more, now);
}

void Limiter::Release(TicketId id) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end()) return;
  if (it->second.state == State::kQueued) queue_.Remove(id);
  if (it->second.state == State::kStarting) LeaveStarting(it->second);
  tickets_.erase(it);
}

}  // namespace caravan::gateway
