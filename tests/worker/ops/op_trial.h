// One seeded layer of some shape, run through every phase of a backend: what
// backends are compared by.
#ifndef CARAVAN_TESTS_WORKER_OPS_OP_TRIAL_H_
#define CARAVAN_TESTS_WORKER_OPS_OP_TRIAL_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/random_blocks.h"
#include "tests/support/status_matchers.h"
#include "worker/ops/backend.h"
#include "worker/ops/check.h"

namespace caravan::worker::testing {

struct TrialShape {
  std::string name;
  int64_t hidden = 64;
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  int64_t feed_forward = 96;
  int64_t vocabulary = 130;
  WeightType weights = WeightType::kFp32;
  // Of value heads, where q, k and v have not one type.
  std::optional<WeightType> values = std::nullopt;
  bool bias = false;
  uint32_t seed = 1;
};

// Tokens of one sequence within the trial's step; its earlier positions have
// been stored by the same backend before.
struct TrialSequence {
  int32_t past = 0;
  int32_t tokens = 1;
};

using Bits = std::vector<uint32_t>;
using TrialResult = std::map<std::string, Bits>;

inline float UniformFloat(std::mt19937& random, float limit) {
  return (static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f) * limit;
}

inline std::vector<float> Floats(std::mt19937& random, int64_t count,
                                 float limit) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = UniformFloat(random, limit);
  return values;
}

inline Bits BitsOf(const std::vector<float>& values) {
  Bits bits;
  bits.reserve(values.size());
  for (const float value : values) {
    bits.push_back(std::bit_cast<uint32_t>(value));
  }
  return bits;
}

// Rounds to fp16 well enough for test data: normal numbers, by truncation.
inline Fp16 TruncateToFp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const int32_t exponent = static_cast<int32_t>((bits >> 23) & 255) - 112;
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  if (exponent <= 0) {  // a subnormal, so that those are tested too
    return {static_cast<uint16_t>(sign | ((bits >> 13) & 1023))};
  }
  return {
      static_cast<uint16_t>(sign | (exponent << 10) | ((bits >> 13) & 1023))};
}

// A random matrix in a checkpoint's type, deliberately not aligned.
class TrialMatrix {
 public:
  TrialMatrix(std::mt19937& random, WeightType type, int64_t rows, int64_t cols)
      : type_(type), rows_(rows), cols_(cols) {
    if (!IsPlain(type)) {
      bytes_ = caravan::testing::RandomBlocks(random, type, rows * cols);
      bytes_.insert(bytes_.begin(), std::byte{0});
      return;
    }
    bytes_.resize(static_cast<size_t>(RowBytes(type, rows * cols)) + 1);
    const float limit = 1.0f / std::sqrt(static_cast<float>(cols));
    for (int64_t i = 0; i < rows * cols; ++i) {
      Put(i, UniformFloat(random, limit));
    }
  }
  RawMatrix raw() const { return {bytes_.data() + 1, type_, rows_, cols_}; }

 private:
  void Put(int64_t i, float value) {
    std::byte* const target = bytes_.data() + 1 + RowBytes(type_, i);
    if (type_ == WeightType::kFp32) {
      std::memcpy(target, &value, 4);
    } else if (type_ == WeightType::kBf16) {
      const Bf16 half = ToBf16(value);
      std::memcpy(target, &half, 2);
    } else {
      const Fp16 half = TruncateToFp16(value);
      std::memcpy(target, &half, 2);
    }
  }

  WeightType type_;
  int64_t rows_;
  int64_t cols_;
  std::vector<std::byte> bytes_;
};

