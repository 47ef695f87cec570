#include "services/tokenizer/jinja/template.h"

#include <utility>

#include "common/status/status_macros.h"
#include "services/tokenizer/jinja/parser.h"

namespace caravan::jinja {

absl::StatusOr<Template> Template::Parse(std::string_view source) {
  CARAVAN_ASSIGN_OR_RETURN(Body body, ParseTemplate(source));
  return Template(std::move(body));
}

absl::StatusOr<Text> Template::Render(const Dict& variables, absl::Time now,
                                      absl::TimeZone zone,
                                      const Limits& limits) const {
  Interpreter interpreter(limits, now, zone);
  return interpreter.Render(body_, variables);
}

}  // namespace caravan::jinja
