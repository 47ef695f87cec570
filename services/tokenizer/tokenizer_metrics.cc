#include "services/tokenizer/tokenizer_metrics.h"

#include <string>

#include "common/metrics/names.h"
#include "common/status/errors.h"

namespace caravan::tokenizer {
namespace {

std::string NameOf(Call call) {
  switch (call) {
    case Call::kPrepare:
      return "prepare";
    case Call::kEncode:
      return "encode";
    case Call::kDecode:
      return "decode";
    case Call::kVocabulary:
      return "vocabulary";
    case Call::kModels:
      return "models";
  }
  return "unknown";
}

}  // namespace

TokenizerMetrics::TokenizerMetrics(MetricsRegistry* registry, int model_count)
    : registry_(registry),
      decoded_tokens_(
          registry->MakeCounter(metrics::kTokenizerDecodedTokens, {})) {
  for (int i = 0; i < kCallCount; ++i) {
    const std::string method = NameOf(static_cast<Call>(i));
    ok_[i] = registry->MakeCounter(metrics::kTokenizerRequests,
                                   {{"method", method}, {"outcome", "ok"}});
    seconds_[i] = registry->MakeHistogram(metrics::kTokenizerRequestSeconds,
                                          {{"method", method}});
  }
  for (const Call call : {Call::kPrepare, Call::kEncode}) {
    const auto i = static_cast<size_t>(call);
    encoded_tokens_[i] = registry->MakeCounter(metrics::kTokenizerEncodedTokens,
                                               {{"method", NameOf(call)}});
    text_bytes_[i] = registry->MakeCounter(metrics::kTokenizerTextBytes,
                                           {{"method", NameOf(call)}});
  }
  registry->MakeGauge(metrics::kTokenizerModels, {})->Set(model_count);
}

void TokenizerMetrics::RecordCall(Call call, const absl::Status& status,
                                  absl::Duration time) {
  const auto index = static_cast<size_t>(call);
  seconds_[index]->Observe(absl::ToDoubleSeconds(time));
  if (status.ok()) {
    ok_[index]->Increment();
    return;
  }
  registry_
      ->MakeCounter(metrics::kTokenizerRequests,
                    {{"method", NameOf(call)},
                     {"outcome", std::string(ReasonName(ReasonOf(status)))}})
      ->Increment();
}

void TokenizerMetrics::RecordEncoded(Call call, int64_t bytes, int64_t tokens) {
  const auto index = static_cast<size_t>(call);
  text_bytes_[index]->Increment(static_cast<double>(bytes));
  encoded_tokens_[index]->Increment(static_cast<double>(tokens));
}

void TokenizerMetrics::RecordDecoded(int64_t tokens) {
  decoded_tokens_->Increment(static_cast<double>(tokens));
}

}  // namespace caravan::tokenizer
