// The fields of a chat about tools.
#ifndef CARAVAN_GATEWAY_OPENAI_TOOLS_TRANSLATE_H_
#define CARAVAN_GATEWAY_OPENAI_TOOLS_TRANSLATE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gateway/openai/json_reader.h"
#include "gateway/request.h"

namespace caravan::gateway::openai {

// Reads tools, tool_choice and parallel_tool_calls. `body` is the text that
// `reader` reads: templates show the keys of a definition in the client's
// order. Whether and how tools are called is left to the model: what would
// force or forbid a call is refused by name (kUnsupportedParameter).
absl::Status ReadTools(std::string_view body, ObjectReader& reader,
                       Conversation& conversation);

// The same fields where there is no conversation: neutral values only.
absl::Status RefuseTools(ObjectReader& reader);

// One definition: {"type": "function", "function": {"name", ...}}, or the
// function itself. Errors: kInvalidField, kUnsupportedParameter (strict).
absl::StatusOr<Tool> ReadToolDefinition(const std::string& field,
                                        std::string definition_json);

// Whether a tool_choice, OpenAI's JSON value, lets the model call. Errors:
// kInvalidField, kUnsupportedParameter.
absl::StatusOr<bool> AllowsCalls(std::string_view field, const Json& choice);

// Adds `tool`. Errors: kInvalidField for a name given twice, more than
// kMaxTools, definitions of more than kMaxToolBytes.
absl::Status AddTool(const std::string& field, Tool tool,
                     Conversation& conversation);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_TOOLS_TRANSLATE_H_
