#include "worker/model/model_digest.h"

#include <bit>
#include <cstdint>
#include <vector>

#include "common/strings.h"
#include "worker/model/hashing.h"

namespace caravan::worker {
namespace {

template <typename T>
std::string ListText(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) StrAppend(&text, value, ",");
  return text;
}

// Every number that what is computed depends on; doubles in their bits.
std::string ConfigText(const ModelConfig& c) {
  const auto bits = [](double value) {
    return StrCat(std::bit_cast<uint64_t>(value));
  };
  const RopeScaling& r = c.rope;
  std::vector<std::string> divisors;
  for (const float divisor : c.rope_divisors) divisors.push_back(bits(divisor));
  return ListText<std::string>({StrCat(c.vocab_size),
                                StrCat(c.hidden_size),
                                StrCat(c.intermediate_size),
                                StrCat(c.layers),
                                StrCat(c.heads),
                                StrCat(c.kv_heads),
                                StrCat(c.head_dim),
                                bits(c.rms_norm_eps),
                                bits(c.rope_theta),
                                std::string(Name(r.type)),
                                bits(r.factor),
                                StrCat(r.original_context),
                                bits(r.low_freq_factor),
                                bits(r.high_freq_factor),
                                bits(r.beta_fast),
                                bits(r.beta_slow),
                                StrCat(r.truncate ? 1 : 0),
                                bits(r.attention_factor.value_or(0)),
                                bits(r.mscale.value_or(0)),
                                bits(r.mscale_all_dim.value_or(0)),
                                ListText(divisors),
                                StrCat(c.max_position_embeddings),
                                StrCat(c.tied_embeddings ? 1 : 0),
                                StrCat(c.attention_bias ? 1 : 0),
                                StrCat(c.mlp_bias ? 1 : 0)});
}

}  // namespace

std::string ModelDigest(const ModelConfig& config,
                        const CheckpointTensors& checkpoint) {
  std::string text = ConfigText(config);
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    for (const TensorRecord& part : tensor.parts) {
      StrAppend(&text, "\n", part.name, "\t", part.dtype_name, "\t",
                ListText(part.shape));
    }
  }
  return Sha256Hex(text);
}

}  // namespace caravan::worker
