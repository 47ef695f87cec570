#include "worker/server/handle_set.h"

#include <iterator>

namespace caravan::worker {

bool HandleSet::Contains(uint64_t handle) const {
  const auto after = ranges_.upper_bound(handle);
  return after != ranges_.begin() && std::prev(after)->second >= handle;
}

bool HandleSet::Insert(uint64_t handle) {
  if (Contains(handle)) return false;
  auto range = ranges_.emplace(handle, handle).first;
  if (range != ranges_.begin() && std::prev(range)->second == handle - 1) {
    range = std::prev(range);
    MergeWithNext(range);
  }
  const auto next = std::next(range);
  if (next != ranges_.end() && next->first == handle + 1) MergeWithNext(range);
  if (ranges_.size() > max_ranges_) MergeWithNext(ranges_.begin());
  return true;
}

void HandleSet::MergeWithNext(std::map<uint64_t, uint64_t>::iterator range) {
  const auto next = std::next(range);
  range->second = next->second;
  ranges_.erase(next);
}

}  // namespace caravan::worker
