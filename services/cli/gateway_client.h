// The gateway's gRPC door, as the CLI uses it.
#ifndef CARAVAN_SERVICES_CLI_GATEWAY_CLIENT_H_
#define CARAVAN_SERVICES_CLI_GATEWAY_CLIENT_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/inference.pb.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

// Thread-safe.
class GatewayClient {
 public:
  using OnEvent = std::function<void(const v1::GenerateResponse&)>;
  using OnDone = std::function<void(absl::Status)>;

  // Fails on unreadable TLS files; connects with the first call.
  static absl::StatusOr<std::unique_ptr<GatewayClient>> Create(
      const ClientOptions& options);
  ~GatewayClient();

  // Starts a stream. `on_event` gets its events one after the other on a
  // thread of gRPC, then `on_done` comes once. A stream that ends well
  // without `finished` is an error.
  void StartGenerate(const v1::GenerateRequest& request, OnEvent on_event,
                     OnDone on_done);

  // The same; returns at the end of the stream.
  absl::Status Generate(const v1::GenerateRequest& request, OnEvent on_event);

  absl::StatusOr<v1::ListModelsResponse> ListModels();

 private:
  struct Impl;
  explicit GatewayClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_GATEWAY_CLIENT_H_
