// The handles that a session has used, so that none is used twice. Gateways
// count upwards, so what was used is a few ranges, however long the session.
//
// Not thread-safe.
#ifndef CARAVAN_WORKER_SERVER_HANDLE_SET_H_
#define CARAVAN_WORKER_SERVER_HANDLE_SET_H_

#include <cstddef>
#include <cstdint>
#include <map>

namespace caravan::worker {

class HandleSet {
 public:
  // With more than `max_ranges` ranges the lowest gap counts as used.
  explicit HandleSet(size_t max_ranges = 4096) : max_ranges_(max_ranges) {}

  // Whether `handle` was not in the set; it is now.
  bool Insert(uint64_t handle);

  bool Contains(uint64_t handle) const;
  size_t range_count() const { return ranges_.size(); }

 private:
  void MergeWithNext(std::map<uint64_t, uint64_t>::iterator range);

  const size_t max_ranges_;
  std::map<uint64_t, uint64_t> ranges_;  // first to last, both in the set
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_HANDLE_SET_H_
