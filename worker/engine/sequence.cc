#include "worker/engine/sequence.h"

#include <algorithm>

namespace caravan::worker {

std::vector<TokenId> Sequence::Tokens(int32_t first, int32_t end) const {
  const std::vector<TokenId>& prompt = *group->request.prompt;
  const int32_t border = group->prompt_size();
  std::vector<TokenId> tokens;
  tokens.reserve(end - first);
  if (first < border) {
    tokens.assign(prompt.begin() + first,
                  prompt.begin() + std::min(end, border));
  }
  if (end > border) {
    tokens.insert(tokens.end(), output.begin() + std::max(0, first - border),
                  output.begin() + (end - border));
  }
  return tokens;
}

std::span<const kv::BlockHash> Sequence::Hashes(int32_t count) {
  while (static_cast<int32_t>(hashes.size()) < count) {
    const auto first = static_cast<int32_t>(hashes.size()) * kv::kBlockTokens;
    const kv::BlockHash& parent = hashes.empty() ? group->root : hashes.back();
    hashes.push_back(
        kv::HashBlock(parent, Tokens(first, first + kv::kBlockTokens)));
  }
  return std::span(hashes).first(count);
}

}  // namespace caravan::worker
