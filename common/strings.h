// absl's string functions for std::string_view. Debian's Abseil is built with
// a string_view of its own, so absl::StrCat and absl::Status do not take the
// standard one; these wrappers do.
#ifndef CARAVAN_COMMON_STRINGS_H_
#define CARAVAN_COMMON_STRINGS_H_

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace caravan {

inline absl::string_view ToAbsl(std::string_view text) {
  return absl::string_view(text.data(), text.size());
}
inline std::string_view ToStd(absl::string_view text) {
  return std::string_view(text.data(), text.size());
}

namespace internal {
template <typename T>
decltype(auto) ForAbsl(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return ToAbsl(value);
  } else {
    return (value);
  }
}
}  // namespace internal

template <typename... Args>
std::string StrCat(const Args&... args) {
  return absl::StrCat(internal::ForAbsl(args)...);
}

template <typename... Args>
void StrAppend(std::string* out, const Args&... args) {
  absl::StrAppend(out, internal::ForAbsl(args)...);
}

}  // namespace caravan

#endif  // CARAVAN_COMMON_STRINGS_H_
