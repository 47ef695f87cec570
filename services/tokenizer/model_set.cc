#include "services/tokenizer/model_set.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::tokenizer {
namespace {

namespace fs = std::filesystem;

// The last part of a path, whether or not it ends with a slash.
std::string NameOfDirectory(const std::string& directory) {
  std::error_code error;
  const fs::path absolute = fs::absolute(directory, error).lexically_normal();
  return absolute.has_filename() ? absolute.filename().string()
                                 : absolute.parent_path().filename().string();
}

void LoadTemplate(LoadedModel* model) {
  if (model->tokenizer->chat_template().empty()) {
    model->template_status =
        MakeError(Reason::kTemplateError,
                  StrCat("model ", model->name, " has no chat template"));
    return;
  }
  absl::StatusOr<ChatTemplate> created = ChatTemplate::Create(
      model->tokenizer->chat_template(), model->tokenizer->named_tokens());
  if (created.ok()) {
    model->chat_template = *std::move(created);
    return;
  }
  model->template_status = created.status();
  LogWarning("template_broken",
             {{"model", model->name}, {"status", created.status()}});
}

}  // namespace

ModelSource ParseModelSource(const std::string& flag) {
  const size_t equals = flag.find('=');
  std::error_code error;
  if (equals == std::string::npos || equals == 0 || fs::exists(flag, error)) {
    return {NameOfDirectory(flag), flag};
  }
  return {flag.substr(0, equals), flag.substr(equals + 1)};
}

absl::StatusOr<ModelSet> ModelSet::Load(
    const std::vector<ModelSource>& sources) {
  ModelSet set;
  for (const ModelSource& source : sources) {
    if (set.Find(source.name).ok()) {
      return FieldError("--model", "given once for each name", source.name);
    }
    LoadedModel model;
    model.name = source.name;
    CARAVAN_ASSIGN_OR_RETURN(model.tokenizer,
                             text::Tokenizer::LoadDirectory(source.directory));
    LoadTemplate(&model);
    LogInfo("model_loaded", {{"model", model.name},
                             {"directory", source.directory},
                             {"tokens", model.tokenizer->vocabulary().size()},
                             {"template", model.chat_template.has_value()}});
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
