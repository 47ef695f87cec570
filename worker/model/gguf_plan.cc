#include "worker/model/gguf_plan.h"

#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "common/gguf/gguf_file.h"
#include "common/gguf/gguf_writer.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "worker/model/gguf_names.h"
#include "worker/model/gguf_tokenizer.h"
#include "worker/model/rope.h"

namespace caravan::worker {
namespace {

constexpr std::string_view kRopeFrequencies = "rope_freqs.weight";

// The type for rows of `cols` elements.
WeightType Fitting(WeightType type, int64_t cols) {
  if (cols % InfoOf(type).elements == 0) return type;
  if (cols % 32 != 0) return WeightType::kFp16;
  return type == WeightType::kQ4_K ? WeightType::kQ5_0 : WeightType::kQ8_0;
}

bool IsCoarse(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ5_0:
    case WeightType::kQ5_1:
    case WeightType::kQ4_K:
      return true;
    default:
      return false;
  }
}

const gguf::TensorType& GgufType(WeightType type) {
  const std::string_view name = type == WeightType::kFp32   ? "f32"
                                : type == WeightType::kFp16 ? "f16"
                                                            : Name(type);
  return *gguf::FindTensorType(name);
}

absl::Status AddYarn(const RopeScaling& rope, gguf::HeaderWriter& header) {
  const RopeScaling plain;
  if (rope.attention_factor || rope.mscale || rope.mscale_all_dim ||
      rope.beta_fast != plain.beta_fast || rope.beta_slow != plain.beta_slow ||
      !rope.truncate) {
    return UnsupportedError("rope_scaling",
                            "GGUF files have yarn without parameters");
  }
  header.Add("llama.rope.scaling.original_context_length",
             static_cast<uint32_t>(rope.original_context));
  return absl::OkStatus();
}

absl::Status AddScaling(const RopeScaling& rope, gguf::HeaderWriter& header) {
  if (rope.type == RopeType::kDynamic) {
    return UnsupportedError("rope_scaling.type=dynamic",
                            "GGUF files have linear, yarn and llama3");
  }
  if (rope.type != RopeType::kLinear && rope.type != RopeType::kYarn) {
    return absl::OkStatus();
  }
  header.Add("llama.rope.scaling.type", Name(rope.type));
  header.Add("llama.rope.scaling.factor", static_cast<float>(rope.factor));
  return rope.type == RopeType::kYarn ? AddYarn(rope, header)
                                      : absl::OkStatus();
}

absl::Status AddConfig(const ModelConfig& config, gguf::HeaderWriter& header) {
  const auto size = [](int32_t value) { return static_cast<uint32_t>(value); };
  header.Add("general.architecture", "llama");
  header.Add("general.quantization_version", uint32_t{2});
  header.Add("llama.vocab_size", size(config.vocab_size));
  header.Add("llama.context_length", size(config.context_length()));
  header.Add("llama.embedding_length", size(config.hidden_size));
  header.Add("llama.block_count", size(config.layers));
  header.Add("llama.feed_forward_length", size(config.intermediate_size));
  header.Add("llama.attention.head_count", size(config.heads));
  header.Add("llama.attention.head_count_kv", size(config.kv_heads));
  header.Add("llama.attention.key_length", size(config.head_dim));
  header.Add("llama.attention.value_length", size(config.head_dim));
  header.Add("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  header.Add("llama.rope.dimension_count", size(config.head_dim));
  header.Add("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  return AddScaling(config.rope, header);
}

// What llama3 divides each frequency by; empty for other types.
std::vector<float> RopeDivisors(const ModelConfig& config) {
  if (!config.rope_divisors.empty()) return config.rope_divisors;
  if (config.rope.type != RopeType::kLlama3) return {};
  ModelConfig plain = config;
  plain.rope = RopeScaling();
  const std::vector<float> unscaled = Rope(plain).InverseFrequencies(0, 1);
  std::vector<float> divisors = Rope(config).InverseFrequencies(0, 1);
  for (size_t i = 0; i < divisors.size(); ++i) {
    divisors[i] = unscaled[i] / divisors[i];
  }
  return divisors;
}

// Adds tensors to the header, and to the plan with offsets behind it.
class Planner {
 public:
  Planner(gguf::HeaderWriter& header, GgufPlan& plan)
      : header_(header), plan_(plan) {}

  void Add(const TensorSpec& spec, WeightType type) {
    const std::array<int64_t, 2> shape = {spec.rows, spec.cols};
    const uint64_t bytes =
        header_.AddTensor(*GgufName(spec.name), GgufType(type),
                          std::span(shape).first(spec.cols == 0 ? 1 : 2));
    plan_.tensors.push_back({spec, type, Place(bytes), bytes});
    plan_.parameters += spec.elements();
  }

  void AddDivisors() {
    const int64_t count = std::ssize(plan_.rope_divisors);
    if (count == 0) return;
    plan_.rope_divisors_offset = Place(header_.AddTensor(
        kRopeFrequencies, GgufType(WeightType::kFp32), std::span(&count, 1)));
  }

  // The header is complete: what was placed behind it moves.
  void Finish() {
    plan_.header = header_.Header();
    const uint64_t base = plan_.header.size();
    for (PlannedTensor& tensor : plan_.tensors) tensor.offset += base;
    plan_.rope_divisors_offset += base;
    plan_.bytes = base + next_;
  }

 private:
  uint64_t Place(uint64_t bytes) {
    return std::exchange(next_,
                         next_ + bytes + gguf::HeaderWriter::Padding(bytes));
  }

  gguf::HeaderWriter& header_;
  GgufPlan& plan_;
  uint64_t next_ = 0;
};

}  // namespace

WeightType WrittenType(const TensorSpec& tensor, bool tied, WeightType type) {
  if (tensor.cols == 0) return WeightType::kFp32;
  const bool head = tensor.group == TensorGroup::kHead ||
                    (tied && tensor.group == TensorGroup::kEmbedding);
  return Fitting(head && IsCoarse(type) ? WeightType::kQ6_K : type,
                 tensor.cols);
}

absl::StatusOr<GgufPlan> PlanGguf(const ModelConfig& config, WeightType type,
                                  const std::string& tokenizer) {
  gguf::HeaderWriter header;
  CARAVAN_RETURN_IF_ERROR(AddConfig(config, header));
  CARAVAN_RETURN_IF_ERROR(
      AddTokenizerMetadata(tokenizer, config.vocab_size, header));
  GgufPlan plan;
  plan.rope_divisors = RopeDivisors(config);
  Planner planner(header, plan);
  for (const TensorSpec& spec : AllTensors(MakeLayout(config))) {
    planner.Add(spec, WrittenType(spec, config.tied_embeddings, type));
  }
  planner.AddDivisors();
  planner.Finish();
  return plan;
}

}  // namespace caravan::worker
