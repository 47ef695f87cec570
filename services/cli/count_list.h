// Lists of counts on the command line.
#ifndef CARAVAN_SERVICES_CLI_COUNT_LIST_H_
#define CARAVAN_SERVICES_CLI_COUNT_LIST_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::cli {

// "1,4,16", "1-33" or both mixed, each in [1, 1,000,000], at most 1,024 of
// them; an empty text is an empty list. Errors name `flag`.
absl::StatusOr<std::vector<int>> ParseCountList(std::string_view flag,
                                                std::string_view text);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_COUNT_LIST_H_
