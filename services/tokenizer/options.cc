#include "services/tokenizer/options.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/builtin_templates.h"

namespace caravan::tokenizer {
namespace {

absl::Status CheckRange(std::string_view flag, double value, double least,
                        double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(flag, StrCat("in [", least, ", ", most, "]"),
                    StrCat(value));
}

void AddFlags(CLI::App& app, TokenizerOptions& options) {
  app.option_defaults()->always_capture_default();
  app.add_option("--model", options.models,
                 "model directory, or NAME=DIRECTORY; may be repeated");
  app.add_option("--chat-template", options.chat_templates,
                 StrCat("[MODEL=]NAME or file instead of the model's own; "
                        "built in: ",
                        BuiltinTemplateNames()));
  app.add_option("--listen", options.listen, "address to bind");
  app.add_option("--port", options.port, "gRPC port; 0: any free one");
  app.add_option("--metrics-port", options.metrics_port,
                 "port of GET /metrics; 0: any free one");
  app.add_option("--tls-cert", options.tls_certificate_file,
                 "certificate, PEM");
  app.add_option("--tls-key", options.tls_key_file, "its key, PEM");
  app.add_option("--tls-ca", options.tls_ca_file,
                 "authority of client certificates, PEM");
  app.add_option("--grace", options.grace_s,
                 "seconds for running calls at the end");
  app.add_option("--log-level", options.log_level,
                 "debug, info, warning or error");
}

}  // namespace

absl::Status TokenizerOptions::Validate() const {
  if (models.empty()) return FieldError("--model", "given", "nothing");
  CARAVAN_RETURN_IF_ERROR(CheckRange("--port", port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--metrics-port", metrics_port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--grace", grace_s, 0, 86400));
  for (const std::string_view level : {"debug", "info", "warning", "error"}) {
    if (log_level == level) return absl::OkStatus();
  }
  return FieldError("--log-level", "debug, info, warning or error", log_level);
}

absl::StatusOr<std::optional<TokenizerOptions>> ParseTokenizerOptions(
    int argc, const char* const* argv) {
  TokenizerOptions options;
  CLI::App app("Turns text and conversations into token ids.",
               "caravan-tokenizer");
  AddFlags(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return std::optional<TokenizerOptions>();
  } catch (const CLI::ParseError& error) {
    return MakeError(Reason::kInvalidField, error.what());
  }
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return std::optional<TokenizerOptions>(options);
}

}  // namespace caravan::tokenizer
