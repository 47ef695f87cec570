#include "worker/ops/self_test.h"

#include <openssl/evp.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/sampling/philox.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "worker/ops/canonical_math.h"
#include "worker/ops/check.h"
#include "worker/ops/sampling_state.h"
#include "worker/tensor/fp8.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

// Sizes of a small layer.
struct Shape {
  int64_t hidden;
  int32_t heads;
  int32_t head_dim;
  int64_t feed_forward;
};

// They leave remainders in every tile, unless the weights come in blocks.
constexpr Shape kPlainShape = {168, 6, 40, 232};
constexpr Shape kBlockShape = {256, 8, 32, 768};
constexpr int32_t kKvHeads = 2;
constexpr int64_t kVocabulary = 4500;  // two segments of the log-softmax
constexpr int32_t kSequences = 7;
constexpr int32_t kBlocksPerSequence = 24;
constexpr float kEpsilon = 1e-5f;

// SHA-256 of what is added.
class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new()) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Add(const void* data, size_t bytes) {
    EVP_DigestUpdate(context_.get(), data, bytes);
  }
  void Add(const std::vector<float>& values) {
    Add(values.data(), values.size() * sizeof(float));
  }
  void Add(const TokenScore& score) {
    Add(&score.token_id, sizeof(score.token_id));
    Add(&score.logprob, sizeof(score.logprob));
    Add(&score.rank, sizeof(score.rank));
    for (const TokenCandidate& candidate : score.candidates) {
      Add(&candidate.token_id, sizeof(candidate.token_id));
      Add(&candidate.logprob, sizeof(candidate.logprob));
    }
  }
  std::string Finish() {
    std::string digest(EVP_MD_size(EVP_sha256()), '\0');
    EVP_DigestFinal_ex(context_.get(),
                       reinterpret_cast<unsigned char*>(digest.data()),
                       nullptr);
    return digest;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Random numbers by place: number `i` of stream `stream`.
uint32_t Draw(uint32_t stream, int64_t i) {
  return sampling::Philox4x32({static_cast<uint32_t>(i), stream, 0, 0},
                              {0xca7a, 0x5e1f})[0];
}

// A number of magnitude 2^-5 to 2^-1 with all bits of the type's fraction.
uint32_t WeightBits(DType dtype, uint32_t draw) {
  const uint32_t sign = draw >> 31;
  const uint32_t down = 2 + (draw >> 29 & 3);  // 2^-2 to 2^-5
  switch (dtype) {
    case DType::kFp32:
      return sign << 31 | (127 - down) << 23 | (draw & 0x7fffff);
    case DType::kBf16:
      return sign << 15 | (127 - down) << 7 | (draw & 0x7f);
    case DType::kFp16:
      return sign << 15 | (15 - down) << 10 | (draw & 0x3ff);
    case DType::kFp8:  // no plain weights
      break;
  }
  return 0;
}

std::vector<std::byte> PlainWeights(DType dtype, uint32_t stream,
                                    int64_t count) {
  const size_t size = SizeOf(dtype);
  std::vector<std::byte> bytes(static_cast<size_t>(count) * size);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = WeightBits(dtype, Draw(stream, i));
    // Low bytes first, as checkpoints have them.
    for (size_t b = 0; b < size; ++b) {
      bytes[static_cast<size_t>(i) * size + b] =
          static_cast<std::byte>(bits >> (8 * b));
    }
  }
  return bytes;
}

// Any codes; scales of 2^-11 to 2^-8, or of 4-bit types as plain numbers.
void SetScales(WeightType type, uint32_t draw, std::byte* block) {
  const std::span<const int> halves = HalfOffsets(type);
  for (const int offset : halves) {
    std::byte& high = block[offset + 1];
    high = (high & std::byte{0x8f}) | std::byte{0x10};
  }
  if (!halves.empty()) return;
  if (type == WeightType::kFp8) {  // no NaN
    for (int i = 4; i < kFp8BlockBytes; ++i) block[i] &= std::byte{0xbf};
  }
  const uint32_t bits = WeightBits(DType::kFp32, draw);
  for (int b = 0; b < 4; ++b) block[b] = static_cast<std::byte>(bits >> 8 * b);
}

