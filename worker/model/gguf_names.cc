#include "worker/model/gguf_names.h"

#include <array>
#include <span>

#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr std::string_view kGgufLayer = "blk.";
constexpr std::string_view kHuggingFaceLayer = "model.layers.";

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

constexpr std::array<NamePair, 3> kModelNames = {{
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
}};

// Of a layer.
constexpr std::array<NamePair, 9> kLayerNames = {{
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

// `from` and `to` are the sides of the pairs, `layer` and `to_layer` what names
// of layers begin with.
std::optional<std::string> Translate(std::string_view name,
                                     std::string_view NamePair::*from,
                                     std::string_view NamePair::*to,
                                     std::string_view layer,
                                     std::string_view to_layer) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view kind = name.substr(dot);  // ".weight" or ".bias"
  std::string_view module = name.substr(0, dot);
  std::span<const NamePair> names = kModelNames;
  std::string prefix;
  if (module.starts_with(layer)) {
    module.remove_prefix(layer.size());
    const size_t end = module.find('.');
    if (end == std::string_view::npos) return std::nullopt;
    prefix = StrCat(to_layer, module.substr(0, end), ".");
    module.remove_prefix(end + 1);
    names = kLayerNames;
  }
  for (const NamePair& pair : names) {
    if (pair.*from == module) return StrCat(prefix, pair.*to, kind);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> HuggingFaceName(std::string_view gguf_name) {
  return Translate(gguf_name, &NamePair::gguf, &NamePair::hugging_face,
                   kGgufLayer, kHuggingFaceLayer);
}

std::optional<std::string> GgufName(std::string_view hugging_face_name) {
  return Translate(hugging_face_name, &NamePair::hugging_face, &NamePair::gguf,
                   kHuggingFaceLayer, kGgufLayer);
}

bool HasRotatedRows(std::string_view hugging_face_name) {
  return hugging_face_name.find(".q_proj.") != std::string_view::npos ||
         hugging_face_name.find(".k_proj.") != std::string_view::npos;
}

}  // namespace caravan::worker
