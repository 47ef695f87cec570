// Finds stop texts in text that comes in pieces.
#ifndef CARAVAN_GATEWAY_STREAM_STOP_MATCHER_H_
#define CARAVAN_GATEWAY_STREAM_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::gateway {

// Failure links of the stop texts (Knuth, Morris, Pratt), made once for all
// choices of a request. Immutable.
class StopTexts {
 public:
  // None of `texts` is empty.
  explicit StopTexts(std::vector<std::string> texts);

  const std::vector<std::string>& texts() const { return texts_; }
  bool empty() const { return texts_.empty(); }

  // Bytes of text `index` that match after `matched` bytes did and `byte`
  // follows.
  size_t Next(size_t index, size_t matched, char byte) const;

 private:
  std::vector<std::string> texts_;
  std::vector<std::vector<size_t>> links_;
};

// The state of one choice: how many bytes of each stop text match at the end
// of what was fed. Costs amortized constant time per byte and stop text.
//
// Not thread-safe. The texts must outlive the matcher.
class StopMatcher {
 public:
  struct Match {
    size_t text = 0;  // index of the stop text
    size_t end = 0;   // offset in the fed piece just after its last byte
  };

  explicit StopMatcher(const StopTexts& texts);

  // Feeds a piece up to the first byte at which a stop text is complete; of
  // several that end there the longest counts. With `report` off, matches are
  // passed over.
  std::optional<Match> Feed(std::string_view piece, bool report);

  // Bytes at the end of what was fed that may begin a stop text.
  size_t held_bytes() const;

 private:
  std::optional<size_t> Step(char byte);

  const StopTexts& texts_;
  std::vector<size_t> matched_;  // indexed by stop text
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_STOP_MATCHER_H_
