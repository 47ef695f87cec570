// Prompt groups without a worker.
#ifndef CARAVAN_TESTS_GATEWAY_GROUPS_H_
#define CARAVAN_TESTS_GATEWAY_GROUPS_H_

#include <deque>
#include <utility>
#include <vector>

#include "gateway/prompt_group.h"
#include "tests/gateway/fakes/letters.h"

namespace caravan::gateway::testing {

// `size` choices of at most `max_tokens` for the prompt.
inline PromptGroup::Init GroupInit(std::vector<TokenId> ids, int32_t size = 1,
                                   int32_t max_tokens = 8) {
  PromptGroup::Init init;
  init.ids = std::move(ids);
  init.n = size;
  init.stop.max_tokens = max_tokens;
  return init;
}

// Owns groups and what they point at.
class Groups {
 public:
  PromptGroup& Add(std::vector<TokenId> ids) {
    return groups_.emplace_back(GroupInit(std::move(ids)), vocabulary_,
                                options_);
  }

 private:
  const text::Vocabulary vocabulary_ = MakeLetters();
  const ChoiceOptions options_;
  std::deque<PromptGroup> groups_;
};

}  // namespace caravan::gateway::testing

#endif  // CARAVAN_TESTS_GATEWAY_GROUPS_H_
