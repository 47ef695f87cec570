#include "worker/model/memory_plan.h"

#include <algorithm>
#include <vector>

#include "worker/model/llama.h"
#include "worker/ops/ops.h"

namespace caravan::worker {
namespace {

MatrixShape ShapeOf(const MatrixSpec& matrix, const TensorTypes& types) {
  MatrixShape shape = {matrix.parts[0].name, {}, matrix.pack};
  for (const TensorSpec& part : matrix.parts) {
    shape.parts.emplace_back(nullptr, types(part.name), part.rows, part.cols);
  }
  return shape;
}

// Adds up tensors group by group.
class Counter {
 public:
  Counter(const TensorTypes& types, const Backend& backend, MemoryPlan* plan)
      : types_(types), backend_(backend), plan_(*plan) {
    for (int i = 0; i < kTensorGroupCount; ++i) {
      plan_.groups[i].group = static_cast<TensorGroup>(i);
    }
  }

  void Tensor(const TensorSpec& tensor) {
    GroupPlan& group = GroupOf(tensor);
    group.parameters += tensor.elements();
    group.checkpoint_bytes += static_cast<size_t>(
        tensor.cols == 0
            ? RowBytes(types_(tensor.name), tensor.rows)
            : tensor.rows * RowBytes(types_(tensor.name), tensor.cols));
    if (tensor.cols == 0) group.packed_bytes += tensor.rows * sizeof(float);
  }

  void Packed(const MatrixSpec& matrix) {
    const MatrixShape shape = ShapeOf(matrix, types_);
    GroupOf(matrix.parts[0]).packed_bytes +=
        backend_.PackedBytes(shape.parts, shape.spec);
  }

 private:
  GroupPlan& GroupOf(const TensorSpec& tensor) {
    return plan_.groups[static_cast<int>(tensor.group)];
  }

  const TensorTypes& types_;
  const Backend& backend_;
  MemoryPlan& plan_;
};

// Bytes of one block, rounding of whole allocations left out.
size_t BlockBytes(const ModelConfig& config, const Backend& backend) {
  constexpr int32_t kMany = 1 << 17;
  return (backend.KvBytes(KvSpecOf(config, 2 * kMany)) -
          backend.KvBytes(KvSpecOf(config, kMany))) /
         kMany;
}

}  // namespace

WeightTypes WidenedTypes(const Backend& backend, WeightTypes types) {
  // Whole blocks of every type; rows for as many ranks as there may be.
  const auto packed_bytes = [&backend](WeightType type) {
    const RawMatrix matrix(nullptr, type, /*rows=*/1024, /*cols=*/2048);
    return backend.PackedBytes({&matrix, 1}, {.kind = PackKind::kHead});
  };
  const size_t fp32_bytes = packed_bytes(WeightType::kFp32);
  WeightTypes widened;
  types.ForEach([&](WeightType type) {
    if (type != WeightType::kFp32 && packed_bytes(type) == fp32_bytes) {
      widened.Add(type);
    }
  });
  return widened;
}

DType PlannedDType(const ModelConfig& config) {
  return config.torch_dtype.value_or(DType::kFp32);
}

ScratchSpec ScratchSpecOf(const ModelConfig& config, int32_t max_step_tokens,
                          int32_t max_logits_rows) {
  return {
      .max_tokens = max_step_tokens,
      .hidden = config.hidden_size,
      .qkv_rows = int64_t{config.heads + 2 * config.kv_heads} * config.head_dim,
      .widest = std::max<int64_t>({config.hidden_size, config.intermediate_size,
                                   int64_t{config.heads} * config.head_dim}),
      .heads = config.heads,
      .logits_rows = config.stage.last() ? max_logits_rows : 0,
      .vocabulary = config.vocab_size};
}

KvSpec KvSpecOf(const ModelConfig& config, int32_t block_count) {
  return {config.stage_layers().size(), config.kv_heads, config.head_dim,
          block_count};
}

MemoryPlan MakeMemoryPlan(const ModelConfig& config, DType dtype,
                          const Backend& backend,
                          const MemoryPlanOptions& options) {
  const auto types = [dtype](const std::string&) { return FromDType(dtype); };
  return MakeMemoryPlan(config, TensorTypes(types), backend, options);
}

MemoryPlan MakeMemoryPlan(const ModelConfig& config, const TensorTypes& types,
                          const Backend& backend,
                          const MemoryPlanOptions& options) {
  const ModelLayout layout = MakeLayout(config);
  MemoryPlan plan;
  Counter counter(types, backend, &plan);
  for (const TensorSpec& tensor : AllTensors(layout)) counter.Tensor(tensor);
  for (const MatrixSpec& matrix :
       PackedMatrices(layout, backend.CanEmbedFromHead())) {
    counter.Packed(matrix);
  }
  for (const GroupPlan& group : plan.groups) {
    plan.parameters += group.parameters;
    plan.checkpoint_bytes += group.checkpoint_bytes;
    plan.weight_bytes += group.packed_bytes;
  }
  plan.arena_bytes = Activations::PlannedBytes(
      config, options.max_step_tokens, options.max_logits_rows, backend);
  plan.scratch_bytes = backend.ScratchBytes(
      ScratchSpecOf(config, options.max_step_tokens, options.max_logits_rows));
  plan.kv_block_bytes = BlockBytes(config, backend);
  plan.kv_bytes_per_token = plan.kv_block_bytes / kBlockSlots;
  return plan;
}

std::vector<MatrixShape> MatrixShapes(const ModelConfig& config,
                                      const TensorTypes& types,
                                      const Backend& backend) {
  std::vector<MatrixShape> shapes;
  for (const MatrixSpec& matrix :
       PackedMatrices(MakeLayout(config), backend.CanEmbedFromHead())) {
    shapes.push_back(ShapeOf(matrix, types));
  }
  return shapes;
}

int32_t BlocksThatFit(const ModelConfig& config, const Backend& backend,
                      size_t bytes, int32_t most) {
  int32_t fits = 0;
  int32_t above = most;
  while (fits < above) {
    const int32_t middle = fits + (above - fits + 1) / 2;
    if (backend.KvBytes(KvSpecOf(config, middle)) <= bytes) {
      fits = middle;
    } else {
      above = middle - 1;
    }
  }
  return fits;
}

}  // namespace caravan::worker
