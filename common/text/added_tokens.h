// Tokens that are found in text by their whole name, before any merging.
#ifndef CARAVAN_COMMON_TEXT_ADDED_TOKENS_H_
#define CARAVAN_COMMON_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

inline constexpr int kMaxAddedTokenBytes = 4096;

// As in tokenizer.json's `added_tokens`.
struct AddedToken {
  std::string name;  // not empty, at most kMaxAddedTokenBytes
  TokenId id = 0;
  bool special = true;       // not recognised in a user's text
  bool single_word = false;  // only between characters that are no letters
  bool strip_left = false;   // takes the white space before it along
  bool strip_right = false;  // and after it
  // Found, normalized itself, in the normalized text between the tokens that
  // are not.
  bool normalized = false;
};

// Finds the longest name that begins at a place of a text.
//
// Immutable once all names are added; then thread-safe.
class NameMatcher {
 public:
  struct Match {
    int32_t value;
    size_t size;
  };

  void Add(std::string_view name, int32_t value);  // `value` is not negative

  // The longest name that `text` begins with.
  std::optional<Match> LongestPrefix(std::string_view text) const;

  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    int32_t value = -1;  // of the name that ends here, or -1
  };
  std::vector<Node> nodes_ = {Node()};
  absl::flat_hash_map<uint64_t, int32_t> children_;  // key: node, byte
  std::array<bool, 256> begins_ = {};
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_ADDED_TOKENS_H_
