// Who a worker is and what it knows: fixed before it serves, told to gateways
// (Session, GetWorkerInfo) and routers (Register) alike.
//
// Thread-safe: plain data and pure functions.
#ifndef CARAVAN_WORKER_SERVER_WORKER_FACTS_H_
#define CARAVAN_WORKER_SERVER_WORKER_FACTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "caravan/v1/link.pb.h"
#include "caravan/v1/model.pb.h"
#include "caravan/v1/worker.pb.h"

namespace caravan::worker {

struct WorkerFacts {
  std::string worker_id;  // unique in the fleet
  std::string address;    // HOST:PORT that gateways reach
  uint64_t epoch = 0;     // random; another for each start
  v1::ModelInfo model;
  v1::MemoryPlan memory;
};

// What this build can be asked for in required_features.
std::span<const v1::Feature> KnownFeatures();

// Refuses the first feature of the list that this worker does not know:
// kUnsupportedFeature naming it (numbers that this build has no name for too).
absl::Status CheckFeatures(std::span<const int> required);

// The first message of every stream.
v1::Hello MakeHello(const WorkerFacts& facts);

// Whether the peer speaks a revision that this build speaks. Errors:
// kInvalidField for an empty or reversed range, kProtocolMismatch with both
// ranges.
absl::Status CheckHello(const v1::Hello& hello);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_WORKER_FACTS_H_
