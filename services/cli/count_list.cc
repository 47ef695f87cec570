#include "services/cli/count_list.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

constexpr int kMost = 1'000'000;
constexpr size_t kMostCounts = 1024;

std::optional<int> ParseCount(std::string_view text) {
  int value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  if (value < 1 || value > kMost) return std::nullopt;
  return value;
}

absl::Status AddItem(std::string_view flag, std::string_view item,
                     std::vector<int>& counts) {
  const size_t dash = item.find('-');
  const std::optional<int> first = ParseCount(item.substr(0, dash));
  const std::optional<int> last =
      dash == item.npos ? first : ParseCount(item.substr(dash + 1));
  if (!first || !last || *first > *last) {
    return FieldError(flag,
                      StrCat("counts in [1, ", kMost,
                             "] or ranges LEAST-MOST of them, by comma"),
                      item);
  }
  const size_t more = static_cast<size_t>(*last - *first) + 1;
  if (counts.size() + more > kMostCounts) {
    return FieldError(flag, StrCat("at most ", kMostCounts, " counts"),
                      StrCat(counts.size() + more));
  }
  for (int count = *first; count <= *last; ++count) counts.push_back(count);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int>> ParseCountList(std::string_view flag,
                                                std::string_view text) {
  std::vector<int> counts;
  if (text.empty()) return counts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    CARAVAN_RETURN_IF_ERROR(
        AddItem(flag, text.substr(begin, end - begin), counts));
    begin = end + 1;
  }
  return counts;
}

}  // namespace caravan::cli
