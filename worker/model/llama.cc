#include "worker/model/llama.h"

#include <array>
#include <utility>

#include "common/status/status_macros.h"

namespace caravan::worker {
namespace {

// Columns of the arrays of an arena, in its order.
struct ArenaColumns {
  int64_t x, q, attention, hidden, cos, sin;
  explicit ArenaColumns(const ModelConfig& c)
      : x(c.hidden_size),
        q(int64_t{c.heads} * c.head_dim),
        attention(q),
        hidden(c.intermediate_size),
        cos(c.head_dim / 2),
        sin(c.head_dim / 2) {}
};

constexpr int64_t kFloatsPerLine = Buffer::kAlignment / sizeof(float);

// Floats of an array, rounded up so that the next one is aligned.
int64_t Floats(int64_t rows, int64_t cols) {
  return (rows * cols + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

// Only the last stage has logits.
int32_t LogitsRows(const ModelConfig& config, int32_t max_logits_rows) {
  return config.stage.last() ? max_logits_rows : 0;
}

int64_t ArenaFloats(const ModelConfig& config, int32_t max_tokens,
                    int32_t max_logits_rows) {
  const ArenaColumns cols(config);
  int64_t floats =
      Floats(LogitsRows(config, max_logits_rows), config.vocab_size);
  for (const int64_t c :
       {cols.x, cols.q, cols.attention, cols.hidden, cols.cos, cols.sin}) {
    floats += Floats(max_tokens, c);
  }
  return floats;
}

}  // namespace

size_t Activations::PlannedBytes(const ModelConfig& config, int32_t max_tokens,
                                 int32_t max_logits_rows) {
  return Buffer::AllocatedBytes(
      sizeof(float) * ArenaFloats(config, max_tokens, max_logits_rows));
}

absl::StatusOr<Activations> Activations::Allocate(const ModelConfig& config,
                                                  int32_t max_tokens,
                                                  int32_t max_logits_rows) {
  Activations a;
  a.max_tokens_ = max_tokens;
  a.max_logits_rows_ = max_logits_rows;
  CARAVAN_ASSIGN_OR_RETURN(
      a.buffer_,
      Buffer::Allocate(sizeof(float) *
                       ArenaFloats(config, max_tokens, max_logits_rows)));
  float* next = a.buffer_.As<float>();
  const auto take = [&next](int64_t rows, int64_t cols) {
    return View<float>(std::exchange(next, next + Floats(rows, cols)), rows,
                       cols);
  };
  const ArenaColumns cols(config);
  a.x_ = take(max_tokens, cols.x);
  a.q_ = take(max_tokens, cols.q);
  a.attention_ = take(max_tokens, cols.attention);
  a.hidden_ = take(max_tokens, cols.hidden);
  a.cos_ = take(max_tokens, cols.cos);
  a.sin_ = take(max_tokens, cols.sin);
  a.logits_ = take(LogitsRows(config, max_logits_rows), config.vocab_size);
  return a;
}

absl::Status Llama::Forward(const LlamaStep& step, KvStorage* kv,
                            Activations& activations) {
  const ModelConfig& c = config_;
  const int64_t tokens = std::ssize(step.ids);
  const View<float> x = activations.x(tokens);
  const View<float> q = activations.q(tokens);
  const View<float> attention = activations.attention(tokens);
  const View<float> hidden = activations.hidden(tokens);

  if (c.stage.first()) {
    CARAVAN_RETURN_IF_ERROR(ops_.Embed(
        {.ids = step.ids, .table = weights_.embedding_table(), .x = x}));
  }
  // Layers, their keys and their values are numbered from the stage's first.
  const int32_t layers = c.stage_layers().size();
  for (int32_t layer = 0; layer < layers; ++layer) {
    const LayerWeights& w = weights_.layers[layer];
    CARAVAN_RETURN_IF_ERROR(
        ops_.NormQkvRopeStore({.x = x,
                               .norm = w.attention_norm,
                               .epsilon = c.rms_norm_eps,
                               .qkv = w.qkv.get(),
                               .bias = w.qkv_bias,
                               .cos = activations.cos(tokens),
                               .sin = activations.sin(tokens),
                               .slots = step.slots,
                               .layer = layer,
                               .heads = c.heads,
                               .kv_heads = c.kv_heads,
                               .head_dim = c.head_dim,
                               .kv = kv,
                               .q = q}));
    CARAVAN_RETURN_IF_ERROR(ops_.Attend({.q = q,
                                         .rows = step.rows,
                                         .layer = layer,
                                         .heads = c.heads,
                                         .kv_heads = c.kv_heads,
                                         .head_dim = c.head_dim,
                                         .kv = kv,
                                         .out = attention}));
    CARAVAN_RETURN_IF_ERROR(ops_.ProjectAdd(
        {.a = attention, .w = w.output.get(), .bias = w.output_bias, .x = x}));
    CARAVAN_RETURN_IF_ERROR(ops_.NormGateUpSilu({.x = x,
                                                 .norm = w.feed_forward_norm,
                                                 .epsilon = c.rms_norm_eps,
                                                 .gate_up = w.gate_up.get(),
                                                 .gate_bias = w.gate_bias,
                                                 .up_bias = w.up_bias,
                                                 .out = hidden}));
    CARAVAN_RETURN_IF_ERROR(ops_.DownAdd(
        {.h = hidden, .w = w.down.get(), .bias = w.down_bias, .x = x}));
  }
  return absl::OkStatus();
}

absl::Status Llama::Logits(std::span<const int32_t> tokens, int64_t token_count,
                           Activations& activations) {
  return ops_.NormHead({.x = activations.x(token_count),
                        .tokens = tokens,
                        .norm = weights_.final_norm,
                        .epsilon = config_.rms_norm_eps,
                        .head = weights_.head.get(),
                        .logits = activations.logits(std::ssize(tokens))});
}

}  // namespace caravan::worker