std::vector<std::byte> Weights(WeightType type, uint32_t stream,
                               int64_t count) {
  if (IsPlain(type)) return PlainWeights(*PlainDType(type), stream, count);
  std::vector<std::byte> bytes(static_cast<size_t>(RowBytes(type, count)));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] =
        static_cast<std::byte>(Draw(stream, static_cast<int64_t>(i)) >> 8);
  }
  const size_t block = static_cast<size_t>(InfoOf(type).bytes);
  for (size_t i = 0; i < bytes.size(); i += block) {
    const bool one = type == WeightType::kFp8;  // scale of all rows
    const int64_t draw = one ? 0 : static_cast<int64_t>(i);
    SetScales(type, Draw(stream, draw), bytes.data() + i);
  }
  return bytes;
}

std::vector<float> Vector(uint32_t stream, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[i] = std::bit_cast<float>(WeightBits(DType::kFp32, Draw(stream, i)));
  }
  return values;
}

// The tokens [begin, end) of one sequence.
struct Span {
  int32_t sequence = 0;
  int32_t begin = 0;
  int32_t end = 0;
};

class SelfTest {
 public:
  SelfTest(Backend* backend, WeightType weights)
      : backend_(backend),
        ops_(backend),
        weights_(weights),
        shape_(IsPlain(weights) ? kPlainShape : kBlockShape) {}

  absl::StatusOr<std::string> Run() {
    CARAVAN_RETURN_IF_ERROR(Load());
    // 300 tokens of one sequence, 64 at a time; a few of the others.
    for (int32_t begin = 0; begin < 300; begin += 64) {
      CARAVAN_RETURN_IF_ERROR(
          Step({{0, begin, begin < 256 ? begin + 64 : 300}}));
    }
    for (int32_t s = 1; s < kSequences; ++s) {
      CARAVAN_RETURN_IF_ERROR(Step({{s, 0, 5 * s}}));
    }
    std::vector<Span> one_each = {{0, 300, 301}};
    for (int32_t s = 1; s < kSequences; ++s) {
      one_each.push_back({s, 5 * s, 5 * s + 1});
    }
    CARAVAN_RETURN_IF_ERROR(Step(one_each));
    const std::vector<BlockCopy> copies = {
        {.source = 0, .target = kSequences * kBlocksPerSequence}};
    CARAVAN_RETURN_IF_ERROR(
        ops_.CopyBlocks({.copies = copies, .kv = kv_.get()}));
    first_block_ = copies[0].target;  // from now on the copy is read
    CARAVAN_RETURN_IF_ERROR(Step({{0, 301, 302}}));
    return digest_.Finish();
  }

 private:
  struct Inputs {
    std::vector<int32_t> ids;
    std::vector<float> cos, sin;
    std::vector<int64_t> slots;
    std::vector<std::vector<BlockId>> blocks;
    std::vector<AttentionRow> rows;
    std::vector<int32_t> last;  // of each span
  };

  absl::Status Load() {
    const auto [hidden, heads, head_dim, feed_forward] = shape_;
    const int64_t q = int64_t{heads} * head_dim;
    const int64_t kv = int64_t{kKvHeads} * head_dim;
    CARAVAN_ASSIGN_OR_RETURN(
        embedding_, Pack({kVocabulary}, hidden, PackKind::kEmbedding, 32));
    CARAVAN_ASSIGN_OR_RETURN(
        qkv_, Pack({q, kv, kv}, hidden, PackKind::kQkv, head_dim));
    CARAVAN_ASSIGN_OR_RETURN(
        projection_, Pack({hidden}, q, PackKind::kHeadSegments, head_dim));
    CARAVAN_ASSIGN_OR_RETURN(gate_up_, Pack({feed_forward, feed_forward},
                                            hidden, PackKind::kGateUp, 32));
    CARAVAN_ASSIGN_OR_RETURN(
        down_, Pack({hidden}, feed_forward, PackKind::kGroupSegments, 32));
    CARAVAN_ASSIGN_OR_RETURN(head_,
                             Pack({kVocabulary}, hidden, PackKind::kHead, 32));
    norm_ = Vector(100, hidden);
    qkv_bias_ = Vector(101, q + 2 * kv);
    hidden_bias_ = Vector(102, hidden);
    gate_bias_ = Vector(103, feed_forward);
    CARAVAN_ASSIGN_OR_RETURN(
        kv_, backend_->AllocateKv(
                 {.layers = 1,
                  .kv_heads = kKvHeads,
                  .head_dim = head_dim,
                  .block_count = kSequences * kBlocksPerSequence + 1}));
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      const std::vector<int64_t>& rows, int64_t cols, PackKind kind,
      int64_t unit) {
    std::vector<std::vector<std::byte>> bytes;
    std::vector<RawMatrix> parts;
    for (const int64_t count : rows) {
      bytes.push_back(Weights(weights_, next_stream_++, count * cols));
      parts.push_back({bytes.back().data(), weights_, count, cols});
    }
    return backend_->Pack(parts, {kind, unit});
  }

