#include "services/tokenizer/chat_template.h"

#include <openssl/sha.h>

#include "common/status/status_macros.h"

namespace caravan::tokenizer {
namespace {

using jinja::Dict;
using jinja::Origin;
using jinja::Text;
using jinja::Value;

std::string Sha256(std::string_view bytes) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

Value Key(std::string_view name) { return Value::String(name); }

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(
    std::string_view source,
    std::vector<std::pair<std::string, std::string>> special_tokens) {
  CARAVAN_ASSIGN_OR_RETURN(jinja::Template parsed,
                           jinja::Template::Parse(source));
  return ChatTemplate(std::move(parsed), Sha256(source),
                      source.find("tools") != source.npos,
                      std::move(special_tokens));
}

absl::StatusOr<Text> ChatTemplate::Render(const Conversation& conversation,
                                          absl::Time now, absl::TimeZone zone,
                                          const jinja::Limits& limits) const {
  Dict variables;
  variables.Set(Key("messages"), Value::MakeList(conversation.messages));
  // Templates ask whether these are none, not whether they are defined.
  variables.Set(Key("tools"), conversation.tools
                                  ? Value::MakeList(*conversation.tools)
                                  : Value::MakeNone());
  variables.Set(Key("documents"), Value::MakeNone());
  variables.Set(Key("add_generation_prompt"),
                Value(conversation.add_generation_prompt));
  for (const auto& [name, token] : special_tokens_) {
    variables.Set(Key(name), Value(Text(token, Origin::kTemplate)));
  }
  for (const auto& [name, value] : conversation.variables.entries()) {
    variables.Set(name, value);
  }
  return parsed_.Render(variables, now, zone, limits);
}

absl::StatusOr<std::vector<text::TokenId>> EncodeRendered(
    const text::Tokenizer& tokenizer, const Text& rendered) {
  std::vector<text::TextSpan> spans;
  for (const Text::Run& run : rendered.Runs()) {
    spans.push_back({run.bytes, run.origin == Origin::kTemplate});
  }
  CARAVAN_ASSIGN_OR_RETURN(std::vector<text::TokenId> ids,
                           tokenizer.EncodeSpans(spans));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<text::TokenId> around,
                           tokenizer.Encode("", {.add_special_tokens = true}));
  const std::optional<text::TokenId> bos = tokenizer.vocabulary().bos_id;
  const bool model_adds_bos = bos && !around.empty() && around.front() == *bos;
  const bool has_bos = !ids.empty() && bos && ids.front() == *bos;
  if (model_adds_bos && !has_bos) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace caravan::tokenizer
