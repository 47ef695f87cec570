#include "services/cli/tokenizer_client.h"

#include <utility>

#include "caravan/v1/tokenizer.grpc.pb.h"
#include "common/status/status_macros.h"
#include "services/cli/unary_client.h"

namespace caravan::cli {
namespace {

// `method(async stub, context, request, response, done)` begins the call.
template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> Call(const ClientOptions& options,
                              const Request& request, Method method) {
  CARAVAN_ASSIGN_OR_RETURN(const auto channel, OpenChannel(options));
  const auto stub = v1::TokenizerService::NewStub(channel);
  return CallAndWait<Response>(
      options, [&](auto* context, Response* response, auto done) {
        method(*stub->async(), context, &request, response, std::move(done));
      });
}

}  // namespace

absl::StatusOr<v1::PrepareResponse> Prepare(const ClientOptions& options,
                                            const v1::PrepareRequest& request) {
  return Call<v1::PrepareResponse>(
      options, request,
      [](auto& stub, auto* context, auto* in, auto* out, auto done) {
        stub.Prepare(context, in, out, std::move(done));
      });
}

absl::StatusOr<v1::GetVocabularyResponse> GetVocabulary(
    const ClientOptions& options, const v1::GetVocabularyRequest& request) {
  return Call<v1::GetVocabularyResponse>(
      options, request,
      [](auto& stub, auto* context, auto* in, auto* out, auto done) {
        stub.GetVocabulary(context, in, out, std::move(done));
      });
}

absl::StatusOr<v1::ListTokenizerModelsResponse> ListTokenizerModels(
    const ClientOptions& options) {
  return Call<v1::ListTokenizerModelsResponse>(
      options, v1::ListTokenizerModelsRequest(),
      [](auto& stub, auto* context, auto* in, auto* out, auto done) {
        stub.ListTokenizerModels(context, in, out, std::move(done));
      });
}

}  // namespace caravan::cli
