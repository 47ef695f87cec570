// caravan.v1.TokenizerService: stateless, any copy answers alike.
#ifndef CARAVAN_SERVICES_TOKENIZER_TOKENIZER_SERVICE_H_
#define CARAVAN_SERVICES_TOKENIZER_TOKENIZER_SERVICE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/tokenizer.grpc.pb.h"
#include "common/clock.h"
#include "common/metrics/registry.h"
#include "services/tokenizer/model_set.h"
#include "services/tokenizer/tokenizer_metrics.h"

namespace caravan::tokenizer {

// Thread-safe.
class TokenizerService final : public v1::TokenizerService::CallbackService {
 public:
  // `models`, `clock` and `registry` must outlive the service. `zone` is where
  // strftime_now of the templates is.
  TokenizerService(const ModelSet* models, const Clock* clock,
                   absl::TimeZone zone, MetricsRegistry* registry);

  grpc::ServerUnaryReactor* Prepare(grpc::CallbackServerContext* context,
                                    const v1::PrepareRequest* request,
                                    v1::PrepareResponse* response) override;
  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context,
                                   const v1::EncodeRequest* request,
                                   v1::EncodeResponse* response) override;
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context,
                                   const v1::DecodeRequest* request,
                                   v1::DecodeResponse* response) override;
  grpc::ServerUnaryReactor* GetVocabulary(
      grpc::CallbackServerContext* context,
      const v1::GetVocabularyRequest* request,
      v1::GetVocabularyResponse* response) override;
  grpc::ServerUnaryReactor* ListTokenizerModels(
      grpc::CallbackServerContext* context,
      const v1::ListTokenizerModelsRequest* request,
      v1::ListTokenizerModelsResponse* response) override;

 private:
  // Runs `handle`, which returns a status, and ends the call with it.
  template <typename Handle>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                   Call call, Handle handle);

  absl::Status HandlePrepare(grpc::CallbackServerContext* context,
                             const v1::PrepareRequest& request,
                             v1::PrepareResponse* response);
  absl::Status HandleEncode(grpc::CallbackServerContext* context,
                            const v1::EncodeRequest& request,
                            v1::EncodeResponse* response);
  absl::Status HandleDecode(grpc::CallbackServerContext* context,
                            const v1::DecodeRequest& request,
                            v1::DecodeResponse* response);
  absl::Status HandleGetVocabulary(const v1::GetVocabularyRequest& request,
                                   v1::GetVocabularyResponse* response);

  const ModelSet* const models_;
  const Clock* const clock_;
  const absl::TimeZone zone_;
  TokenizerMetrics metrics_;
};

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_TOKENIZER_SERVICE_H_
