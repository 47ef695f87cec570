#include "gateway/stream/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace caravan::gateway {
namespace {

// links[i]: length of the longest proper prefix of text that ends at i.
std::vector<size_t> FailureLinks(std::string_view text) {
  std::vector<size_t> links(text.size(), 0);
  for (size_t i = 1, k = 0; i < text.size(); ++i) {
    while (k > 0 && text[i] != text[k]) k = links[k - 1];
    if (text[i] == text[k]) ++k;
    links[i] = k;
  }
  return links;
}

}  // namespace

StopTexts::StopTexts(std::vector<std::string> texts)
    : texts_(std::move(texts)) {
  links_.reserve(texts_.size());
  for (const std::string& text : texts_) links_.push_back(FailureLinks(text));
}

size_t StopTexts::Next(size_t index, size_t matched, char byte) const {
  const std::string& text = texts_[index];
  if (matched == text.size()) matched = links_[index][matched - 1];
  while (matched > 0 && text[matched] != byte) {
    matched = links_[index][matched - 1];
  }
  return text[matched] == byte ? matched + 1 : 0;
}

StopMatcher::StopMatcher(const StopTexts& texts)
    : texts_(texts), matched_(texts.texts().size(), 0) {}

std::optional<StopMatcher::Match> StopMatcher::Feed(std::string_view piece,
                                                    bool report) {
  if (matched_.empty()) return std::nullopt;
  for (size_t i = 0; i < piece.size(); ++i) {
    const std::optional<size_t> complete = Step(piece[i]);
    if (complete && report) return Match{*complete, i + 1};
  }
  return std::nullopt;
}

std::optional<size_t> StopMatcher::Step(char byte) {
  std::optional<size_t> longest;
  for (size_t t = 0; t < matched_.size(); ++t) {
    matched_[t] = texts_.Next(t, matched_[t], byte);
    if (matched_[t] != texts_.texts()[t].size()) continue;
    if (!longest || matched_[t] > matched_[*longest]) longest = t;
  }
  return longest;
}

size_t StopMatcher::held_bytes() const {
  size_t held = 0;
  for (size_t t = 0; t < matched_.size(); ++t) {
    // A whole match that was passed over holds only what may begin another.
    const bool whole = matched_[t] == texts_.texts()[t].size();
    held = std::max(held, whole ? matched_[t] - 1 : matched_[t]);
  }
  return held;
}

}  // namespace caravan::gateway
