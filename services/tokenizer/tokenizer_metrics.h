// The tokenizer's metrics: handles made once.
//
// Thread-safe.
#ifndef CARAVAN_SERVICES_TOKENIZER_TOKENIZER_METRICS_H_
#define CARAVAN_SERVICES_TOKENIZER_TOKENIZER_METRICS_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics/registry.h"

namespace caravan::tokenizer {

enum class Call { kPrepare, kEncode, kDecode, kVocabulary, kModels };

class TokenizerMetrics {
 public:
  // `registry` must outlive the metrics.
  TokenizerMetrics(MetricsRegistry* registry, int model_count);

  // One answered call.
  void RecordCall(Call call, const absl::Status& status, absl::Duration time);
  // `call` is kPrepare or kEncode.
  void RecordEncoded(Call call, int64_t bytes, int64_t tokens);
  void RecordDecoded(int64_t tokens);

 private:
  static constexpr int kCallCount = 5;

  MetricsRegistry* const registry_;
  std::array<Counter*, kCallCount> ok_;
  std::array<Histogram*, kCallCount> seconds_;
  // By method; null for those that encode nothing.
  std::array<Counter*, kCallCount> encoded_tokens_ = {};
  std::array<Counter*, kCallCount> text_bytes_ = {};
  Counter* const decoded_tokens_;
};

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_TOKENIZER_METRICS_H_
