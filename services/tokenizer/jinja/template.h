// A chat template's language: parse once, render many times.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_TEMPLATE_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_TEMPLATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/tokenizer/jinja/ast.h"
#include "services/tokenizer/jinja/interpreter.h"

namespace caravan::jinja {

// Jinja as Hugging Face's chat templates use it: sandboxed (nothing can change
// but namespaces), trim_blocks, lstrip_blocks, loop controls, no escaping,
// `raise_exception` and `strftime_now`.
//
// Immutable; thread-safe.
class Template {
 public:
  // Errors: kTemplateError, naming the line.
  static absl::StatusOr<Template> Parse(std::string_view source);

  // The text, with the origin of each byte: literals of the template are the
  // template's, everything in `variables` keeps its own. Errors: kTemplateError
  // with the line, or exactly the message of the template's raise_exception
  // (metadata "raised").
  absl::StatusOr<Text> Render(const Dict& variables, absl::Time now,
                              absl::TimeZone zone,
                              const Limits& limits = {}) const;

 private:
  explicit Template(Body body) : body_(std::move(body)) {}
  Body body_;
};

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_TEMPLATE_H_
