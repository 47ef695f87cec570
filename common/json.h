// Parsing and printing of JSON values, compiled once: what nlohmann::json
// makes of them takes seconds in every file that does it itself.
#ifndef CARAVAN_COMMON_JSON_H_
#define CARAVAN_COMMON_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace caravan {

// The value of a text; a discarded one where it is not JSON. Depth and size
// are the caller's to bound.
nlohmann::json ParseJson(std::string_view text);
// The same with members in the order of the text.
nlohmann::ordered_json ParseOrderedJson(std::string_view text);

// The text of a value, in one line, or in many where `indent` is not negative.
// Strings that are not UTF-8 get U+FFFD for what is wrong in them.
std::string DumpJson(const nlohmann::json& value, int indent = -1);
std::string DumpJson(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace caravan

#endif  // CARAVAN_COMMON_JSON_H_
