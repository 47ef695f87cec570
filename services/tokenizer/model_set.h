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

struct LoadedModel {
  std::string name;
  std::unique_ptr<const text::Tokenizer> tokenizer;
  // OK, or why conversations are refused: a model without a template, or with a
  // broken one, still encodes text.
  absl::Status template_status;
  std::optional<ChatTemplate> chat_template;
};

// What a --model flag names.
struct ModelSource {
  std::string name;
  std::string directory;
};

// "NAME=DIRECTORY" or "DIRECTORY", whose last part is then the name.
ModelSource ParseModelSource(const std::string& flag);

// Immutable after loading; thread-safe.
class ModelSet {
 public:
  // Loads all, in order. Errors: kModelFileInvalid; kInvalidField for a name
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
