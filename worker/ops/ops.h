// The op vocabulary: the phases of a Llama layer, defined once. `reference`
// writes each phase as the literal composition of small formulas; `cpu` and
// `cuda` fuse as they like.
//
// Numerics (the canonical computation, DESIGN.md 1.1). Every fp32 backend
// computes exactly these operations in exactly this order, so that reference
// and cpu give equal bits. "chain" is acc = fma(a, b, acc) from acc = 0 in
// ascending index; every other operation is one IEEE 754 rounding.
//
//   MatMul     y[t, r] = Tree8(segments), a segment being the chain over its k
//              of x[t, k] * W[r, k]. Segments: SegmentBorders(); one segment
//              is just its chain. Then + bias[r] where there is one.
//   BfChain    what segments are instead where activations are bf16 and W is
//              of bf16 throughout: x is rounded to bf16 (nearest, ties to
//              even), and each pair of k, begun anew with the segment, gives
//              acc = ffma(W[r, k + 1], x[t, k + 1], acc), then
//              acc = ffma(W[r, k], x[t, k], acc); an odd last k has a zero
//              beside it. ffma is an fma that takes subnormal inputs as zero
//              and makes subnormal results zero (FlushingFma): what VDPBF16PS
//              does. Tree8 then makes subnormal sums zero too. Weights of
//              other types meet fp32 activations.
//   IntGroups  what segments are instead where activations are int8 and W is
//              of one block type that worker/quant has integer products of:
//              x is rounded to groups of 32 signed bytes with a scale
//              (int8_activations.h), the integer sum of a group is exact, and
//              then acc = fma(fp32(sum), weight scale * activation scale,
//              acc), as int8_panel.h says. Segments begin on multiples of 32:
//              `unit` becomes its least common multiple with 32. The parts of
//              a kQkv matrix are told apart, those of others are not.
//   FourBitGroups  what segments are instead, whatever the activations, where W
//              is of nf4 or fp4 throughout: over its blocks of 64 k ascending,
//              with d the chain over the block's k of table[code] * x[t, k],
//              acc = fma(d, scale, acc). Segments begin on multiples of 64:
//              `unit` becomes its least common multiple with 64.
//   Tree8      ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)); an empty
//              segment is +0.
//   Lanes16    l[j] = chain (or sum) over i with i mod 16 == j; then
//              l[j] += l[j + 8] (j < 8), l[j] += l[j + 4] (j < 4),
//              l[0] += l[2], l[1] += l[3], result l[0] + l[1].
//   RmsNorm    s = Lanes16 chain of x[i] * x[i];
//              y[i] = (x[i] * (1 / sqrt(s / dim + epsilon))) * w[i].
//   Rope       for i < d/2, half-rotated: a = x[i], b = x[i + d/2],
//              y[i] = fma(a, cos[i], -(b * sin[i])),
//              y[i + d/2] = fma(b, cos[i], a * sin[i]).
//   Silu       x / (1 + Exp(-x)), Exp of canonical_math.h.
//   Attend     per query head, scores s[j] = scale * chain over i of
//              q[i] * k[j][i], scale = 1 / sqrt(d). Keys in splits of 256 at
//              absolute positions; in a split m = max s, p[j] = Exp(s[j] - m),
//              l = Lanes16 sum of p[j] (lane = position mod 16; masked keys
//              are +0), o[i] = chain over j of p[j] * v[j][i]. Splits merge
//              ascending into M, L, O (first split: taken as it is):
//              M' = max(M, m), a = Exp(M - M'), b = Exp(m - M'),
//              L = fma(L, a, l * b), O[i] = fma(O[i], a, o[i] * b).
//              out[i] = O[i] / L.
//              Keys and values are rounded to the cache's type when they are
//              stored, and widened when they are read, which loses nothing.
//   Logprob    of the raw logits, in segments of 4,096 ids merged ascending as
//              splits are (L only); segment sums are Lanes16 (lane = id mod
//              16). logprob = (x - M) - Log(L).
//
// Shapes: T tokens of a step, D hidden size, H query heads, G key-value heads,
// d head size, F feed-forward size, V vocabulary.
#ifndef CARAVAN_WORKER_OPS_OPS_H_
#define CARAVAN_WORKER_OPS_OPS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "worker/ops/sampling_state.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

using BlockId = int32_t;

// Keys in one split of attention on CPUs.
inline constexpr int kAttentionSplitKeys = 256;
// Segments of attention output and down projection.
inline constexpr int kSegments = 8;
// Ids in one segment of the log-softmax.
inline constexpr int kLogprobSegmentIds = 4096;
// Tokens in one KV block.
inline constexpr int kBlockSlots = 16;

// Borders of the 8 segments of a K of `units` units of `unit` elements (heads
// of d, or quantization groups of 32 whose last may be short), cut at `k`:
// border s = min(k, floor(s * units / 8) * unit); border 8 = k.
std::array<int64_t, kSegments + 1> SegmentBorders(int64_t k, int64_t unit);

// A weight matrix (or several with the same input) in a backend's own layout.
// Made by Backend::Pack, read only by the backend that made it.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  int64_t rows = 0;  // of all parts together
  int64_t cols = 0;
  size_t bytes = 0;       // as allocated
  size_t data_bytes = 0;  // of them, those that a product reads
};

