#include "gateway/admission/fair_queue.h"

#include <algorithm>
#include <cstddef>

namespace caravan::gateway {
namespace {

// Flows that say nothing any more are forgotten beyond this many.
constexpr size_t kMostFlows = 4096;

}  // namespace

void FairQueue::Push(TicketId id, const QueuedRequest& request) {
  ForgetFlows();
  Flow& flow = flows_[request.tenant];
  if (flow.queued++ == 0) flow.time = std::max(flow.time, now_);
  flow.weight = request.weight;
  levels_[request.priority][request.tenant].insert(id);
  requests_.emplace(id, request);
}

void FairQueue::Remove(TicketId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  const QueuedRequest& request = it->second;
  const auto level = levels_.find(request.priority);
  const auto waiting = level->second.find(request.tenant);
  waiting->second.erase(id);
  if (waiting->second.empty()) level->second.erase(waiting);
  if (level->second.empty()) levels_.erase(level);
  --flows_.at(request.tenant).queued;
  requests_.erase(it);
}

std::optional<TicketId> FairQueue::Next(
    const std::function<bool(const std::string& tenant)>& may_start) const {
  for (const auto& [priority, level] : levels_) {
    std::optional<TicketId> next;
    double least = 0;
    for (const auto& [tenant, waiting] : level) {
      const double time = flows_.at(tenant).time;
      if ((next && time >= least) || !may_start(tenant)) continue;
      next = *waiting.begin();
      least = time;
    }
    if (next) return next;
  }
  return std::nullopt;
}

void FairQueue::Start(TicketId id, double cost) {
  const QueuedRequest& request = requests_.at(id);
  Flow& flow = flows_.at(request.tenant);
  double least = flow.time;
  for (const auto& [tenant, other] : flows_) {
    if (other.queued > 0) least = std::min(least, other.time);
  }
  now_ = std::max(now_, least);
  flow.time += cost / request.weight;
  Remove(id);
}

void FairQueue::Correct(const QueuedRequest& request, double more) {
  const auto it = flows_.find(request.tenant);
  if (it != flows_.end()) it->second.time += more / request.weight;
}

double FairQueue::CountAhead(const QueuedRequest& request,
                             double mean_cost) const {
  double ahead = 0;
  for (const auto& [priority, level] : levels_) {
    if (priority < request.priority) break;
    for (const auto& [tenant, waiting] : level) {
      ahead += priority > request.priority
                   ? static_cast<double>(waiting.size())
                   : StartsBefore(tenant, waiting.size(), request, mean_cost);
    }
  }
  return ahead;
}

// Of what waits of a tenant: how much starts before the request, which comes
// behind what its own tenant has in the queue.
double FairQueue::StartsBefore(const std::string& tenant, size_t waiting,
                               const QueuedRequest& request,
                               double mean_cost) const {
  const auto size = static_cast<double>(waiting);
  if (tenant == request.tenant) return size;
  const auto own = flows_.find(request.tenant);
  const double before =
      own == flows_.end() ? 0 : static_cast<double>(own->second.queued);
  const double turn =
      std::max(now_, own == flows_.end() ? 0 : own->second.time) +
      before * mean_cost / request.weight;
  const Flow& other = flows_.at(tenant);
  return std::clamp((turn - other.time) * other.weight / mean_cost, 0.0, size);
}

void FairQueue::ForgetFlows() {
  if (flows_.size() < kMostFlows) return;
  std::erase_if(flows_, [this](const auto& entry) {
    return entry.second.queued == 0 && entry.second.time <= now_;
  });
}

}  // namespace caravan::gateway