// A layer's weights packed by one backend, and its KV cache.
class OpTrial {
 public:
  OpTrial(Backend& backend, const TrialShape& shape)
      : backend_(backend), ops_(&backend), shape_(shape), random_(shape.seed) {
    const int64_t qkv_rows =
        int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
    const int64_t q_rows = int64_t{shape.heads} * shape.head_dim;
    const int64_t kv_rows = int64_t{shape.kv_heads} * shape.head_dim;
    embedding_ = Pack({Matrix(shape.vocabulary, shape.hidden)},
                      {PackKind::kEmbedding, 32});
    qkv_ = Pack({Matrix(q_rows, shape.hidden), Matrix(kv_rows, shape.hidden),
                 TrialMatrix(random_, shape.values.value_or(shape.weights),
                             kv_rows, shape.hidden)},
                {PackKind::kQkv, shape.head_dim});
    projection_ = Pack({Matrix(shape.hidden, q_rows)},
                       {PackKind::kHeadSegments, shape.head_dim});
    gate_up_ = Pack({Matrix(shape.feed_forward, shape.hidden),
                     Matrix(shape.feed_forward, shape.hidden)},
                    {PackKind::kGateUp, 32});
    down_ = Pack({Matrix(shape.hidden, shape.feed_forward)},
                 {PackKind::kGroupSegments, 32});
    head_ =
        Pack({Matrix(shape.vocabulary, shape.hidden)}, {PackKind::kHead, 32});
    norm_ = Floats(random_, shape.hidden, 2.0f);
    qkv_bias_ = Bias(qkv_rows);
    hidden_bias_ = Bias(shape.hidden);
    gate_bias_ = Bias(shape.feed_forward);
    up_bias_ = Bias(shape.feed_forward);
    auto kv = backend.AllocateKv({.layers = kLayers,
                                  .kv_heads = shape.kv_heads,
                                  .head_dim = shape.head_dim,
                                  .block_count = kBlocks});
    EXPECT_OK(kv.status());
    kv_ = *std::move(kv);
  }

  // Stores the past of all sequences, then runs their tokens in one step.
  TrialResult Run(const std::vector<TrialSequence>& sequences) {
    std::vector<TrialSequence> pasts;
    for (const TrialSequence& sequence : sequences) {
      pasts.push_back({.past = 0, .tokens = sequence.past});
    }
    Step(pasts);
    return Step(sequences);
  }

  // All phases on one step. Sequence s has the blocks (s * 37 + 11 i) mod
  // kBlocks; its token at position p is the same in every step.
  TrialResult Step(const std::vector<TrialSequence>& sequences) {
    StepData step = MakeStep(sequences);
    const int64_t tokens = static_cast<int64_t>(step.ids.size());
    const int64_t q_width = int64_t{shape_.heads} * shape_.head_dim;
    TrialResult result;
    std::vector<float> x(tokens * shape_.hidden);
    const View<float> x_view(x.data(), tokens, shape_.hidden);
    EXPECT_OK(
        ops_.Embed({.ids = step.ids, .table = embedding_.get(), .x = x_view}));
    result["embed"] = BitsOf(x);

    std::vector<float> q(tokens * q_width);
    const View<float> q_view(q.data(), tokens, q_width);
    const int64_t half = shape_.head_dim / 2;
    EXPECT_OK(ops_.NormQkvRopeStore(
        {.x = x_view,
         .norm = norm_,
         .epsilon = 1e-5f,
         .qkv = qkv_.get(),
         .bias = qkv_bias_,
         .cos = View<const float>(step.cos.data(), tokens, half),
         .sin = View<const float>(step.sin.data(), tokens, half),
         .slots = step.slots,
         .layer = 1,
         .heads = shape_.heads,
         .kv_heads = shape_.kv_heads,
         .head_dim = shape_.head_dim,
         .kv = kv_.get(),
         .q = q_view}));
    result["qkv"] = BitsOf(q);

    std::vector<float> attended(tokens * q_width);
    const View<float> attended_view(attended.data(), tokens, q_width);
    EXPECT_OK(ops_.Attend({.q = q_view,
                           .rows = step.rows,
                           .layer = 1,
                           .heads = shape_.heads,
                           .kv_heads = shape_.kv_heads,
                           .head_dim = shape_.head_dim,
                           .kv = kv_.get(),
                           .out = attended_view}));
    result["attend"] = BitsOf(attended);

    EXPECT_OK(ops_.ProjectAdd({.a = attended_view,
                               .w = projection_.get(),
                               .bias = hidden_bias_,
                               .x = x_view}));
    result["project"] = BitsOf(x);

    std::vector<float> h(tokens * shape_.feed_forward);
    const View<float> h_view(h.data(), tokens, shape_.feed_forward);
    EXPECT_OK(ops_.NormGateUpSilu({.x = x_view,
                                   .norm = norm_,
                                   .epsilon = 1e-5f,
                                   .gate_up = gate_up_.get(),
                                   .gate_bias = gate_bias_,
                                   .up_bias = up_bias_,
                                   .out = h_view}));
    result["gate_up"] = BitsOf(h);

    EXPECT_OK(ops_.DownAdd(
        {.h = h_view, .w = down_.get(), .bias = hidden_bias_, .x = x_view}));
    result["down"] = BitsOf(x);

    std::vector<int32_t> wanted;  // every second token
    for (int32_t t = 0; t < tokens; t += 2) wanted.push_back(t);
    std::vector<float> logits(wanted.size() * shape_.vocabulary);
    EXPECT_OK(
        ops_.NormHead({.x = x_view,
                       .tokens = wanted,
                       .norm = norm_,
                       .epsilon = 1e-5f,
                       .head = head_.get(),
                       .logits = View<float>(
                           logits.data(), static_cast<int64_t>(wanted.size()),
                           shape_.vocabulary)}));
    result["head"] = BitsOf(logits);
    return result;
  }

