// The order in which queued requests start.
//
// Higher priority first. Within one, tenants share by weight: each has a
// virtual time, which its starts advance by cost over weight, and the least
// goes first. A tenant that comes back begins no earlier than the least of
// those that wait, never with what it did not use. Within a tenant first come
// first served.
//
// Not thread-safe.
#ifndef CARAVAN_GATEWAY_ADMISSION_FAIR_QUEUE_H_
#define CARAVAN_GATEWAY_ADMISSION_FAIR_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

namespace caravan::gateway {

using TicketId = uint64_t;  // ascending as they came

// A request, as the queue sees it.
struct QueuedRequest {
  int32_t priority = 0;
  std::string tenant;
  double weight = 1;  // of the tenant, > 0
};

class FairQueue {
 public:
  void Push(TicketId id, const QueuedRequest& request);
  // Where it is queued.
  void Remove(TicketId id);
  // Who starts next, of the tenants that may.
  std::optional<TicketId> Next(
      const std::function<bool(const std::string& tenant)>& may_start) const;
  // Takes it out, and charges its tenant.
  void Start(TicketId id, double cost);
  // What has started took `more` than it was charged; may be negative.
  void Correct(const QueuedRequest& request, double more);

  // Queued requests that start before one that comes now, if each costs
  // `mean_cost`.
  double CountAhead(const QueuedRequest& request, double mean_cost) const;

  int32_t size() const { return static_cast<int32_t>(requests_.size()); }

 private:
  // By tenant; none is empty.
  using Level = std::map<std::string, std::set<TicketId>>;
  struct Flow {
    double time = 0;  // virtual
    int32_t queued = 0;
    double weight = 1;
  };

  double StartsBefore(const std::string& tenant, size_t waiting,
                      const QueuedRequest& request, double mean_cost) const;
  void ForgetFlows();

  std::unordered_map<TicketId, QueuedRequest> requests_;
  std::map<int32_t, Level, std::greater<int32_t>> levels_;  // by priority
  std::unordered_map<std::string, Flow> flows_;             // by tenant
  double now_ = 0;  // least virtual time of those that wait
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_FAIR_QUEUE_H_