  Inputs MakeInputs(const std::vector<Span>& spans) const {
    Inputs inputs;
    for (const Span& span : spans) {
      std::vector<BlockId> blocks;
      for (int32_t b = 0; b * kBlockSlots < span.end; ++b) {
        blocks.push_back(span.sequence * kBlocksPerSequence + b);
      }
      if (span.sequence == 0) blocks[0] = first_block_;
      inputs.rows.push_back(
          {.first_token = static_cast<int32_t>(inputs.ids.size()),
           .token_count = span.end - span.begin,
           .first_position = span.begin,
           .blocks = {}});
      for (int32_t p = span.begin; p < span.end; ++p) {
        AddToken(span.sequence, p, blocks[p / kBlockSlots], inputs);
      }
      inputs.blocks.push_back(std::move(blocks));
      inputs.last.push_back(static_cast<int32_t>(inputs.ids.size()) - 1);
    }
    for (size_t i = 0; i < spans.size(); ++i) {
      inputs.rows[i].blocks = inputs.blocks[i];
    }
    return inputs;
  }

  void AddToken(int32_t sequence, int32_t position, BlockId block,
                Inputs& inputs) const {
    inputs.ids.push_back(static_cast<int32_t>(
        Draw(200 + static_cast<uint32_t>(sequence), position) % kVocabulary));
    for (int32_t i = 0; i < shape_.head_dim / 2; ++i) {
      const SinCos angle =
          SinCos64(position / Pow64(10000.0, 2.0 * i / shape_.head_dim));
      inputs.cos.push_back(static_cast<float>(angle.cos));
      inputs.sin.push_back(static_cast<float>(angle.sin));
    }
    inputs.slots.push_back(int64_t{block} * kBlockSlots +
                           position % kBlockSlots);
  }

  absl::Status Step(const std::vector<Span>& spans) {
    const Inputs inputs = MakeInputs(spans);
    const int64_t tokens = static_cast<int64_t>(inputs.ids.size());
    std::vector<float> x(tokens * shape_.hidden);
    const View<float> x_view(x.data(), tokens, shape_.hidden);
    CARAVAN_RETURN_IF_ERROR(ops_.Embed(
        {.ids = inputs.ids, .table = embedding_.get(), .x = x_view}));
    digest_.Add(x);
    CARAVAN_RETURN_IF_ERROR(AttentionPhases(inputs, x_view));
    digest_.Add(x);
    CARAVAN_RETURN_IF_ERROR(FeedForwardPhases(x_view));
    digest_.Add(x);
    return HeadPhases(inputs, x_view);
  }

  absl::Status AttentionPhases(const Inputs& inputs, View<float> x) {
    const int64_t tokens = x.rows;
    std::vector<float> q(tokens * shape_.heads * shape_.head_dim);
    std::vector<float> attended(q.size());
    const View<float> q_view(q.data(), tokens, shape_.heads * shape_.head_dim);
    const View<float> out(attended.data(), tokens,
                          shape_.heads * shape_.head_dim);
    CARAVAN_RETURN_IF_ERROR(ops_.NormQkvRopeStore(
        {.x = x,
         .norm = norm_,
         .epsilon = kEpsilon,
         .qkv = qkv_.get(),
         .bias = qkv_bias_,
         .cos =
             View<const float>(inputs.cos.data(), tokens, shape_.head_dim / 2),
         .sin =
             View<const float>(inputs.sin.data(), tokens, shape_.head_dim / 2),
         .slots = inputs.slots,
         .layer = 0,
         .heads = shape_.heads,
         .kv_heads = kKvHeads,
         .head_dim = shape_.head_dim,
         .kv = kv_.get(),
         .q = q_view}));
    digest_.Add(q);
    CARAVAN_RETURN_IF_ERROR(ops_.Attend({.q = q_view,
                                         .rows = inputs.rows,
                                         .layer = 0,
                                         .heads = shape_.heads,
                                         .kv_heads = kKvHeads,
                                         .head_dim = shape_.head_dim,
                                         .kv = kv_.get(),
                                         .out = out}));
    digest_.Add(attended);
    return ops_.ProjectAdd(
        {.a = out, .w = projection_.get(), .bias = hidden_bias_, .x = x});
  }

