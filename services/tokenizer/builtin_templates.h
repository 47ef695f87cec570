// Chat templates for the models that publish none, by name.
//
// Each is written from the format that its model was trained with; what the
// format has no place for (a system message for Koala, say) is refused with a
// sentence that says so, never dropped.
//
// Thread-safe: pure functions over constants.
#ifndef CARAVAN_SERVICES_TOKENIZER_BUILTIN_TEMPLATES_H_
#define CARAVAN_SERVICES_TOKENIZER_BUILTIN_TEMPLATES_H_

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/text/tokenizer.h"

namespace caravan::tokenizer {

// A format and what belongs to it beside the text.
struct BuiltinTemplate {
  std::string_view name;
  std::array<std::string_view, 3> parts;  // of the source
  // Tokens that the format writes: a vocabulary without one of them belongs to
  // another model.
  std::span<const std::string_view> required_tokens;
  // Further tokens after which an answer is over, where the vocabulary has
  // them, and texts that end it (and are no part of it).
  std::span<const std::string_view> end_tokens;
  std::span<const std::string_view> stop_texts;

  std::string Source() const;  // Jinja
};

std::span<const BuiltinTemplate> BuiltinTemplates();

// Null where none is called so.
const BuiltinTemplate* FindBuiltinTemplate(std::string_view name);

// "llama-2-chat, llama-3-instruct, ...", for messages.
std::string BuiltinTemplateNames();

// OK where the vocabulary has what the format needs. Error: kTemplateError
// naming the token that is missing.
absl::Status CheckRequiredTokens(const BuiltinTemplate& builtin,
                                 const text::Vocabulary& vocabulary);

// The format that the special tokens of a vocabulary and its end tokens prove;
// null where they prove none (most formats are plain text, and a base model
// has the same vocabulary as its chat model).
const BuiltinTemplate* TemplateOfVocabulary(const text::Vocabulary& vocabulary);

// The id of the token whose bytes are `name`; nothing without one.
std::optional<text::TokenId> FindToken(const text::Vocabulary& vocabulary,
                                       std::string_view name);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_BUILTIN_TEMPLATES_H_
