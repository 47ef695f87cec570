#include "services/tokenizer/model_set.h"

#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/builtin_templates.h"

namespace caravan::tokenizer {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxTemplateBytes = 1u << 20;

// The last part of a path, whether or not it ends with a slash.
std::string NameOfDirectory(const std::string& directory) {
  std::error_code error;
  const fs::path absolute = fs::absolute(directory, error).lexically_normal();
  const fs::path last = absolute.has_filename()
                            ? absolute.filename()
                            : absolute.parent_path().filename();
  return last.extension() == ".gguf" ? last.stem().string() : last.string();
}

// Ids, kinds and bytes in order, each with its size: what a gateway decodes by.
std::string HashOf(const text::Vocabulary& vocabulary) {
  std::string digest(32, '\0');
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(
      EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  const uint8_t strip = vocabulary.strip_leading_space ? 1 : 0;
  EVP_DigestUpdate(context.get(), &strip, sizeof strip);
  for (const text::TokenEntry& token : vocabulary.tokens) {
    const auto size = static_cast<uint32_t>(token.bytes.size());
    EVP_DigestUpdate(context.get(), &token.kind, sizeof token.kind);
    EVP_DigestUpdate(context.get(), &size, sizeof size);
    EVP_DigestUpdate(context.get(), token.bytes.data(), size);
  }
  EVP_DigestFinal_ex(context.get(),
                     reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return digest;
}

absl::StatusOr<std::string> ReadTemplateFile(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return FieldError("--chat-template",
                      StrCat("a file or one of ", BuiltinTemplateNames()),
                      path);
  }
  if (fs::file_size(path, error) > kMaxTemplateBytes) {
    return FieldError("--chat-template",
                      StrCat("at most ", kMaxTemplateBytes, " bytes"), path);
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) return FieldError("--chat-template", "readable", path);
  return content.str();
}

absl::StatusOr<ChatTemplate> MakeTemplate(std::string_view source,
                                          const text::Tokenizer& tokenizer) {
  return ChatTemplate::Create(source, tokenizer.named_tokens());
}

absl::Status UseBuiltin(const BuiltinTemplate& builtin, LoadedModel* model) {
  const text::Vocabulary& vocabulary = model->tokenizer->vocabulary();
  CARAVAN_RETURN_IF_ERROR(CheckRequiredTokens(builtin, vocabulary));
  CARAVAN_ASSIGN_OR_RETURN(model->chat_template,
                           MakeTemplate(builtin.Source(), *model->tokenizer));
  for (const std::string_view name : builtin.end_tokens) {
    const std::optional<text::TokenId> id = FindToken(vocabulary, name);
    if (id) model->answer_end.token_ids.push_back(*id);
  }
  model->answer_end.texts.assign(builtin.stop_texts.begin(),
                                 builtin.stop_texts.end());
  LogInfo("chat_template_chosen",
          {{"model", model->name}, {"template", std::string(builtin.name)}});
  return absl::OkStatus();
}

// A template that the operator named: what is wrong with it ends the process.
absl::Status UseNamedTemplate(const std::string& name, LoadedModel* model) {
  if (const BuiltinTemplate* const builtin = FindBuiltinTemplate(name)) {
    return UseBuiltin(*builtin, model);
  }
  CARAVAN_ASSIGN_OR_RETURN(const std::string source, ReadTemplateFile(name));
  absl::StatusOr<ChatTemplate> made = MakeTemplate(source, *model->tokenizer);
  if (!made.ok()) return Annotate(made.status(), name);
  model->chat_template = *std::move(made);
  return absl::OkStatus();
}

absl::Status UseModelsTemplates(LoadedModel* model) {
  const text::Tokenizer& tokenizer = *model->tokenizer;
  if (!tokenizer.chat_template().empty()) {
    CARAVAN_ASSIGN_OR_RETURN(
        model->chat_template,
        MakeTemplate(tokenizer.chat_template(), tokenizer));
  }
  for (const auto& [name, source] : tokenizer.named_chat_templates()) {
    if (name != "tool_use") continue;
    CARAVAN_ASSIGN_OR_RETURN(model->tool_template,
                             MakeTemplate(source, tokenizer));
  }
  return absl::OkStatus();
}

absl::Status NoTemplate(const std::string& name) {
  return MakeError(
      Reason::kTemplateError,
      StrCat("model ", name, " has no chat template, and its vocabulary fits ",
             "several formats; start the tokenizer with --chat-template and a ",
             "file or one of ", BuiltinTemplateNames()),
      {{"model", name}});
}

// The model's own templates; without any, the format that its vocabulary
// proves. A broken one only refuses conversations.
absl::Status ChooseTemplate(LoadedModel* model) {
  CARAVAN_RETURN_IF_ERROR(UseModelsTemplates(model));
  if (model->chat_template || model->tool_template) return absl::OkStatus();
  const BuiltinTemplate* const proven =
      TemplateOfVocabulary(model->tokenizer->vocabulary());
  if (proven == nullptr) return NoTemplate(model->name);
  return UseBuiltin(*proven, model);
}

}  // namespace

const ChatTemplate* LoadedModel::TemplateFor(
    const Conversation& conversation) const {
  const bool with_tools = conversation.tools && !conversation.tools->empty();
  if (tool_template && (with_tools || !chat_template)) return &*tool_template;
  return chat_template ? &*chat_template : nullptr;
}

ModelSource ParseModelSource(const std::string& flag) {
  const size_t equals = flag.find('=');
  std::error_code error;
  if (equals == std::string::npos || equals == 0 || fs::exists(flag, error)) {
    return {NameOfDirectory(flag), flag, ""};
  }
  return {flag.substr(0, equals), flag.substr(equals + 1), ""};
}

absl::Status ApplyTemplateFlag(const std::string& flag,
                               std::vector<ModelSource>* sources) {
  const size_t equals = flag.find('=');
  std::error_code error;
  if (equals == std::string::npos || fs::exists(flag, error)) {
    for (ModelSource& source : *sources) source.chat_template = flag;
    return absl::OkStatus();
  }
  const std::string name = flag.substr(0, equals);
  const auto it =
      std::find_if(sources->begin(), sources->end(),
                   [&](const ModelSource& s) { return s.name == name; });
  if (it == sources->end()) {
    return FieldError("--chat-template", "for a model given by --model", name);
  }
  it->chat_template = flag.substr(equals + 1);
  return absl::OkStatus();
}

absl::StatusOr<LoadedModel> LoadModel(const ModelSource& source) {
  LoadedModel model;
  model.name = source.name;
  CARAVAN_ASSIGN_OR_RETURN(model.tokenizer,
                           text::Tokenizer::LoadDirectory(source.directory));
  model.content_hash = HashOf(model.tokenizer->vocabulary());
  if (!source.chat_template.empty()) {
    CARAVAN_RETURN_IF_ERROR(UseNamedTemplate(source.chat_template, &model));
    return model;
  }
  model.template_status = ChooseTemplate(&model);
  if (!model.template_status.ok()) {
    model.chat_template.reset();
    model.tool_template.reset();
    LogWarning("no_chat_template",
               {{"model", model.name}, {"status", model.template_status}});
  }
  return model;
}

absl::StatusOr<ModelSet> ModelSet::Load(
    const std::vector<ModelSource>& sources) {
  ModelSet set;
  for (const ModelSource& source : sources) {
    if (set.Find(source.name).ok()) {
      return FieldError("--model", "given once for each name", source.name);
    }
    CARAVAN_ASSIGN_OR_RETURN(LoadedModel model, LoadModel(source));
    LogInfo("model_loaded", {{"model", model.name},
                             {"directory", source.directory},
                             {"tokens", model.tokenizer->vocabulary().size()},
                             {"template", model.template_status.ok()}});
    set.models_.push_back(std::move(model));
  }
  return set;
}

absl::StatusOr<const LoadedModel*> ModelSet::Find(std::string_view name) const {
  const auto it =
      std::find_if(models_.begin(), models_.end(),
                   [&](const LoadedModel& m) { return m.name == name; });
  if (it != models_.end()) return &*it;
  std::string known;
  for (const LoadedModel& model : models_) {
    StrAppend(&known, known.empty() ? "" : ", ", model.name);
  }
  return MakeError(Reason::kModelNotFound,
                   StrCat("no model is called \"", name, "\"; loaded: ", known),
                   {{"model", std::string(name)}});
}

}  // namespace caravan::tokenizer
