// Services that are on the wire from the first day and not yet behind it:
// every call is refused by name, so that a peer learns what is missing instead
// of "method not found".
#ifndef CARAVAN_WORKER_SERVER_RESERVED_SERVICE_H_
#define CARAVAN_WORKER_SERVER_RESERVED_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "caravan/v1/kv.grpc.pb.h"
#include "caravan/v1/stage.grpc.pb.h"

namespace caravan::worker {

// Thread-safe. Errors: kUnsupportedFeature.
class ReservedStageService final : public v1::StageService::CallbackService {
 public:
  grpc::ServerBidiReactor<v1::StageRequest, v1::StageResponse>* Run(
      grpc::CallbackServerContext* call) override;
};

// Thread-safe. Errors: kUnsupportedFeature.
class ReservedKvService final : public v1::KvService::CallbackService {
 public:
  grpc::ServerWriteReactor<v1::FetchResponse>* Fetch(
      grpc::CallbackServerContext* call,
      const v1::FetchRequest* request) override;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_RESERVED_SERVICE_H_
