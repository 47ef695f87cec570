#include "services/cli/gateway_client.h"

#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/synchronization/notification.h"
#include "caravan/v1/inference.grpc.pb.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "services/cli/unary_client.h"

namespace caravan::cli {
namespace {

// One stream; deletes itself when gRPC is done with it.
class GenerateCall final
    : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  GenerateCall(const ClientOptions& options, const v1::GenerateRequest& request,
               GatewayClient::OnEvent on_event, GatewayClient::OnDone on_done)
      : request_(request),
        on_event_(std::move(on_event)),
        on_done_(std::move(on_done)) {
    PrepareContext(options, context_);
  }

  void Start(v1::InferenceService::Stub& stub) {
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    finished_ = finished_ || event_.has_finished();
    on_event_(event_);
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    absl::Status result = FromGrpcStatus(status);
    if (result.ok() && !finished_) {
      result =
          MakeError(Reason::kInternal, "the stream ended without a finish");
    }
    const GatewayClient::OnDone on_done = std::move(on_done_);
    delete this;
    on_done(std::move(result));
  }

 private:
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  const GatewayClient::OnEvent on_event_;
  GatewayClient::OnDone on_done_;
  v1::GenerateResponse event_;
  bool finished_ = false;
};

}  // namespace

struct GatewayClient::Impl {
  ClientOptions options;
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

GatewayClient::GatewayClient(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
GatewayClient::~GatewayClient() = default;

absl::StatusOr<std::unique_ptr<GatewayClient>> GatewayClient::Create(
    const ClientOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const auto channel, OpenChannel(options));
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->stub = v1::InferenceService::NewStub(channel);
  return absl::WrapUnique(new GatewayClient(std::move(impl)));
}

void GatewayClient::StartGenerate(const v1::GenerateRequest& request,
                                  OnEvent on_event, OnDone on_done) {
  auto* const call = new GenerateCall(impl_->options, request,
                                      std::move(on_event), std::move(on_done));
  call->Start(*impl_->stub);
}

absl::Status GatewayClient::Generate(const v1::GenerateRequest& request,
                                     OnEvent on_event) {
  absl::Status result;
  absl::Notification done;
  StartGenerate(request, std::move(on_event), [&](absl::Status status) {
    result = std::move(status);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

absl::StatusOr<v1::ListModelsResponse> GatewayClient::ListModels() {
  const v1::ListModelsRequest request;
  return CallAndWait<v1::ListModelsResponse>(
      impl_->options, [&](auto* context, auto* response, auto done) {
        impl_->stub->async()->ListModels(context, &request, response, done);
      });
}

}  // namespace caravan::cli
