// Which tensors a configuration has, under their Hugging Face names, and which
// of them are packed together: the one list that loading, planning and making
// random models go by.
#ifndef CARAVAN_WORKER_MODEL_LAYOUT_H_
#define CARAVAN_WORKER_MODEL_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/model/config.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

enum class TensorGroup { kEmbedding, kAttention, kFeedForward, kNorms, kHead };
inline constexpr int kTensorGroupCount = 5;

// "embedding", "attention", "feed-forward", "norms", "head".
std::string_view Name(TensorGroup group);

// A tensor of a checkpoint; `cols` is 0 for a vector.
struct TensorSpec {
  std::string name;
  TensorGroup group = TensorGroup::kAttention;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t elements() const { return cols == 0 ? rows : rows * cols; }
};

// Matrices that are packed as one.
struct MatrixSpec {
  std::vector<TensorSpec> parts;
  PackSpec pack;
};

// Vectors that are joined into one; empty where the model has none.
using VectorSpec = std::vector<TensorSpec>;

struct LayerLayout {
  VectorSpec attention_norm;
  MatrixSpec qkv;
  VectorSpec qkv_bias;
  MatrixSpec output;
  VectorSpec output_bias;
  VectorSpec feed_forward_norm;
  MatrixSpec gate_up;
  VectorSpec gate_bias;
  VectorSpec up_bias;
  MatrixSpec down;
  VectorSpec down_bias;
};

// Of the configuration's stage: the first has the embedding, the last the norm
// and the head.
struct ModelLayout {
  std::optional<MatrixSpec> embedding;
  std::vector<LayerLayout> layers;  // of the stage
  VectorSpec final_norm;
  // Absent where `embedding` serves as both; in a last stage without embedding
  // it is the tied table.
  std::optional<MatrixSpec> head;
  bool ends_model = false;  // the last stage

  // Whether the stage's one table both embeds and gives logits.
  bool tied() const { return ends_model && !head.has_value(); }
  // How the tied table is packed for the head. Precondition: tied().
  MatrixSpec TiedHead() const;
};

ModelLayout MakeLayout(const ModelConfig& config);

// Every matrix that a backend packs, once each: with `embeds_from_head`
// (Backend::CanEmbedFromHead) a tied table is packed only as the head.
std::vector<MatrixSpec> PackedMatrices(const ModelLayout& layout,
                                       bool embeds_from_head);

// Every tensor, in the order of the layers.
std::vector<TensorSpec> AllTensors(const ModelLayout& layout);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_LAYOUT_H_