  absl::Status FeedForwardPhases(View<float> x) {
    std::vector<float> h(x.rows * shape_.feed_forward);
    const View<float> h_view(h.data(), x.rows, shape_.feed_forward);
    CARAVAN_RETURN_IF_ERROR(ops_.NormGateUpSilu({.x = x,
                                                 .norm = norm_,
                                                 .epsilon = kEpsilon,
                                                 .gate_up = gate_up_.get(),
                                                 .gate_bias = gate_bias_,
                                                 .up_bias = {},
                                                 .out = h_view}));
    digest_.Add(h);
    return ops_.DownAdd({.h = h_view, .w = down_.get(), .bias = {}, .x = x});
  }

  // Logits of each span's last token: sampled, and scored.
  absl::Status HeadPhases(const Inputs& inputs, View<float> x) {
    const int64_t rows = static_cast<int64_t>(inputs.last.size());
    std::vector<float> logits(rows * kVocabulary);
    const View<float> view(logits.data(), rows, kVocabulary);
    CARAVAN_RETURN_IF_ERROR(ops_.NormHead({.x = x,
                                           .tokens = inputs.last,
                                           .norm = norm_,
                                           .epsilon = kEpsilon,
                                           .head = head_.get(),
                                           .logits = view}));
    digest_.Add(logits);
    std::vector<SamplingState> states;
    states.reserve(inputs.last.size());
    std::vector<SampleRow> samples;
    for (int32_t i = 0; i < rows; ++i) {
      states.emplace_back(ParamsOf(i), /*choice=*/i, /*min_tokens=*/1,
                          std::vector<int32_t>{2}, inputs.ids,
                          std::span<const int32_t>());
      samples.push_back(
          {.logits_row = i, .state = &states.back(), .output_position = i});
    }
    std::vector<TokenScore> sampled(inputs.last.size());
    CARAVAN_RETURN_IF_ERROR(ops_.Sample({.logits = view,
                                         .samples = samples,
                                         .scores = {},
                                         .sampled = sampled,
                                         .scored = {}}));
    for (const TokenScore& score : sampled) digest_.Add(score);
    return absl::OkStatus();
  }

  // Greedy, plain, and with every filter and penalty, in turn.
  static sampling::SamplingParams ParamsOf(int32_t row) {
    sampling::SamplingParams params;
    params.seed = 42;
    params.logprob_count = 5;
    params.temperature = row % 3 == 0 ? 0.0f : 0.8f;
    if (row % 3 != 2) return params;
    params.top_k = 400;
    params.top_p = 0.95f;
    params.min_p = 0.001f;
    params.repetition_penalty = 1.25f;
    params.presence_penalty = 0.5f;
    params.logit_bias = {{7, 1.5f}};
    return params;
  }

  Backend* const backend_;
  CheckedOps ops_;
  const WeightType weights_;
  const Shape shape_;
  uint32_t next_stream_ = 0;
  BlockId first_block_ = 0;  // of sequence 0
  std::unique_ptr<PackedMatrix> embedding_, qkv_, projection_, gate_up_, down_,
      head_;
  std::vector<float> norm_, qkv_bias_, hidden_bias_, gate_bias_;
  std::unique_ptr<KvStorage> kv_;
  Digest digest_;
};

}  // namespace

absl::StatusOr<std::string> RunSelfTest(Backend* backend, WeightTypes weights) {
  std::vector<WeightType> types;
  weights.ForEach([&types](WeightType type) { types.push_back(type); });
  if (types.size() == 1) return SelfTest(backend, types[0]).Run();
  Digest all;
  for (const WeightType type : types) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string digest,
                             SelfTest(backend, type).Run());
    all.Add(digest.data(), digest.size());
  }
  return all.Finish();
}

}  // namespace caravan::worker
