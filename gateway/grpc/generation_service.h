// The public gRPC API (caravan.v1.InferenceService).
#ifndef CARAVAN_GATEWAY_GRPC_GENERATION_SERVICE_H_
#define CARAVAN_GATEWAY_GRPC_GENERATION_SERVICE_H_

#include <boost/asio/io_context.hpp>

#include "absl/time/time.h"
#include "caravan/v1/inference.grpc.pb.h"
#include "gateway/admission/api_keys.h"
#include "gateway/pipeline.h"

namespace caravan::gateway {

struct GenerationServiceOptions {
  // A client that takes longer to read one message is cut off.
  absl::Duration write_timeout = absl::Seconds(30);
};

// Thread-safe. Requests run as coroutines on `context`'s threads, each on a
// strand of its own; all arguments must outlive the service.
class GenerationService final : public v1::InferenceService::CallbackService {
 public:
  GenerationService(Pipeline* pipeline, const ApiKeys* keys,
                    boost::asio::io_context* context,
                    GenerationServiceOptions options = {})
      : pipeline_(pipeline),
        keys_(keys),
        context_(context),
        options_(options) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context,
      const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context,
                                     const v1::GenerateRequest* request,
                                     v1::CompleteResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(
      grpc::CallbackServerContext* context,
      const v1::ListModelsRequest* request,
      v1::ListModelsResponse* response) override;

 private:
  // The stream for a call, with the caller's tenant and deadline.
  absl::StatusOr<std::shared_ptr<TokenStream>> Open(
      const grpc::CallbackServerContext& context,
      const v1::GenerateRequest& request, Endpoint endpoint);

  Pipeline* const pipeline_;
  const ApiKeys* const keys_;
  boost::asio::io_context* const context_;
  const GenerationServiceOptions options_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GRPC_GENERATION_SERVICE_H_
