// Tokenizers that properties are tested with.
#ifndef CARAVAN_TESTS_PROPERTY_TOKENIZERS_H_
#define CARAVAN_TESTS_PROPERTY_TOKENIZERS_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer.h"

namespace caravan::text {

// The demo model, and Llama-2 and Llama-3 from each of their formats where
// there is reference data. What does not load fails the test.
std::vector<std::unique_ptr<Tokenizer>> AllTokenizers();

// The text of a text's ids. Fails the test when it cannot be encoded.
std::string RoundTrip(const Tokenizer& tokenizer, std::string_view text);

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_PROPERTY_TOKENIZERS_H_
