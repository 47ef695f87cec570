#include "worker/model/gguf_tokenizer.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/gguf/gguf_file.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

// Of tokenizer.ggml.token_type.
constexpr int32_t kNormal = 1;
constexpr int32_t kUnknown = 2;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;
constexpr int32_t kByte = 6;

constexpr JsonLimits kTokenizerLimits = {.max_bytes = size_t{256} << 20,
                                         .max_depth = 16};

// What Llama-3's pattern has and others of its time have not.
constexpr std::string_view kLlama3Digits = "\\p{N}{1,3}";

std::string Key(std::string_view name) {
  return StrCat("tokenizer.ggml.", name);
}

// A token's name, given plainly or as an object.
std::optional<std::string> NameIn(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return std::nullopt;
  const auto content = found->find("content");
  if (content == found->end() || !content->is_string()) return std::nullopt;
  return content->get<std::string>();
}

bool IsByteName(std::string_view piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>';
}

// tokenizer.json as lists by id.
class TokenizerLists {
 public:
  TokenizerLists(const json& tokenizer, const json& config, std::string file,
                 int64_t vocab_size)
      : tokenizer_(tokenizer),
        config_(config),
        file_(std::move(file)),
        tokens_(static_cast<size_t>(vocab_size)),
        types_(static_cast<size_t>(vocab_size), kUnused),
        scores_(static_cast<size_t>(vocab_size), 0.0f) {}

  absl::Status Read();
  void Write(gguf::HeaderWriter& header) const;

 private:
  absl::Status ReadVocabulary(const json& model);
  absl::Status ReadMerges(const json& model);
  absl::Status ReadAdded();
  absl::Status Place(const std::string& piece, const json& id, int32_t type);
  absl::Status CheckPattern() const;
  void FillGaps();
  std::optional<int32_t> IdOf(const std::string& name) const;
  bool AddsBos() const;

  const json& tokenizer_;
  const json& config_;
  const std::string file_;
  bool bytes_ = false;  // byte-level
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_;
  std::vector<float> scores_;
  std::vector<std::string> merges_;
  std::map<std::string, int32_t, std::less<>> ids_;
};

absl::Status TokenizerLists::Place(const std::string& piece, const json& id,
                                   int32_t type) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= tokens_.size()) {
    return ModelFileError(file_, StrCat("id of token ", piece),
                          StrCat("below the model's ", tokens_.size()),
                          Excerpt(id));
  }
  const auto index = id.get<int32_t>();
  tokens_[index] = piece;
  types_[index] = type;
  ids_[piece] = index;
  return absl::OkStatus();
}

