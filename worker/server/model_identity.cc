#include "worker/server/model_identity.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/tokenizer.h"
#include "worker/model/hashing.h"

namespace caravan::worker {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Only what the model's authors chose: absent fields are the gateway's.
void FillDefaults(const GenerationConfig& generation,
                  v1::SamplingParams* defaults) {
  if (generation.temperature)
    defaults->set_temperature(*generation.temperature);
  if (generation.top_p) defaults->set_top_p(*generation.top_p);
  if (generation.top_k) defaults->set_top_k(*generation.top_k);
  if (generation.min_p) defaults->set_min_p(*generation.min_p);
  if (generation.repetition_penalty) {
    defaults->set_repetition_penalty(*generation.repetition_penalty);
  }
}

absl::Status FillTextIds(const text::Tokenizer& tokenizer,
                         v1::ModelIdentity* identity) {
  identity->set_tokenizer_id(std::string(tokenizer.tokenizer_id()));
  if (tokenizer.chat_template().empty()) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(const std::string id,
                           BytesFromHex(Sha256Hex(tokenizer.chat_template())));
  identity->set_template_id(id);
  return absl::OkStatus();
}

void FillEndIds(const ModelDescription& model,
                const text::Vocabulary& vocabulary, v1::ModelInfo* info) {
  const auto& ids = model.eos_ids.empty() ? vocabulary.eos_ids : model.eos_ids;
  for (const int32_t id : ids) {
    if (id >= 0 && id < model.config.vocab_size) info->add_eos_token_ids(id);
  }
}

}  // namespace

absl::Status CheckTokenizer(const ModelDescription& model) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<text::Tokenizer> tokenizer,
                           text::Tokenizer::LoadDirectory(model.directory));
  const int32_t tokens = tokenizer->vocabulary().size();
  const int32_t rows = model.config.vocab_size;
  if (tokens <= rows) return absl::OkStatus();
  return MakeError(Reason::kModelFileInvalid,
                   StrCat(model.directory, ": the tokenizer must have at most ",
                          rows, " ids, the rows of the embedding; it has ",
                          tokens, " and belongs to another model"),
                   {{"limit", StrCat(rows)}, {"value", StrCat(tokens)}});
}

absl::StatusOr<v1::ModelInfo> MakeModelInfo(const ModelDescription& model,
                                            const ModelInfoParts& parts) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<text::Tokenizer> tokenizer,
                           text::Tokenizer::LoadDirectory(model.directory));
  v1::ModelInfo info;
  info.set_name(parts.name.empty() ? DirectoryName(model.directory)
                                   : parts.name);
  v1::ModelIdentity* const identity = info.mutable_identity();
  CARAVAN_ASSIGN_OR_RETURN(const std::string weights_id,
                           BytesFromHex(parts.weights_id));
  identity->set_weights_id(weights_id);
  identity->set_numerics_class(parts.numerics_class);
  identity->set_fingerprint(parts.fingerprint);
  CARAVAN_RETURN_IF_ERROR(FillTextIds(*tokenizer, identity));
  // A sequence cannot be longer than all blocks together.
  info.set_context_length(static_cast<int32_t>(
      std::min<int64_t>(model.config.context_length(),
                        int64_t{parts.block_count} * kv::kBlockTokens)));
  info.set_vocabulary_size(model.config.vocab_size);
  info.set_block_size(kv::kBlockTokens);
  info.set_block_count(parts.block_count);
  info.set_max_running_count(parts.max_running);
  FillDefaults(model.generation, info.mutable_default_sampling());
  FillEndIds(model, tokenizer->vocabulary(), &info);
  info.set_parameter_count(model.plan.parameters);
  info.set_unscaled_context_length(model.config.unscaled_context_length());
  info.set_created_unix_s(absl::ToUnixSeconds(parts.created));
  return info;
}

std::string DirectoryName(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::absolute(directory, error).lexically_normal();
  const std::filesystem::path name =
      path.has_filename() ? path.filename() : path.parent_path().filename();
  return name.string();
}

absl::StatusOr<std::string> BytesFromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = HexDigit(hex[i]);
    const int low = HexDigit(hex[i + 1]);
    if (high < 0 || low < 0) break;
    bytes.push_back(static_cast<char>(high * 16 + low));
  }
  if (bytes.size() * 2 == hex.size()) return bytes;
  return MakeError(Reason::kInternal,
                   StrCat("an id must be hexadecimal; got ", hex));
}

}  // namespace caravan::worker
