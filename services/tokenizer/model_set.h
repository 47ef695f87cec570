// The models of a tokenizer process, loaded once.
#ifndef CARAVAN_SERVICES_TOKENIZER_MODEL_SET_H_
#define CARAVAN_SERVICES_TOKENIZER_MODEL_SET_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"
#include "services/tokenizer/chat_template.h"

namespace caravan::tokenizer {

// What ends an answer in a format beside the model's own end tokens.
struct AnswerEnd {
  std::vector<text::TokenId> token_ids;
  std::vector<std::string> texts;
};

struct LoadedModel {
  std::string name;
  std::unique_ptr<const text::Tokenizer> tokenizer;
  // SHA-256 (32 bytes) of what GetVocabulary answers.
  std::string content_hash;
  // OK, or why conversations are refused: a model without a template, or with a
  // broken one, still encodes text.
  absl::Status template_status;
  std::optional<ChatTemplate> chat_template;
  std::optional<ChatTemplate> tool_template;  // for conversations with tools
  AnswerEnd answer_end;

  // Null where conversations are refused.
  const ChatTemplate* TemplateFor(const Conversation& conversation) const;
};

// What a --model flag names.
struct ModelSource {
  std::string name;
  std::string directory;  // or one GGUF file
  std::string chat_template =
      {};  // a built-in's name, or a file; empty: its own
};

// "NAME=DIRECTORY" or "DIRECTORY", whose last part is then the name.
ModelSource ParseModelSource(const std::string& flag);

// Gives `flag`, "NAME_OR_FILE" for all or "MODEL=NAME_OR_FILE" for one, to the
// sources. Error: kInvalidField where no model is called so.
absl::Status ApplyTemplateFlag(const std::string& flag,
                               std::vector<ModelSource>* sources);

// One model. Errors: kModelFileInvalid; kInvalidField for a template that is
// neither built in nor a file, or that does not fit the vocabulary.
absl::StatusOr<LoadedModel> LoadModel(const ModelSource& source);

// Immutable after loading; thread-safe.
class ModelSet {
 public:
  // Loads all, in order. Errors: those of LoadModel; kInvalidField for a name
  // given twice.
  static absl::StatusOr<ModelSet> Load(const std::vector<ModelSource>& sources);

  // Error: kModelNotFound, naming those that there are.
  absl::StatusOr<const LoadedModel*> Find(std::string_view name) const;

  const std::vector<LoadedModel>& models() const { return models_; }

 private:
  std::vector<LoadedModel> models_;
};

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_MODEL_SET_H_
