// Places the groups of a request, and again where a placement failed.
#ifndef CARAVAN_GATEWAY_GROUP_PLACER_H_
#define CARAVAN_GATEWAY_GROUP_PLACER_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/router.pb.h"
#include "caravan/v1/worker.pb.h"
#include "gateway/running_request.h"

namespace caravan::gateway {

// Not thread-safe.
class GroupPlacer {
 public:
  // `run` must outlive it.
  explicit GroupPlacer(RunningRequest* run) : run_(*run) {}

  // The first placement of all groups. Does not wait for a replica where there
  // is none.
  boost::asio::awaitable<absl::Status> SubmitAll();

  // Places again what has failed, with the output so far, and moves what has to
  // move. Not OK where the request ends with it: see resume_policy.h.
  boost::asio::awaitable<absl::Status> RecoverAll();

 private:
  boost::asio::awaitable<absl::Status> Recover(PromptGroup& group);
  boost::asio::awaitable<void> TryMove(PromptGroup& group);
  bool StartWarmup(PromptGroup& group, const v1::Target& target);
  void Move(PromptGroup& group, const v1::Target& target);
  boost::asio::awaitable<absl::Status> PlaceAndSubmit(PromptGroup& group,
                                                      bool may_wait);
  boost::asio::awaitable<absl::StatusOr<v1::Target>> FindPlace(
      PromptGroup& group, bool same_identity);
  boost::asio::awaitable<absl::StatusOr<v1::Target>> FindPlaceOrInexact(
      PromptGroup& group);
  absl::Status SubmitTo(PromptGroup& group, const v1::Target& target);
  std::optional<v1::ModelIdentity> WantedIdentity(
      const PromptGroup& group) const;
  absl::Status AdoptIdentity(PromptGroup& group, const v1::Target& target);
  void MarkInexact(const PromptGroup& group, const v1::ModelIdentity& identity);
  v1::Submit MakeWarmup(const PromptGroup& group, const v1::Target& target,
                        uint64_t handle) const;
  v1::Submit MakeSubmit(const PromptGroup& group, const v1::Target& target,
                        uint64_t handle) const;

  RunningRequest& run_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GROUP_PLACER_H_
