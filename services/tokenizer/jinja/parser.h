// Templates to trees.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_PARSER_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_PARSER_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "services/tokenizer/jinja/ast.h"

namespace caravan::jinja {

// Errors: kTemplateError, naming the line. Nothing nests deeper than 100.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_PARSER_H_
