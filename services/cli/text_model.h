// A model's text side for `tokenize` and `render`: its files, or a running
// tokenizer that has loaded them. Both answer alike.
#ifndef CARAVAN_SERVICES_CLI_TEXT_MODEL_H_
#define CARAVAN_SERVICES_CLI_TEXT_MODEL_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "caravan/v1/tokenizer.pb.h"
#include "common/text/vocabulary.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

struct TextModelOptions {
  std::string model;          // a path; with --tokenizer a model's name
  ClientOptions client;       // address empty: offline
  std::string chat_template;  // a built-in's name or a file; offline only
};

void AddTextModelFlags(CLI::App& app, TextModelOptions& options);

// Not thread-safe.
class TextModel {
 public:
  // Loads the files, or asks the service for its models. Errors: kInvalidField
  // for flags that do not fit together, those of the loader or the service.
  static absl::StatusOr<std::unique_ptr<TextModel>> Open(
      const TextModelOptions& options);
  virtual ~TextModel() = default;

  virtual absl::StatusOr<v1::PreparedPrompt> Prepare(
      const v1::PrepareInput& input) = 0;
  virtual absl::StatusOr<text::Vocabulary> GetVocabulary() = 0;
};

// The tokens of `prompt` as a table of ids, byte offsets in `text`, and
// pieces; or as a JSON array of objects.
std::string TokenTable(std::string_view text, const v1::PreparedPrompt& prompt,
                       const text::Vocabulary& vocabulary);
std::string TokenJson(std::string_view text, const v1::PreparedPrompt& prompt,
                      const text::Vocabulary& vocabulary);

// All of a file, "-" being standard input. Error: kInvalidField naming `flag`.
absl::StatusOr<std::string> ReadInput(const std::string& flag,
                                      const std::string& path);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_TEXT_MODEL_H_
