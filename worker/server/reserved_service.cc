#include "worker/server/reserved_service.h"

#include <string_view>

#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

// A stream that ends at once.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(std::string_view method) {
    this->Finish(ToGrpcStatus(MakeError(
        Reason::kUnsupportedFeature,
        StrCat(method, " is reserved; this worker does not support it"),
        {{"method", std::string(method)}})));
  }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerBidiReactor<v1::StageRequest, v1::StageResponse>*
ReservedStageService::Run(grpc::CallbackServerContext*) {
  return new Refusal<
      grpc::ServerBidiReactor<v1::StageRequest, v1::StageResponse>>(
      "StageService.Run");
}

grpc::ServerWriteReactor<v1::FetchResponse>* ReservedKvService::Fetch(
    grpc::CallbackServerContext*, const v1::FetchRequest*) {
  return new Refusal<grpc::ServerWriteReactor<v1::FetchResponse>>(
      "KvService.Fetch");
}

}  // namespace caravan::worker
