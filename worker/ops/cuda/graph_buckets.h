// Which steps are replayed as one graph, and which graphs are kept: plain
// functions of integers, tested without a device. Nothing here changes a bit:
// rows are added that no other row reads.
#ifndef CARAVAN_WORKER_OPS_CUDA_GRAPH_BUCKETS_H_
#define CARAVAN_WORKER_OPS_CUDA_GRAPH_BUCKETS_H_

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "worker/ops/ops.h"

namespace caravan::worker::cuda {

// Steps of more tokens gain nothing: their kernels take longer than launches.
inline constexpr int32_t kMaxGraphTokens = 256;
// Graphs that are kept. All of a process that decodes up to 256 sequences in
// contexts of up to 131,072 tokens would be 23 x 9.
inline constexpr int32_t kMaxGraphs = 64;

// Steps of the same key are padded to the same launches.
struct GraphKey {
  int32_t tokens = 0;
  int32_t splits = 0;  // of attention, at the same time

  friend auto operator<=>(const GraphKey&, const GraphKey&) = default;
};

// `tokens` >= 1 rounded up: 1, 2, 4, then whole tiles of 8, of 16 above 64 and
// of 32 above 128. Nothing where that is beyond `most` or kMaxGraphTokens.
std::optional<int32_t> TokenBucket(int64_t tokens, int64_t most);

// `splits` >= 1 rounded up to a power of two.
int32_t SplitBucket(int32_t splits);

// Whether each row has one token: a step that decodes, and nothing else.
bool Decodes(std::span<const AttentionRow> rows);

// When graphs were used last. Not thread-safe.
class GraphUses {
 public:
  explicit GraphUses(size_t limit) : limit_(limit) {}

  // Notes a use, and forgets what must make room for it: that key's graph has
  // to be dropped.
  std::optional<GraphKey> Touch(const GraphKey& key);

 private:
  const size_t limit_;
  uint64_t uses_ = 0;
  std::map<GraphKey, uint64_t> last_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_GRAPH_BUCKETS_H_
