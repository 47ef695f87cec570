// caravan.v1.GenerateRequest into the internal request, and events into
// responses. No gRPC: messages only.
#ifndef CARAVAN_GATEWAY_GRPC_GENERATION_TRANSLATE_H_
#define CARAVAN_GATEWAY_GRPC_GENERATION_TRANSLATE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "caravan/v1/inference.pb.h"
#include "gateway/request.h"
#include "gateway/stream/aggregator.h"
#include "gateway/stream/events.h"

namespace caravan::gateway {

// Errors name the field: kInvalidField, kUnsupportedParameter.
absl::StatusOr<GenerationRequest> TranslateGenerate(
    const v1::GenerateRequest& proto);

// The responses for the events of one stream, whose `request` must outlive it.
//
// Not thread-safe.
class ResponseMaker {
 public:
  explicit ResponseMaker(const GenerationRequest& request)
      : request_(request) {}

  std::vector<v1::GenerateResponse> Responses(StreamEvents events);
  v1::CompleteResponse Response(const Completion& completion);

 private:
  v1::GenerateResponse MakeStarted(const PromptReady& prompt) const;
  v1::GenerateResponse MakeDelta(const ChoiceDelta& delta) const;
  v1::GenerateResponse MakeFinished(const Finished& finished) const;
  v1::TokenLogprob MakeLogprob(const TokenPiece& token) const;
  v1::CompletedChoice MakeChoice(int32_t index, const CompletedChoice& choice,
                                 const PromptReady& prompt) const;

  const GenerationRequest& request_;
  Started started_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GRPC_GENERATION_TRANSLATE_H_
