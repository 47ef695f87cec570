// Asks where a prompt should run.
#ifndef CARAVAN_GATEWAY_PLACEMENT_H_
#define CARAVAN_GATEWAY_PLACEMENT_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "caravan/v1/router.pb.h"
#include "gateway/backend/model_directory.h"
#include "gateway/backend/router_client.h"
#include "gateway/backend/worker_client.h"
#include "gateway/request.h"

namespace caravan::gateway {

// A replica in one of its lives.
struct ReplicaLife {
  std::string worker_id;
  uint64_t epoch = 0;
  bool operator==(const ReplicaLife&) const = default;
};

struct PlacementQuery {
  const GenerationRequest* request = nullptr;
  std::string model;
  std::vector<ModelPtr> identities;  // that the model is known to have
  std::vector<TokenId> ids;          // prompt and output so far
  int32_t prompt_tokens = 0;         // of the original prompt
  int32_t expected_output_tokens = 0;
  std::vector<v1::Feature> required_features;
  std::optional<v1::ModelIdentity> required_identity;
  std::vector<ReplicaLife> excluded;
};

// Thread-safe.
class Placement {
 public:
  // All must outlive it.
  Placement(RouterClient* router, const ModelDirectory* directory,
            WorkerClient* workers)
      : router_(router), directory_(directory), workers_(workers) {}

  // The best replica that is not excluded. A replica that came back in a new
  // epoch is a new one. While no router answers, or one that has just started
  // knows nobody, the last known replicas are used. Errors: kNoReplica,
  // kNoReplicaOfClass, kRouterUnavailable, kModelNotFound.
  boost::asio::awaitable<absl::StatusOr<v1::Target>> Find(PlacementQuery query,
                                                          Patience patience);

 private:
  boost::asio::awaitable<absl::StatusOr<v1::Target>> Ask(
      const PlacementQuery& query, Patience patience);
  std::optional<v1::Target> LastKnown(const PlacementQuery& query,
                                      bool sessions_only) const;

  RouterClient* const router_;
  const ModelDirectory* const directory_;
  WorkerClient* const workers_;
};

// The question as the router takes it. Pure.
v1::PlaceRequest MakePlaceRequest(const PlacementQuery& query);

// Weights, class and fingerprint in 64 bits.
uint64_t IdentityTag(const v1::ModelIdentity& identity);

// Whether both can continue each other's streams.
bool SameIdentity(const v1::ModelIdentity& a, const v1::ModelIdentity& b);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_PLACEMENT_H_
