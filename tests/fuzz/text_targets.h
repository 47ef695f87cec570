// What the fuzzers of text do with some bytes. Nothing may crash, hang or
// break a promise; errors are fine.
#ifndef CARAVAN_TESTS_FUZZ_TEXT_TARGETS_H_
#define CARAVAN_TESTS_FUZZ_TEXT_TARGETS_H_

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::fuzz {

struct TextTarget {
  std::string_view name;
  void (*run)(std::string_view bytes);
  // Inputs to begin with.
  std::vector<std::string> (*seeds)();
};

inline void PrintTo(const TextTarget& value, std::ostream* out) {
  *out << value.name;
}

// tokenizer_json, sentencepiece, ranks: the bytes are the file. encode: the
// bytes are a text for the demo model. jinja: the bytes are a template.
const std::vector<TextTarget>& TextTargets();

// The target of that name; null where there is none.
const TextTarget* FindTextTarget(std::string_view name);

}  // namespace caravan::fuzz

#endif  // CARAVAN_TESTS_FUZZ_TEXT_TARGETS_H_
