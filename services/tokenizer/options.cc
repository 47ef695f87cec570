#include "services/tokenizer/options.h"

#include <CLI/CLI.hpp>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/builtin_templates.h"

namespace caravan::tokenizer {
namespace {

void AddFlags(CLI::App& app, TokenizerOptions& options) {
  AddServiceFlags(app, options);
  app.add_option("--model", options.models,
                 "model directory, or NAME=DIRECTORY; may be repeated");
  app.add_option("--chat-template", options.chat_templates,
                 StrCat("[MODEL=]NAME or file instead of the model's own; "
                        "built in: ",
                        BuiltinTemplateNames()));
  app.add_option("--port", options.port, "gRPC port; 0: any free one");
}

}  // namespace

absl::Status TokenizerOptions::Validate() const {
  if (models.empty()) return FieldError("--model", "given", "nothing");
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--port", port, 0, 65535));
  return ValidateServiceOptions(*this);
}

absl::StatusOr<std::optional<TokenizerOptions>> ParseTokenizerOptions(
    int argc, const char* const* argv) {
  TokenizerOptions options;
  CLI::App app("Turns text and conversations into token ids.",
               "caravan-tokenizer");
  AddFlags(app, options);
  CARAVAN_ASSIGN_OR_RETURN(const bool go_on, ParseFlags(app, argc, argv));
  if (!go_on) return std::optional<TokenizerOptions>();
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return std::optional<TokenizerOptions>(options);
}

}  // namespace caravan::tokenizer
