#include "gateway/admission/limiter.h"

#include <algorithm>
#include <cmath>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

constexpr double kRateWindowSeconds = 10;
constexpr absl::Duration kLeastRetry = absl::Seconds(1);
constexpr absl::Duration kMostRetry = absl::Seconds(60);
// Tenants whose virtual time lies in the past are forgotten beyond this many.
constexpr size_t kMaxTenants = 4096;

}  // namespace

absl::StatusOr<TicketId> Limiter::Enqueue(const AdmissionRequest& request,
                                          absl::Time now) {
  const bool must_wait = starting_count_ >= options_.max_starting;
  if (must_wait && queued_count() >= options_.max_queued) {
    return WithRetryAfter(MakeError(Reason::kQueueFull,
                                    StrCat("at most ", options_.max_queued,
                                           " requests may wait; got one more"),
                                    {{"limit", StrCat(options_.max_queued)},
                                     {"queued", StrCat(queued_count())}}),
                          EstimateWait());
  }
  if (tenant_finish_.size() > kMaxTenants) {
    std::erase_if(tenant_finish_,
                  [this](const auto& t) { return t.second <= virtual_now_; });
  }
  double& finish = tenant_finish_[request.tenant];
  const double start = std::max(finish, virtual_now_);
  finish = start + request.cost / request.weight;
  const TicketId id = next_id_++;
  const Key key(-request.priority, start, id);
  queue_.emplace(key, id);
  tickets_.emplace(id, Ticket{key});
  return id;
}

std::vector<TicketId> Limiter::Start(absl::Time now) {
  std::vector<TicketId> started;
  while (!queue_.empty() && starting_count_ < options_.max_starting) {
    const auto first = queue_.begin();
    const TicketId id = first->second;
    virtual_now_ = std::max(virtual_now_, std::get<1>(first->first));
    queue_.erase(first);
    tickets_[id].starting = true;
    ++starting_count_;
    CountStart(now);
    started.push_back(id);
  }
  return started;
}

void Limiter::Release(TicketId id) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end()) return;
  if (it->second.starting) {
    --starting_count_;
  } else {
    queue_.erase(it->second.key);
  }
  tickets_.erase(it);
}

void Limiter::CountStart(absl::Time now) {
  const double elapsed =
      std::max(absl::ToDoubleSeconds(now - last_start_), 0.0);
  last_start_ = now;
  start_rate_ = start_rate_ * std::exp(-elapsed / kRateWindowSeconds) +
                1 / kRateWindowSeconds;
}

// Time until one place is free, were the queue to empty at the recent rate.
absl::Duration Limiter::EstimateWait() const {
  if (start_rate_ <= 0) return kMostRetry;
  const absl::Duration wait = absl::Seconds(queued_count() / start_rate_);
  return std::clamp(wait, kLeastRetry, kMostRetry);
}

}  // namespace caravan::gateway
