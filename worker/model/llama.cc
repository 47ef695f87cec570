#include "worker/model/llama.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/status/status_macros.h"

namespace caravan::worker {
namespace {

constexpr int64_t kFloatsPerLine = Buffer::kAlignment / sizeof(float);

// Floats of an array, rounded up so that the next one is aligned.
int64_t Floats(int64_t rows, int64_t cols) {
  return (rows * cols + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

// An array of the activations: its shape, and whether the host needs it.
struct ArraySpec {
  int64_t rows;
  int64_t cols;
  bool host;
};

enum Array { kX, kQ, kAttention, kHidden, kCos, kSin, kLogits, kArrayCount };

std::array<ArraySpec, kArrayCount> ArraysOf(const ModelConfig& config,
                                            int32_t max_tokens,
                                            int32_t max_logits_rows,
                                            const Backend& backend) {
  const bool apart = !backend.ArenasAreHostMemory();
  const bool alone = config.stage.first() && config.stage.last();
  const int64_t heads = int64_t{config.heads} * config.head_dim;
  // Only the last stage has logits.
  const int32_t logits_rows = config.stage.last() ? max_logits_rows : 0;
  return {{{max_tokens, config.hidden_size, apart && !alone},
           {max_tokens, heads, false},
           {max_tokens, heads, false},
           {max_tokens, config.intermediate_size, false},
           {max_tokens, config.head_dim / 2, apart},
           {max_tokens, config.head_dim / 2, apart},
           {logits_rows, config.vocab_size, false}}};
}

// Where arrays begin, in floats of the memory they lie in.
struct Places {
  std::array<int64_t, kArrayCount> first = {};
  int64_t arena_floats = 0;
  int64_t host_floats = 0;

  size_t arena_bytes() const { return sizeof(float) * arena_floats; }
  size_t host_bytes() const { return sizeof(float) * host_floats; }
};

// Queries and attended values are done with when a layer's hidden rows are
// made, and all of these when logits are: each takes the place of those before.
Places PlacesOf(std::span<const ArraySpec, kArrayCount> arrays) {
  Places places;
  for (size_t i = 0; i < arrays.size(); ++i) {
    const ArraySpec& array = arrays[i];
    int64_t& end = array.host ? places.host_floats : places.arena_floats;
    const bool again = i == kHidden || i == kLogits;
    places.first[i] = again ? places.first[kQ] : end;
    end = std::max(end, places.first[i] + Floats(array.rows, array.cols));
  }
  return places;
}

}  // namespace

size_t Activations::PlannedBytes(const ModelConfig& config, int32_t max_tokens,
                                 int32_t max_logits_rows,
                                 const Backend& backend) {
  const auto arrays = ArraysOf(config, max_tokens, max_logits_rows, backend);
  const Places places = PlacesOf(arrays);
  return backend.ArenaBytes(places.arena_bytes()) +
         Buffer::AllocatedBytes(places.host_bytes());
}

absl::StatusOr<Activations> Activations::Allocate(const ModelConfig& config,
                                                  int32_t max_tokens,
                                                  int32_t max_logits_rows,
                                                  Backend* backend) {
  const auto arrays = ArraysOf(config, max_tokens, max_logits_rows, *backend);
  Activations a;
  a.max_tokens_ = max_tokens;
  a.max_logits_rows_ = max_logits_rows;
  const Places places = PlacesOf(arrays);
  CARAVAN_ASSIGN_OR_RETURN(a.arena_,
                           backend->AllocateArena(places.arena_bytes()));
  CARAVAN_ASSIGN_OR_RETURN(a.host_, Buffer::Allocate(places.host_bytes()));
  float* const arena = reinterpret_cast<float*>(a.arena_->data);
  std::array<View<float>, kArrayCount> views;
  for (int i = 0; i < kArrayCount; ++i) {
    const ArraySpec& array = arrays[i];
    float* const memory = array.host ? a.host_.As<float>() : arena;
    views[i] = View<float>(memory + places.first[i], array.rows, array.cols);
  }
  a.x_ = views[kX];
  a.q_ = views[kQ];
  a.attention_ = views[kAttention];
  a.hidden_ = views[kHidden];
  a.cos_ = views[kCos];
  a.sin_ = views[kSin];
  a.logits_ = views[kLogits];
  return a;
}

size_t Activations::bytes() const {
  return arena_->bytes + Buffer::AllocatedBytes(host_.size());
}

absl::Status Llama::Forward(const LlamaStep& step, KvStorage* kv,
                            Activations& activations) {
  const int64_t tokens = std::ssize(step.ids);
  CARAVAN_RETURN_IF_ERROR(
      backend_->BeginStep({.ids = step.ids,
                           .slots = step.slots,
                           .rows = step.rows,
                           .cos = activations.cos(tokens),
                           .sin = activations.sin(tokens)}));
  const absl::Status status = Layers(step, kv, activations);
  backend_->EndStep();
  return status;
}

absl::Status Llama::Layers(const LlamaStep& step, KvStorage* kv,
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
