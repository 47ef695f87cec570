#include "common/text/chat_template_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/tokenizer_model.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTemplateBytes = 1u << 20;
constexpr size_t kMaxTemplates = 64;

absl::Status CheckTemplate(const std::string& file, const std::string& source) {
  if (source.size() > kMaxTemplateBytes) {
    return FileError(file,
                     StrCat("chat_template must be at most ", kMaxTemplateBytes,
                            " bytes; got ", source.size()));
  }
  if (const auto invalid = FirstInvalidUtf8(source)) {
    return FileError(file, StrCat("is not valid UTF-8 at byte ", *invalid));
  }
  return absl::OkStatus();
}

// The whole file; nothing where there is none.
absl::StatusOr<std::optional<std::string>> ReadSmallFile(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return FileError(path.string(), error.message());
  if (size > kMaxTemplateBytes) {
    return FileError(
        path.string(),
        StrCat("must be at most ", kMaxTemplateBytes, " bytes; got ", size));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(content.data(), static_cast<std::streamsize>(size));
  if (static_cast<uintmax_t>(file.gcount()) != size) {
    return FileError(path.string(), "cannot be read");
  }
  CARAVAN_RETURN_IF_ERROR(CheckTemplate(path.string(), content));
  return content;
}

// A string, or the list of named ones.
absl::Status ReadField(const JsonReader& value, ChatTemplates* templates) {
  if (value.is_null()) return absl::OkStatus();
  if (!value.value().is_array()) {
    CARAVAN_ASSIGN_OR_RETURN(templates->source, value.String());
    return CheckTemplate("tokenizer_config.json", templates->source);
  }
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> entries,
                           value.Elements());
  if (entries.size() > kMaxTemplates) {
    return value.Error(StrCat("must have at most ", kMaxTemplates, " entries"));
  }
  for (const JsonReader& entry : entries) {
    CARAVAN_ASSIGN_OR_RETURN(std::string name, entry.StringOr("name", ""));
    CARAVAN_ASSIGN_OR_RETURN(std::string source,
                             entry.StringOr("template", ""));
    CARAVAN_RETURN_IF_ERROR(CheckTemplate("tokenizer_config.json", source));
    if (name == "default") {
      templates->source = std::move(source);
    } else {
      templates->named.emplace_back(std::move(name), std::move(source));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadProcessorFile(const fs::path& path, ChatTemplates* templates) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> content,
                           ReadSmallFile(path));
  if (!content) return absl::OkStatus();
  const std::string name = path.string();
  CARAVAN_ASSIGN_OR_RETURN(const nlohmann::json json,
                           JsonReader::Parse(*content, name));
  CARAVAN_ASSIGN_OR_RETURN(const JsonReader value,
                           JsonReader(json, name).Get("chat_template"));
  return ReadField(value, templates);
}

absl::Status ReadFolder(const fs::path& folder, ChatTemplates* templates) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".jinja") files.push_back(it->path());
  }
  if (files.size() > kMaxTemplates) {
    return FileError(folder.string(),
                     StrCat("must have at most ", kMaxTemplates,
                            " templates; got ", files.size()));
  }
  for (const fs::path& path : files) {
    CARAVAN_ASSIGN_OR_RETURN(std::optional<std::string> content,
                             ReadSmallFile(path));
    if (!content) continue;
    const std::string name = path.stem().string();
    std::erase_if(templates->named,
                  [&](const auto& entry) { return entry.first == name; });
    templates->named.emplace_back(name, *std::move(content));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChatTemplates> ReadChatTemplates(
    const std::string& directory, const JsonReader& tokenizer_config) {
  const fs::path base(directory);
  ChatTemplates templates;
  if (tokenizer_config.value().is_object()) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader value,
                             tokenizer_config.Get("chat_template"));
    CARAVAN_RETURN_IF_ERROR(ReadField(value, &templates));
  }
  if (templates.source.empty()) {
    CARAVAN_RETURN_IF_ERROR(
        ReadProcessorFile(base / "chat_template.json", &templates));
  }
  CARAVAN_ASSIGN_OR_RETURN(std::optional<std::string> file,
                           ReadSmallFile(base / "chat_template.jinja"));
  if (file) templates.source = *std::move(file);
  CARAVAN_RETURN_IF_ERROR(
      ReadFolder(base / "additional_chat_templates", &templates));
  std::sort(templates.named.begin(), templates.named.end());
  return templates;
}

}  // namespace caravan::text
