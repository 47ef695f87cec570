// Tokenizer::LoadDirectory: the tokenizer file of a model directory and what
// the files beside it say about special tokens and the chat template.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/gguf/gguf_file.h"
#include "common/mapped_file.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/bpe_tokenizer.h"
#include "common/text/chat_template_files.h"
#include "common/text/infill_tokens.h"
#include "common/text/json_reader.h"
#include "common/text/model_files.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_model.h"

namespace caravan::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTokenizerBytes = 256u << 20;
constexpr size_t kMaxConfigBytes = 64u << 20;
constexpr size_t kMaxEosIds = 256;

// The whole file; nothing where there is none.
absl::StatusOr<std::optional<std::string>> ReadIfPresent(const fs::path& path,
                                                         size_t max_bytes) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  if (!fs::is_regular_file(path, error)) {
    return FileError(path.string(), "is not a regular file");
  }
  const uintmax_t size = fs::file_size(path, error);
  if (error) return FileError(path.string(), error.message());
  if (size > max_bytes) {
    return FileError(path.string(), StrCat("must be at most ", max_bytes,
                                           " bytes; got ", size));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(content.data(), static_cast<std::streamsize>(size));
  if (!file || static_cast<uintmax_t>(file.gcount()) != size) {
    return FileError(path.string(), "cannot be read");
  }
  return content;
}

// The directory's JSON files; absent ones are null.
class DirectoryLoader {
 public:
  explicit DirectoryLoader(const std::string& directory)
      : directory_(directory) {}

  absl::StatusOr<std::unique_ptr<Tokenizer>> Load() {
    CARAVAN_RETURN_IF_ERROR(LoadConfigs());
    CARAVAN_RETURN_IF_ERROR(ReadDeclaredTokens());
    CARAVAN_RETURN_IF_ERROR(LoadModel());
    AddDeclaredTokens();
    MarkInfillTokens(&model_);
    CARAVAN_RETURN_IF_ERROR(SetBos());
    CARAVAN_RETURN_IF_ERROR(SetEos());
    CARAVAN_RETURN_IF_ERROR(SetNamedTokens());
    CARAVAN_RETURN_IF_ERROR(SetTemplate());
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        BpeTokenizer::Create(std::move(model_));
    if (!tokenizer.ok()) return Annotate(tokenizer.status(), PathOf(file_));
    return tokenizer;
  }

 private:
  // A parsed file and its path, for messages.
  struct ConfigFile {
    std::string path;
    nlohmann::json value;
    JsonReader reader() const { return JsonReader(value, path); }
    bool present() const { return value.is_object(); }
  };

  std::string PathOf(std::string_view name) const {
    return (fs::path(directory_) / std::string(name)).string();
  }