absl::Status TokenizerLists::ReadVocabulary(const json& model) {
  const auto vocabulary = model.find("vocab");
  if (vocabulary == model.end() || !vocabulary->is_object()) {
    return ModelFileError(file_, "model.vocab", "an object", "something else");
  }
  for (const auto& [piece, id] : vocabulary->items()) {
    const int32_t type = !bytes_ && IsByteName(piece) ? kByte : kNormal;
    CARAVAN_RETURN_IF_ERROR(Place(piece, id, type));
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"]; of SentencePiece a merge's rank is its result's score.
absl::Status TokenizerLists::ReadMerges(const json& model) {
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) {
    return ModelFileError(file_, "model.merges", "a list", "something else");
  }
  float rank = 0;
  for (const json& merge : *merges) {
    std::string pair;
    if (merge.is_string()) {
      pair = merge.get<std::string>();
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      pair = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
    const size_t space = pair.find(' ', 1);
    if (pair.empty() || space == std::string::npos) {
      return ModelFileError(file_, "an entry of model.merges", "two pieces",
                            Excerpt(merge));
    }
    const auto made = ids_.find(pair.substr(0, space) + pair.substr(space + 1));
    rank -= 1;
    if (made != ids_.end() && scores_[made->second] == 0) {
      scores_[made->second] = rank;
    }
    merges_.push_back(std::move(pair));
  }
  return absl::OkStatus();
}

absl::Status TokenizerLists::ReadAdded() {
  const auto added = tokenizer_.find("added_tokens");
  if (added == tokenizer_.end() || !added->is_array()) return absl::OkStatus();
  for (const json& token : *added) {
    const std::optional<std::string> name =
        token.is_object() ? NameIn(json{{"t", token}}, "t") : std::nullopt;
    if (!name || !token.contains("id")) {
      return ModelFileError(file_, "an entry of added_tokens",
                            "an object with id and content", Excerpt(token));
    }
    const bool special = token.value("special", json(false)) == true;
    const int32_t type = *name == "<unk>" ? kUnknown
                         : special        ? kControl
                                          : kUserDefined;
    CARAVAN_RETURN_IF_ERROR(Place(*name, token["id"], type));
  }
  return absl::OkStatus();
}

// GGUF files name a pre-tokenizer; only Llama-3's is known by a name.
absl::Status TokenizerLists::CheckPattern() const {
  const auto pre = tokenizer_.find("pre_tokenizer");
  const std::string text = pre == tokenizer_.end() ? "" : DumpJson(json{*pre});
  const std::string wanted = DumpJson(json(std::string(kLlama3Digits)));
  const std::string inside = wanted.substr(1, wanted.size() - 2);
  if (!bytes_ || text.find(inside) != std::string::npos) {
    return absl::OkStatus();
  }
  return UnsupportedError(StrCat(file_, ": pre_tokenizer"),
                          "GGUF files are written with Llama-3's only");
}

// Converters name rows of the embedding that no token has so.
void TokenizerLists::FillGaps() {
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (tokens_[id].empty()) tokens_[id] = StrCat("[PAD", id, "]");
  }
}

absl::Status TokenizerLists::Read() {
  const auto model = tokenizer_.find("model");
  if (model == tokenizer_.end() || !model->is_object() ||
      model->value("type", "BPE") != "BPE") {
    return ModelFileError(file_, "model", "of type BPE", "something else");
  }
  bytes_ = model->value("byte_fallback", json(false)) != true;
  CARAVAN_RETURN_IF_ERROR(CheckPattern());
  CARAVAN_RETURN_IF_ERROR(ReadVocabulary(*model));
  CARAVAN_RETURN_IF_ERROR(ReadMerges(*model));
  CARAVAN_RETURN_IF_ERROR(ReadAdded());
  FillGaps();
  return absl::OkStatus();
}

std::optional<int32_t> TokenizerLists::IdOf(const std::string& name) const {
  const auto found = ids_.find(name);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool TokenizerLists::AddsBos() const {
  const auto flag = config_.find("add_bos_token");
  if (flag != config_.end() && flag->is_boolean()) return flag->get<bool>();
  const auto post = tokenizer_.find("post_processor");
  const auto bos = NameIn(config_, "bos_token");
  return bos && post != tokenizer_.end() &&
         DumpJson(*post).find(*bos) != std::string::npos;
}

void TokenizerLists::Write(gguf::HeaderWriter& header) const {
  header.Add(Key("model"), bytes_ ? "gpt2" : "llama");
  header.Add(Key("pre"), bytes_ ? "llama-bpe" : "default");
  header.Add(Key("tokens"), std::span<const std::string>(tokens_));
  header.Add(Key("token_type"), std::span<const int32_t>(types_));
  if (bytes_) {
    header.Add(Key("merges"), std::span<const std::string>(merges_));
  } else {
    header.Add(Key("scores"), std::span<const float>(scores_));
  }
  for (const auto& [key, name] :
       {std::pair("bos_token_id", NameIn(config_, "bos_token")),
        std::pair("eos_token_id", NameIn(config_, "eos_token")),
        std::pair("unknown_token_id", NameIn(config_, "unk_token")),
        std::pair("padding_token_id", NameIn(config_, "pad_token")),
        std::pair("eot_token_id", std::optional<std::string>("<|eot_id|>"))}) {
    const auto id = name ? IdOf(*name) : std::nullopt;
    if (id) header.Add(Key(key), static_cast<uint32_t>(*id));
  }
  header.Add(Key("add_bos_token"), AddsBos());
  const auto text = config_.find("chat_template");
  if (text != config_.end() && text->is_string()) {
    header.Add("tokenizer.chat_template",
               std::string_view(text->get_ref<const std::string&>()));
  }
}

absl::Status CopyMetadata(const std::string& path, gguf::HeaderWriter& header) {
  CARAVAN_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::Open(path));
  CARAVAN_ASSIGN_OR_RETURN(const gguf::File file,
                           gguf::File::Parse(mapped.bytes(), path));
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("tokenizer.")) header.Add(key, value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddTokenizerMetadata(const std::string& source, int64_t vocab_size,
                                  gguf::HeaderWriter& header) {
  const std::string path = StrCat(source, "/tokenizer.json");
  const auto tokenizer = ReadJsonObject(path, kTokenizerLimits);
  if (absl::IsNotFound(tokenizer.status())) {
    const auto found = gguf::FindFile(source);
    if (found.ok() && found->has_value()) return CopyMetadata(**found, header);
  }
  CARAVAN_RETURN_IF_ERROR(tokenizer.status());
  auto config = ReadJsonObject(StrCat(source, "/tokenizer_config.json"),
                               kTokenizerLimits);
  if (absl::IsNotFound(config.status())) config = json::object();
  CARAVAN_RETURN_IF_ERROR(config.status());
  TokenizerLists lists(*tokenizer, *config, path, vocab_size);
  CARAVAN_RETURN_IF_ERROR(lists.Read());
  lists.Write(header);
  return absl::OkStatus();
}

}  // namespace caravan::worker
