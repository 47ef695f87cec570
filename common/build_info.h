// Which build this is: compared between stages, shown in hello messages and
// receipts.
#ifndef CARAVAN_COMMON_BUILD_INFO_H_
#define CARAVAN_COMMON_BUILD_INFO_H_

#include <string_view>

namespace caravan {

// Version and, where it was built from a checkout, commit: "0.1.0+3f2a91c".
std::string_view BuildId();

// Protocol revisions that this build speaks (caravan.v1.Hello).
inline constexpr int kLeastProtocolRevision = 1;
inline constexpr int kGreatestProtocolRevision = 1;

}  // namespace caravan

#endif  // CARAVAN_COMMON_BUILD_INFO_H_