  KvStorage* kv() { return kv_.get(); }
  const TrialShape& shape() const { return shape_; }

 private:
  static constexpr int32_t kLayers = 2;
  static constexpr int32_t kBlocks = 1200;

  struct StepData {
    std::vector<int32_t> ids;
    std::vector<float> cos;
    std::vector<float> sin;
    std::vector<int64_t> slots;
    std::vector<AttentionRow> rows;
    std::vector<std::unique_ptr<std::vector<BlockId>>> blocks;
  };

  TrialMatrix Matrix(int64_t rows, int64_t cols) {
    return TrialMatrix(random_, shape_.weights, rows, cols);
  }
  std::vector<float> Bias(int64_t count) {
    return shape_.bias ? Floats(random_, count, 1.0f) : std::vector<float>();
  }
  std::unique_ptr<PackedMatrix> Pack(const std::vector<TrialMatrix>& parts,
                                     PackSpec spec) {
    std::vector<RawMatrix> raw;
    for (const TrialMatrix& part : parts) raw.push_back(part.raw());
    auto packed = backend_.Pack(raw, spec);
    EXPECT_OK(packed.status());
    EXPECT_EQ((*packed)->bytes, backend_.PackedBytes(raw, spec));
    return *std::move(packed);
  }

  StepData MakeStep(const std::vector<TrialSequence>& sequences) {
    StepData step;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const TrialSequence& sequence = sequences[s];
      if (sequence.tokens == 0) continue;
      auto blocks = std::make_unique<std::vector<BlockId>>();
      const int32_t end = sequence.past + sequence.tokens;
      for (int32_t i = 0; i * kBlockSlots < end; ++i) {
        blocks->push_back(static_cast<int32_t>((s * 37 + i * 11) % kBlocks));
      }
      step.rows.push_back({.first_token = static_cast<int32_t>(step.ids.size()),
                           .token_count = sequence.tokens,
                           .first_position = sequence.past,
                           .blocks = *blocks});
      for (int32_t p = sequence.past; p < end; ++p) {
        AddToken(p, static_cast<uint32_t>(s), *blocks, step);
      }
      step.blocks.push_back(std::move(blocks));
    }
    return step;
  }

  void AddToken(int32_t position, uint32_t sequence,
                const std::vector<BlockId>& blocks, StepData& step) {
    std::mt19937 random(sequence * 100003 + static_cast<uint32_t>(position));
    step.ids.push_back(static_cast<int32_t>(
        random() % static_cast<uint64_t>(shape_.vocabulary)));
    for (int32_t i = 0; i < shape_.head_dim / 2; ++i) {
      step.cos.push_back(UniformFloat(random, 1.0f));
      step.sin.push_back(UniformFloat(random, 1.0f));
    }
    step.slots.push_back(int64_t{blocks[position / kBlockSlots]} * kBlockSlots +
                         position % kBlockSlots);
  }

  Backend& backend_;
  CheckedOps ops_;
  const TrialShape shape_;
  std::mt19937 random_;
  std::unique_ptr<PackedMatrix> embedding_;
  std::unique_ptr<PackedMatrix> qkv_;
  std::unique_ptr<PackedMatrix> projection_;
  std::unique_ptr<PackedMatrix> gate_up_;
  std::unique_ptr<PackedMatrix> down_;
  std::unique_ptr<PackedMatrix> head_;
  std::vector<float> norm_;
  std::vector<float> qkv_bias_;
  std::vector<float> hidden_bias_;
  std::vector<float> gate_bias_;
  std::vector<float> up_bias_;
  std::unique_ptr<KvStorage> kv_;
};

}  // namespace caravan::worker::testing

#endif  // CARAVAN_TESTS_WORKER_OPS_OP_TRIAL_H_
