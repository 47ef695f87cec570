// A model's chat template: conversations to text that knows where special
// tokens may be.
#ifndef CARAVAN_SERVICES_TOKENIZER_CHAT_TEMPLATE_H_
#define CARAVAN_SERVICES_TOKENIZER_CHAT_TEMPLATE_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/text/tokenizer.h"
#include "services/tokenizer/jinja/template.h"

namespace caravan::tokenizer {

// What one rendering needs beside the template.
struct Conversation {
  jinja::List messages;              // dicts with role, content, ...
  std::optional<jinja::List> tools;  // dicts; `none` for the template without
  bool add_generation_prompt = true;
  jinja::Dict variables;  // further ones; they win over those above
};

// Immutable; thread-safe.
class ChatTemplate {
 public:
  // `special_tokens` are variables such as bos_token; they count as text of
  // the template. Errors: kTemplateError, naming the line.
  static absl::StatusOr<ChatTemplate> Create(
      std::string_view source,
      std::vector<std::pair<std::string, std::string>> special_tokens);

  // Errors: kTemplateError, with the message of raise_exception as it is.
  absl::StatusOr<jinja::Text> Render(const Conversation& conversation,
                                     absl::Time now, absl::TimeZone zone,
                                     const jinja::Limits& limits = {}) const;

  // Whether the text mentions tools: without that they would be left out of
  // the prompt in silence.
  bool knows_tools() const { return knows_tools_; }

  // SHA-256 (32 bytes) of the template's text.
  const std::string& template_id() const { return template_id_; }

 private:
  ChatTemplate(jinja::Template parsed, std::string template_id,
               bool knows_tools,
               std::vector<std::pair<std::string, std::string>> special_tokens)
      : parsed_(std::move(parsed)),
        template_id_(std::move(template_id)),
        knows_tools_(knows_tools),
        special_tokens_(std::move(special_tokens)) {}

  jinja::Template parsed_;
  std::string template_id_;
  bool knows_tools_;
  std::vector<std::pair<std::string, std::string>> special_tokens_;
};

// Ids of a rendered conversation with exactly one BOS where the model adds BOS
// to plain text: the template's own, or else the model's.
absl::StatusOr<std::vector<text::TokenId>> EncodeRendered(
    const text::Tokenizer& tokenizer, const jinja::Text& rendered);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_CHAT_TEMPLATE_H_
