#include "common/text/added_tokens.h"

namespace caravan::text {
namespace {

uint64_t ChildKey(int32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

void NameMatcher::Add(std::string_view name, int32_t value) {
  if (name.empty()) return;
  begins_[static_cast<unsigned char>(name.front())] = true;
  int32_t node = 0;
  for (const char byte : name) {
    const auto [it, inserted] = children_.try_emplace(
        ChildKey(node, byte), static_cast<int32_t>(nodes_.size()));
    if (inserted) nodes_.emplace_back();
    node = it->second;
  }
  nodes_[node].value = value;
}

std::optional<NameMatcher::Match> NameMatcher::LongestPrefix(
    std::string_view text) const {
  if (text.empty() || !begins_[static_cast<unsigned char>(text.front())]) {
    return std::nullopt;
  }
  std::optional<Match> longest;
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto it = children_.find(ChildKey(node, text[i]));
    if (it == children_.end()) break;
    node = it->second;
    if (nodes_[node].value >= 0) longest = Match{nodes_[node].value, i + 1};
  }
  return longest;
}

}  // namespace caravan::text
