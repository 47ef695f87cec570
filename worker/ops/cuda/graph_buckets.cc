#include "worker/ops/cuda/graph_buckets.h"

#include <algorithm>
#include <bit>

#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {

std::optional<int32_t> TokenBucket(int64_t tokens, int64_t most) {
  if (tokens < 1 || tokens > std::min<int64_t>(most, kMaxGraphTokens)) {
    return std::nullopt;
  }
  const int64_t unit = tokens > 128 ? 32 : tokens > 64 ? 16 : 8;
  const int64_t bucket =
      tokens <= 4
          ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)))
          : RoundUp(tokens, unit);
  if (bucket > most) return std::nullopt;
  return static_cast<int32_t>(bucket);
}

int32_t SplitBucket(int32_t splits) {
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(splits)));
}

bool Decodes(std::span<const AttentionRow> rows) {
  return std::all_of(rows.begin(), rows.end(), [](const AttentionRow& row) {
    return row.token_count == 1;
  });
}

std::optional<GraphKey> GraphUses::Touch(const GraphKey& key) {
  std::optional<GraphKey> dropped;
  if (!last_.contains(key) && last_.size() >= limit_) {
    const auto oldest = std::min_element(
        last_.begin(), last_.end(),
        [](const auto& a, const auto& b) { return a.second < b.second; });
    dropped = oldest->first;
    last_.erase(oldest);
  }
  last_[key] = ++uses_;
  return dropped;
}

}  // namespace caravan::worker::cuda