  absl::Status LoadConfig(const char* name, ConfigFile* file) {
    file->path = PathOf(name);
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> content,
                             ReadIfPresent(file->path, kMaxConfigBytes));
    if (!content) return absl::OkStatus();
    CARAVAN_ASSIGN_OR_RETURN(file->value,
                             JsonReader::Parse(*content, file->path));
    if (!file->present()) return FileError(file->path, "must be an object");
    return absl::OkStatus();
  }

  absl::Status LoadConfigs() {
    CARAVAN_RETURN_IF_ERROR(
        LoadConfig("tokenizer_config.json", &tokenizer_config_));
    CARAVAN_RETURN_IF_ERROR(
        LoadConfig("special_tokens_map.json", &special_tokens_map_));
    CARAVAN_RETURN_IF_ERROR(LoadConfig("added_tokens.json", &added_tokens_));
    CARAVAN_RETURN_IF_ERROR(
        LoadConfig("generation_config.json", &generation_config_));
    return LoadConfig("config.json", &config_);
  }

  // Tokens that the files beside the model add: `added_tokens_decoder` of
  // tokenizer_config.json, or added_tokens.json.
  absl::Status ReadDeclaredTokens() {
    if (added_tokens_.present()) {
      for (const auto& [name, id] : added_tokens_.value.items()) {
        AddedToken token = {.name = name};
        CARAVAN_RETURN_IF_ERROR(CheckName(added_tokens_.path, name));
        CARAVAN_RETURN_IF_ERROR(
            SetId(JsonReader(id, added_tokens_.path, name), &token));
        declared_.push_back(std::move(token));
      }
    }
    if (!tokenizer_config_.present()) return absl::OkStatus();
    CARAVAN_ASSIGN_OR_RETURN(
        const JsonReader decoder,
        tokenizer_config_.reader().Get("added_tokens_decoder"));
    if (decoder.is_null()) return absl::OkStatus();
    if (!decoder.value().is_object()) return decoder.Error("must be an object");
    for (const auto& [id, entry] : decoder.value().items()) {
      CARAVAN_RETURN_IF_ERROR(ReadDecoderEntry(decoder, id));
    }
    return absl::OkStatus();
  }

  absl::Status ReadDecoderEntry(const JsonReader& decoder,
                                const std::string& id) {
    const bool is_number =
        !id.empty() && id.size() <= 9 &&
        id.find_first_not_of("0123456789") == std::string::npos;
    if (!is_number || std::stoi(id) >= kMaxVocabularySize) {
      return decoder.Error(StrCat("has the key \"", id, "\", which is no id"));
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader entry, decoder.Get(id.c_str()));
    AddedToken token;
    token.id = std::stoi(id);
    CARAVAN_ASSIGN_OR_RETURN(token.name, entry.StringOr("content", ""));
    CARAVAN_RETURN_IF_ERROR(CheckName(tokenizer_config_.path, token.name));
    CARAVAN_ASSIGN_OR_RETURN(token.special, entry.BoolOr("special", false));
    CARAVAN_ASSIGN_OR_RETURN(token.normalized,
                             entry.BoolOr("normalized", !token.special));
    CARAVAN_ASSIGN_OR_RETURN(token.single_word,
                             entry.BoolOr("single_word", false));
    CARAVAN_ASSIGN_OR_RETURN(token.strip_left, entry.BoolOr("lstrip", false));
    CARAVAN_ASSIGN_OR_RETURN(token.strip_right, entry.BoolOr("rstrip", false));
    declared_.push_back(std::move(token));
    return absl::OkStatus();
  }

  static absl::Status CheckName(const std::string& path,
                                std::string_view name) {
    if (!name.empty() && name.size() <= kMaxAddedTokenBytes) {
      return absl::OkStatus();
    }
    return FileError(path,
                     StrCat("names of added tokens must have 1 to ",
                            kMaxAddedTokenBytes, " bytes; got ", name.size()));
  }

  static absl::Status SetId(const JsonReader& value, AddedToken* token) {
    CARAVAN_ASSIGN_OR_RETURN(const int64_t id,
                             value.Integer(0, kMaxVocabularySize - 1));
    token->id = static_cast<TokenId>(id);
    return absl::OkStatus();
  }

  absl::Status LoadModel() {
    CARAVAN_ASSIGN_OR_RETURN(
        std::optional<std::string> content,
        ReadIfPresent(PathOf("tokenizer.json"), kMaxTokenizerBytes));
    file_ = "tokenizer.json";
    if (content) {
      CARAVAN_ASSIGN_OR_RETURN(model_,
                               ParseTokenizerJson(*content, PathOf(file_)));
      return ApplyBosFlags(/*only_when_asked=*/true);
    }
    file_ = "tokenizer.model";
    CARAVAN_ASSIGN_OR_RETURN(content,
                             ReadIfPresent(PathOf(file_), kMaxTokenizerBytes));
    if (!content) return LoadGguf();
    if (LooksLikeTiktokenRanks(*content)) {
      CARAVAN_ASSIGN_OR_RETURN(
          model_, ParseTiktokenRanks(*content, PathOf(file_), declared_));
      return absl::OkStatus();
    }
    CARAVAN_ASSIGN_OR_RETURN(model_,
                             ParseSentencePiece(*content, PathOf(file_)));
    return SetLegacy();
  }

  // The vocabulary in the model's own file, of which a directory has one.
  absl::Status LoadGguf() {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> path,
                             gguf::FindFile(directory_));
    if (!path) {
      return FileError(directory_,
                       "has neither tokenizer.json nor tokenizer.model nor a "
                       "GGUF file");
    }
    file_ = "GGUF file";
    CARAVAN_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::Open(*path));
    CARAVAN_ASSIGN_OR_RETURN(const gguf::File file,
                             gguf::File::Parse(mapped.bytes(), *path));
    CARAVAN_ASSIGN_OR_RETURN(model_, ParseGgufVocabulary(file));
    return absl::OkStatus();
  }

  // LlamaTokenizer's `legacy: false` gives the dummy prefix only to the
  // beginning of the text.
  absl::Status SetLegacy() {
    if (tokenizer_config_.present() &&
        model_.normalization.prefix == PrefixScheme::kAlways) {
      CARAVAN_ASSIGN_OR_RETURN(
          const bool legacy, tokenizer_config_.reader().BoolOr("legacy", true));
      if (!legacy) model_.normalization.prefix = PrefixScheme::kFirst;
    }
    SetStages();
    return ApplyBosFlags(/*only_when_asked=*/false);
  }

  // As in the tokenizer.json that the published converter makes: everything
  // precedes the names, but for a prefix of the text's beginning, which comes
  // after them. Names are plain text where spaces collapse: only the slow
  // tokenizers do that, and they know no normalized names.
  void SetStages() {
    const Normalization& n = model_.normalization;
    if (n.collapse_spaces || n.prefix == PrefixScheme::kFirst) return;
    model_.stages = {.before_names = n, .after_names = {}};
  }

  // `add_bos_token` and `add_eos_token`, which the Llama classes obey: they
  // replace what tokenizer.json says, where they are given.
  absl::Status ApplyBosFlags(bool only_when_asked) {
    if (!tokenizer_config_.present()) return absl::OkStatus();
    const JsonReader config = tokenizer_config_.reader();
    CARAVAN_ASSIGN_OR_RETURN(const std::string cls,
                             config.StringOr("tokenizer_class", ""));
    if (only_when_asked && cls.find("Llama") == std::string::npos) {
      return absl::OkStatus();
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader add_bos,
                             config.Get("add_bos_token"));
    if (!add_bos.is_null()) {
      CARAVAN_ASSIGN_OR_RETURN(add_bos_, add_bos.Bool());
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader add_eos,
                             config.Get("add_eos_token"));
    if (!add_eos.is_null()) {
      CARAVAN_ASSIGN_OR_RETURN(add_eos_, add_eos.Bool());
    }
    return absl::OkStatus();
  }

  // Tokens the model has under the same id and name keep what the model says.
  void AddDeclaredTokens() {
    for (const AddedToken& token : declared_) {
      if (FindByName(model_, token.name) == token.id) continue;
      AddToken(token, &model_);
    }
  }

  // What `key` names, in tokenizer_config.json or else in
  // special_tokens_map.json; a string or an object. Empty where neither has it.
  absl::StatusOr<std::string> NameOf(const char* key) const {
    for (const ConfigFile* file : {&tokenizer_config_, &special_tokens_map_}) {
      if (!file->present()) continue;
      CARAVAN_ASSIGN_OR_RETURN(const JsonReader value, file->reader().Get(key));
      if (value.is_null()) continue;
      std::string name;
      if (value.value().is_object()) {
        CARAVAN_ASSIGN_OR_RETURN(name, value.StringOr("content", ""));
      } else {
        CARAVAN_ASSIGN_OR_RETURN(name, value.String());
      }
      if (FindByName(model_, name)) return name;
    }
    return std::string();
  }

  absl::StatusOr<std::optional<TokenId>> NamedToken(const char* key) const {
    CARAVAN_ASSIGN_OR_RETURN(const std::string name, NameOf(key));
    return FindByName(model_, name);
  }

  // The variables of templates; those that no file names are BOS and EOS.
  absl::Status SetNamedTokens() {
    const Vocabulary& vocabulary = model_.vocabulary;
    for (const char* const key : {"bos_token", "eos_token", "unk_token",
                                  "pad_token", "sep_token", "cls_token"}) {
      CARAVAN_ASSIGN_OR_RETURN(std::string name, NameOf(key));
      std::optional<TokenId> id;
      if (std::string_view(key) == "bos_token") id = vocabulary.bos_id;
      if (std::string_view(key) == "eos_token" && !vocabulary.eos_ids.empty()) {
        id = vocabulary.eos_ids.front();
      }
      if (name.empty() && id && *id < vocabulary.size()) {
        name = vocabulary.tokens[*id].bytes;
      }
      if (!name.empty()) model_.named_tokens.emplace_back(key, std::move(name));
    }
    return absl::OkStatus();
  }

  absl::Status SetBos() {
    Vocabulary& vocabulary = model_.vocabulary;
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<TokenId> named,
                             NamedToken("bos_token"));
    if (named) vocabulary.bos_id = named;
    if (!vocabulary.bos_id && !model_.prefix_ids.empty()) {
      vocabulary.bos_id = model_.prefix_ids.front();
    }
    if (!vocabulary.bos_id) {
      std::vector<TokenId> ids;
      CARAVAN_RETURN_IF_ERROR(ReadIds(config_, "bos_token_id", &ids));
      if (!ids.empty() && ids.front() < vocabulary.size()) {
        vocabulary.bos_id = ids.front();
      }
    }
    // A renamed BOS is also the one that is added.
    if (file_ == "tokenizer.model" && vocabulary.bos_id) {
      model_.prefix_ids = {*vocabulary.bos_id};
    }
    if (add_bos_.has_value()) {
      model_.prefix_ids.clear();
      if (*add_bos_ && vocabulary.bos_id) {
        model_.prefix_ids.push_back(*vocabulary.bos_id);
      }
    }
    return absl::OkStatus();
  }

  absl::Status SetEos() {
    std::vector<TokenId> ids;
    CARAVAN_RETURN_IF_ERROR(ReadIds(generation_config_, "eos_token_id", &ids));
    if (ids.empty()) {
      CARAVAN_RETURN_IF_ERROR(ReadIds(config_, "eos_token_id", &ids));
    }
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<TokenId> named,
                             NamedToken("eos_token"));
    if (named) ids.push_back(*named);
    if (ids.empty()) ids = model_.vocabulary.eos_ids;
    std::vector<TokenId>& eos_ids = model_.vocabulary.eos_ids;
    eos_ids.clear();
    for (const TokenId id : ids) {
      if (std::find(eos_ids.begin(), eos_ids.end(), id) == eos_ids.end()) {
        eos_ids.push_back(id);
      }
    }
    if (add_eos_.has_value()) {
      model_.suffix_ids.clear();
      const std::optional<TokenId> eos =
          named             ? named
          : eos_ids.empty() ? std::nullopt
                            : std::optional<TokenId>(eos_ids.front());
      if (*add_eos_ && eos) model_.suffix_ids.push_back(*eos);
    }
    return absl::OkStatus();
  }

  // One id or a list; negative ones mean that there is none.
  static absl::Status ReadIds(const ConfigFile& file, const char* key,
                              std::vector<TokenId>* ids) {
    if (!file.present()) return absl::OkStatus();
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader value, file.reader().Get(key));
    if (value.is_null()) return absl::OkStatus();
    std::vector<JsonReader> elements = {value};
    if (value.value().is_array()) {
      CARAVAN_ASSIGN_OR_RETURN(elements, value.Elements());
    }
    if (elements.size() > kMaxEosIds) {
      return value.Error(StrCat("must have at most ", kMaxEosIds, " entries"));
    }
    for (const JsonReader& element : elements) {
      CARAVAN_ASSIGN_OR_RETURN(
          const int64_t id, element.Integer(INT32_MIN, kMaxVocabularySize - 1));
      if (id >= 0) ids->push_back(static_cast<TokenId>(id));
    }
    return absl::OkStatus();
  }

  absl::Status SetTemplate() {
    CARAVAN_ASSIGN_OR_RETURN(
        ChatTemplates templates,
        ReadChatTemplates(directory_, tokenizer_config_.reader()));
    if (templates.source.empty() && templates.named.empty()) {
      return absl::OkStatus();  // what a GGUF file says stays
    }
    model_.chat_template = std::move(templates.source);
    model_.named_chat_templates = std::move(templates.named);
    return absl::OkStatus();
  }

  std::string directory_;
  ConfigFile tokenizer_config_;
  ConfigFile special_tokens_map_;
  ConfigFile added_tokens_;
  ConfigFile generation_config_;
  ConfigFile config_;
  std::vector<AddedToken> declared_;
  std::optional<bool> add_bos_;
  std::optional<bool> add_eos_;
  std::string_view file_;  // name of the tokenizer file
  TokenizerModel model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::LoadDirectory(
    const std::string& directory) {
  return DirectoryLoader(directory).Load();
}

}  // namespace caravan::text
