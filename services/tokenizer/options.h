// Flags of caravan-tokenizer.
#ifndef CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_
#define CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grpc/service_options.h"

namespace caravan::tokenizer {

struct TokenizerOptions : ServiceOptions {
  TokenizerOptions() { metrics_port = 9482; }

  // --model: directories, or NAME=DIRECTORY; at least one.
  std::vector<std::string> models;
  // --chat-template: a built-in's name or a file, for all models, or
  // MODEL=NAME_OR_FILE. Replaces the model's own.
  std::vector<std::string> chat_templates;
  int port = 8091;  // --port: gRPC; 0: any free port

  // Errors: kInvalidField naming the flag.
  absl::Status Validate() const;
};

// Nothing when help was asked for, and printed. Errors: kInvalidField.
absl::StatusOr<std::optional<TokenizerOptions>> ParseTokenizerOptions(
    int argc, const char* const* argv);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_
