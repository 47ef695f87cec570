#include <atomic>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "services/cli/gateway_client.h"
#include "services/cli/load_clients.h"

namespace caravan::cli {
namespace {

v1::GenerateRequest MakeRequest(const LoadClientOptions& load,
                                const LoadRequest& request) {
  v1::GenerateRequest message;
  message.set_model(load.model);
  message.mutable_token_ids()->mutable_token_ids()->Add(
      request.prompt_ids.begin(), request.prompt_ids.end());
  message.mutable_sampling()->set_seed(request.seed);
  message.mutable_sampling()->set_temperature(load.temperature);
  message.mutable_stop()->set_max_tokens(request.output_tokens);
  message.mutable_stop()->set_ignore_eos(true);
  message.mutable_output()->set_return_token_ids(true);
  return message;
}

class GrpcLoadClient final : public LoadClient {
 public:
  GrpcLoadClient(const LoadClientOptions& load,
                 std::vector<std::unique_ptr<GatewayClient>> channels)
      : load_(load), channels_(std::move(channels)) {}

  void Start(const LoadRequest& request, OnTokens on_tokens,
             OnDone on_done) override {
    GatewayClient& channel = *channels_[next_++ % channels_.size()];
    channel.StartGenerate(
        MakeRequest(load_, request),
        [on_tokens = std::move(on_tokens)](const v1::GenerateResponse& event) {
          const int count = event.delta().token_ids_size();
          if (count > 0) on_tokens(count);
        },
        std::move(on_done));
  }

 private:
  const LoadClientOptions load_;
  const std::vector<std::unique_ptr<GatewayClient>> channels_;
  std::atomic<size_t> next_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadClient>> MakeGrpcLoadClient(
    const ClientOptions& client, const LoadClientOptions& load, int channels) {
  std::vector<std::unique_ptr<GatewayClient>> all;
  for (int i = 0; i < channels; ++i) {
    CARAVAN_ASSIGN_OR_RETURN(auto channel, GatewayClient::Create(client));
    all.push_back(std::move(channel));
  }
  return std::make_unique<GrpcLoadClient>(load, std::move(all));
}

}  // namespace caravan::cli
