// Cuts a template into tokens, with the white-space rules that Hugging Face
// sets: trim_blocks, lstrip_blocks, no newline at the end.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_LEXER_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::jinja {

enum class TokenType {
  kData,           // text outside of tags
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,    // without quotes, escapes resolved
  kInteger,   // digits only
  kFloat,     // as written
  kOperator,  // punctuation, as written
  kEnd,
};

struct Token {
  TokenType type;
  std::string text;
  int line;  // from 1
};

// The tokens, ending with kEnd. Errors: kTemplateError, naming the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// kTemplateError: "template line N: WHAT".
absl::Status ErrorAtLine(int line, std::string_view what);

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_LEXER_H_
