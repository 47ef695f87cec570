#include "worker/model/layout.h"

#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr int64_t kGroupUnit = 32;  // of the down projection's segments

TensorSpec Tensor(std::string name, TensorGroup group, int64_t rows,
                  int64_t cols = 0) {
  return {std::move(name), group, rows, cols};
}

void AddAttention(const ModelConfig& c, const std::string& prefix,
                  LayerLayout& layer) {
  constexpr TensorGroup kGroup = TensorGroup::kAttention;
  const int64_t q = int64_t{c.heads} * c.head_dim;
  const int64_t kv = int64_t{c.kv_heads} * c.head_dim;
  const auto weight = [&](std::string_view part, int64_t rows, int64_t cols) {
    return Tensor(StrCat(prefix, "self_attn.", part, "_proj.weight"), kGroup,
                  rows, cols);
  };
  const auto bias = [&](std::string_view part, int64_t rows) {
    return Tensor(StrCat(prefix, "self_attn.", part, "_proj.bias"), kGroup,
                  rows);
  };
  layer.qkv = {{weight("q", q, c.hidden_size), weight("k", kv, c.hidden_size),
                weight("v", kv, c.hidden_size)},
               {PackKind::kQkv, c.head_dim}};
  layer.output = {{weight("o", c.hidden_size, q)},
                  {PackKind::kHeadSegments, c.head_dim}};
  if (!c.attention_bias) return;
  layer.qkv_bias = {bias("q", q), bias("k", kv), bias("v", kv)};
  layer.output_bias = {bias("o", c.hidden_size)};
}

void AddFeedForward(const ModelConfig& c, const std::string& prefix,
                    LayerLayout& layer) {
  constexpr TensorGroup kGroup = TensorGroup::kFeedForward;
  const int64_t width = c.intermediate_size;
  const auto weight = [&](std::string_view part, int64_t rows, int64_t cols) {
    return Tensor(StrCat(prefix, "mlp.", part, "_proj.weight"), kGroup, rows,
                  cols);
  };
  const auto bias = [&](std::string_view part, int64_t rows) {
    return Tensor(StrCat(prefix, "mlp.", part, "_proj.bias"), kGroup, rows);
  };
  layer.gate_up = {{weight("gate", width, c.hidden_size),
                    weight("up", width, c.hidden_size)},
                   {PackKind::kGateUp, kGroupUnit}};
  layer.down = {{weight("down", c.hidden_size, width)},
                {PackKind::kGroupSegments, kGroupUnit}};
  if (!c.mlp_bias) return;
  layer.gate_bias = {bias("gate", width)};
  layer.up_bias = {bias("up", width)};
  layer.down_bias = {bias("down", c.hidden_size)};
}

LayerLayout MakeLayer(const ModelConfig& c, int32_t index) {
  const std::string prefix = StrCat("model.layers.", index, ".");
  LayerLayout layer;
  layer.attention_norm = {Tensor(StrCat(prefix, "input_layernorm.weight"),
                                 TensorGroup::kNorms, c.hidden_size)};
  AddAttention(c, prefix, layer);
  layer.feed_forward_norm = {
      Tensor(StrCat(prefix, "post_attention_layernorm.weight"),
             TensorGroup::kNorms, c.hidden_size)};
  AddFeedForward(c, prefix, layer);
  return layer;
}

}  // namespace

std::string_view Name(TensorGroup group) {
  switch (group) {
    case TensorGroup::kEmbedding:
      return "embedding";
    case TensorGroup::kAttention:
      return "attention";
    case TensorGroup::kFeedForward:
      return "feed-forward";
    case TensorGroup::kNorms:
      return "norms";
    case TensorGroup::kHead:
      return "head";
  }
  return "unknown";
}

MatrixSpec ModelLayout::TiedHead() const {
  return {embedding->parts, {PackKind::kHead, embedding->pack.unit}};
}

ModelLayout MakeLayout(const ModelConfig& c) {
  ModelLayout layout;
  const TensorSpec table =
      Tensor("model.embed_tokens.weight", TensorGroup::kEmbedding, c.vocab_size,
             c.hidden_size);
  if (c.stage.first()) {
    layout.embedding = {{table}, {PackKind::kEmbedding, kGroupUnit}};
  }
  const LayerRange layers = c.stage_layers();
  for (int32_t i = layers.begin; i < layers.end; ++i) {
    layout.layers.push_back(MakeLayer(c, i));
  }
  layout.ends_model = c.stage.last();
  if (!layout.ends_model) return layout;
  layout.final_norm = {
      Tensor("model.norm.weight", TensorGroup::kNorms, c.hidden_size)};
  const PackSpec head = {PackKind::kHead, kGroupUnit};
  if (!c.tied_embeddings) {
    layout.head = MatrixSpec{{Tensor("lm_head.weight", TensorGroup::kHead,
                                     c.vocab_size, c.hidden_size)},
                             head};
  } else if (!c.stage.first()) {
    layout.head = MatrixSpec{{table}, head};
  }
  return layout;
}

std::vector<MatrixSpec> PackedMatrices(const ModelLayout& layout,
                                       bool embeds_from_head) {
  std::vector<MatrixSpec> all;
  for (const LayerLayout& layer : layout.layers) {
    for (const MatrixSpec* const matrix :
         {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
      all.push_back(*matrix);
    }
  }
  if (layout.tied()) all.push_back(layout.TiedHead());
  if (layout.head) all.push_back(*layout.head);
  if (layout.embedding && !(layout.tied() && embeds_from_head)) {
    all.push_back(*layout.embedding);
  }
  return all;
}

std::vector<TensorSpec> AllTensors(const ModelLayout& layout) {
  std::vector<TensorSpec> all;
  const auto add = [&all](const std::vector<TensorSpec>& tensors) {
    all.insert(all.end(), tensors.begin(), tensors.end());
  };
  if (layout.embedding) add(layout.embedding->parts);
  for (const LayerLayout& layer : layout.layers) {
    add(layer.attention_norm);
    add(layer.qkv.parts);
    add(layer.qkv_bias);
    add(layer.output.parts);
    add(layer.output_bias);
    add(layer.feed_forward_norm);
    add(layer.gate_up.parts);
    add(layer.gate_bias);
    add(layer.up_bias);
    add(layer.down.parts);
    add(layer.down_bias);
  }
  add(layout.final_norm);
  if (layout.head) add(layout.head->parts);
  return all;
}

}  // namespace caravan::worker
