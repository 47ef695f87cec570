// Where to begin among equal replicas.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_TURNS_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_TURNS_H_

#include <cstddef>
#include <cstdint>

namespace caravan::router {

// Drawn (splitmix64), so that routers which know the same of a fleet do not
// all send what comes next to the same replica. Not thread-safe.
class PolicyTurns {
 public:
  explicit PolicyTurns(uint64_t seed) : state_(seed) {}

  size_t Next() {
    state_ += 0x9E3779B97F4A7C15;
    uint64_t bits = state_;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
    return bits ^ (bits >> 31);
  }

 private:
  uint64_t state_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_TURNS_H_