// Paged keys and values of all layers of a shard, in a backend's own layout,
// addressed by (layer, block, slot). Made by Backend::AllocateKv.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  int32_t layers = 0;
  int32_t block_count = 0;
  size_t bytes = 0;  // as allocated
};

// One sequence's tokens within the step.
struct AttentionRow {
  int32_t first_token = 0;          // index of its first token in the step
  int32_t token_count = 0;          // consecutive tokens
  int32_t first_position = 0;       // absolute position of the first token
  std::span<const BlockId> blocks;  // covers [0, first_position + token_count)
};

// x[t, :] = table[ids[t], :], widened to fp32.
struct EmbedArgs {
  std::span<const int32_t> ids;  // (T), each in [0, V)
  // (V, D), packed as kEmbedding, or as kHead where CanEmbedFromHead().
  const PackedMatrix* table;
  View<float> x;  // (T, D)
};

// y = RmsNorm(x); q, k, v = MatMul(y, qkv) + bias; q, k = Rope(q, k); q is
// returned, k and v are written to the cache. May not alias.
struct NormQkvRopeStoreArgs {
  View<const float> x;          // (T, D)
  std::span<const float> norm;  // (D)
  float epsilon;
  const PackedMatrix* qkv;         // ((H + 2 G) d, D), packed as kQkv
  std::span<const float> bias;     // ((H + 2 G) d) or empty
  View<const float> cos;           // (T, d / 2), of each token's position
  View<const float> sin;           // (T, d / 2)
  std::span<const int64_t> slots;  // (T) block * 16 + slot, or -1: not written
  int32_t layer;
  int32_t heads, kv_heads, head_dim;
  KvStorage* kv;
  View<float> q;  // (T, H d)
};

// out = Attend(q, cache) for every token of every row, causal.
struct AttendArgs {
  View<const float> q;                 // (T, H d)
  std::span<const AttentionRow> rows;  // cover all T tokens, in order
  int32_t layer;
  int32_t heads, kv_heads, head_dim;
  const KvStorage* kv;
  View<float> out;  // (T, H d)
};

// x += MatMul(a, w) + bias, K in 8 segments on head borders.
struct ProjectAddArgs {
  View<const float> a;          // (T, H d)
  const PackedMatrix* w;        // (D, H d), packed as kHeadSegments
  std::span<const float> bias;  // (D) or empty
  View<float> x;                // (T, D), in and out
};

// y = RmsNorm(x); out = Silu(MatMul(y, gate) + gate_bias)
//                       * (MatMul(y, up) + up_bias).
struct NormGateUpSiluArgs {
  View<const float> x;          // (T, D)
  std::span<const float> norm;  // (D)
  float epsilon;
  const PackedMatrix* gate_up;       // (2 F, D), packed as kGateUp
  std::span<const float> gate_bias;  // (F) or empty
  std::span<const float> up_bias;    // (F) or empty
  View<float> out;                   // (T, F)
};

// x += MatMul(h, w) + bias, K in 8 segments on borders of 32.
struct DownAddArgs {
  View<const float> h;          // (T, F)
  const PackedMatrix* w;        // (D, F), packed as kGroupSegments
  std::span<const float> bias;  // (D) or empty
  View<float> x;                // (T, D), in and out
};

// logits[i] = MatMul(RmsNorm(x[tokens[i]]), head).
struct NormHeadArgs {
  View<const float> x;              // (T, D)
  std::span<const int32_t> tokens;  // rows of x that need logits
  std::span<const float> norm;      // (D)
  float epsilon;
  const PackedMatrix* head;  // (V, D), packed as kHead
  View<float> logits;        // (tokens.size(), V)
};

struct TokenCandidate {
  int32_t token_id = 0;
  float logprob = 0;
};

// A token and what was asked about it.
struct TokenScore {
  int32_t token_id = 0;
  float logprob = 0;                       // valid where asked for
  int32_t rank = 0;                        // 1 + ids with a greater logit
  std::vector<TokenCandidate> candidates;  // descending; ties to the lower id
  bool finite = true;  // false: the logits had a NaN or infinity; no token
};

// Samples one token from a row of logits by the rule of DESIGN.md 1.1.
struct SampleRow {
  int32_t logits_row = 0;
  const SamplingState* state = nullptr;
  int32_t output_position = 0;
};

// Scores a given token of the prompt against a row of logits.
struct ScoreRow {
  int32_t logits_row = 0;
  int32_t token_id = 0;
  int32_t candidate_count = 0;
};

struct SampleArgs {
  View<float> logits;                  // (rows, V); contents may be changed
  std::span<const SampleRow> samples;  // each logits row at most once
  std::span<const ScoreRow> scores;    // rows not in `samples`
  std::span<TokenScore> sampled;       // (samples.size())
  std::span<TokenScore> scored;        // (scores.size())
};

// Copies whole blocks, all layers, keys and values, in order.
struct BlockCopy {
  BlockId source = 0;
  BlockId target = 0;
};
struct CopyBlocksArgs {
  std::span<const BlockCopy> copies;
  KvStorage* kv;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_OPS_H_
