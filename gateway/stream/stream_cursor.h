// How far a client has read a stream: what an event's id carries, so that any
// gateway can go on from there.
#ifndef CARAVAN_GATEWAY_STREAM_STREAM_CURSOR_H_
#define CARAVAN_GATEWAY_STREAM_STREAM_CURSOR_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::gateway {

// Choices of a stream whose events have ids.
inline constexpr int kMaxCursorChoices = 64;

// What the client has of one choice.
struct ChoiceCursor {
  int32_t tokens = 0;
  int64_t text_bytes = 0;
  bool finished = false;
  bool operator==(const ChoiceCursor&) const = default;
};

struct StreamCursor {
  uint64_t request_tag = 0;   // of tenant, key and body
  uint64_t seed = 0;          // that is used
  uint64_t identity_tag = 0;  // of weights, class and fingerprint
  bool introduced = false;    // what comes before the first token was sent
  std::vector<ChoiceCursor> choices;  // prompt * n + index within n
  bool operator==(const StreamCursor&) const = default;
};

// Letters, digits, "-" and "_"; about 40 characters and 4 a choice.
std::string EncodeCursor(const StreamCursor& cursor);

// Error: kInvalidField naming `field` when the text is none of EncodeCursor.
absl::StatusOr<StreamCursor> DecodeCursor(std::string_view field,
                                          std::string_view text);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_STREAM_CURSOR_H_
