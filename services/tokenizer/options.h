// Flags of caravan-tokenizer.
#ifndef CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_
#define CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::tokenizer {

struct TokenizerOptions {
  // --model: directories, or NAME=DIRECTORY; at least one.
  std::vector<std::string> models;
  // --chat-template: a built-in's name or a file, for all models, or
  // MODEL=NAME_OR_FILE. Replaces the model's own.
  std::vector<std::string> chat_templates;
  std::string listen = "127.0.0.1";  // --listen: address of both ports
  int port = 8091;                   // --port: gRPC; 0: any free port
  int metrics_port = 9482;           // --metrics-port; 0: any free port
  std::string tls_certificate_file;  // --tls-cert: PEM; empty: no TLS
  std::string tls_key_file;          // --tls-key: PEM, with --tls-cert
  std::string tls_ca_file;           // --tls-ca: clients must show one of its
  double grace_s = 30;               // --grace: for running calls at the end
  std::string log_level = "info";    // --log-level: debug, info, warning, error

  // Errors: kInvalidField naming the flag.
  absl::Status Validate() const;
};

// Nothing when help was asked for, and printed. Errors: kInvalidField.
absl::StatusOr<std::optional<TokenizerOptions>> ParseTokenizerOptions(
    int argc, const char* const* argv);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_OPTIONS_H_
