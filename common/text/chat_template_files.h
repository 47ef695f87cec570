// The chat templates of a model directory, from every file that may hold one.
#ifndef CARAVAN_COMMON_TEXT_CHAT_TEMPLATE_FILES_H_
#define CARAVAN_COMMON_TEXT_CHAT_TEMPLATE_FILES_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/json_reader.h"

namespace caravan::text {

struct ChatTemplates {
  std::string source;  // the default one; empty without one
  // Further ones, (name, source), by name: "tool_use" and the like.
  std::vector<std::pair<std::string, std::string>> named;
};

// The default template is that of chat_template.jinja, else `chat_template` of
// tokenizer_config.json (a string, or a list of {"name", "template"} of which
// "default" counts), else that of chat_template.json. Named ones stand in that
// list and in additional_chat_templates/NAME.jinja. `tokenizer_config` is null
// without the file. Errors: kModelFileInvalid, naming the file: not UTF-8,
// more than 1 MiB, more than 64 templates.
absl::StatusOr<ChatTemplates> ReadChatTemplates(
    const std::string& directory, const JsonReader& tokenizer_config);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_CHAT_TEMPLATE_FILES_H_
