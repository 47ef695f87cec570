// The driver of attention: cuts a step into tasks of (tokens of one sequence,
// kv head), and, where those are fewer than the team has use for, further by
// splits of keys. The bits do not depend on the cut.
#ifndef CARAVAN_WORKER_OPS_CPU_ATTENTION_H_
#define CARAVAN_WORKER_OPS_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/packed_matrix.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/ops.h"

namespace caravan::worker::cpu {

// Not thread-safe: one caller at a time.
class Attention {
 public:
  Attention(const KernelTable& kernels, ThreadTeam& team);

  void Run(const AttendArgs& args);

 private:
  // Some consecutive tokens of one row, for the query heads of one kv head.
  struct Task {
    const AttentionRow* row = nullptr;
    int32_t first_token = 0;  // within the row
    int32_t token_count = 0;
    int32_t kv_head = 0;
    int64_t partial = 0;  // its first split's place in partials_
    int32_t split = -1;   // only this one; -1: all
    size_t whole = 0;     // of one split: the place in tasks_ of all
  };
  // One member's lists for AttendSplitArgs; per query row of a task.
  struct Lists {
    std::vector<const float*> q;
    std::vector<float*> out;
    std::vector<int32_t> limits;
    std::vector<float> max;
    std::vector<float> sum;
    std::vector<const void*> keys;
    std::vector<const void*> values;
  };

  void MakeTasks(const AttendArgs& args);
  void CutBySplits(const AttendArgs& args);
  void RunWhole(const AttendArgs& args, const Task& task, Lists& lists);
  // The split, and the merge where it is the task's last to be done.
  void RunOneSplit(const AttendArgs& args, const Task& task, Lists& lists);
  void MergeSplits(const AttendArgs& args, const Task& task);
  void RunSplit(const AttendArgs& args, const Task& task, int32_t split,
                bool first, Lists& lists);
  void ListRows(const AttendArgs& args, const Task& task, Lists& lists);
  // Place of a query row's partial result: (max, sum, o[head_dim]).
  float* Partial(const AttendArgs& args, const Task& task, int32_t split,
                 int64_t query_row);

  const KernelTable& kernels_;
  ThreadTeam& team_;
  std::vector<Lists> lists_;  // per member
  std::vector<Task> tasks_;
  std::vector<Task> split_tasks_;
  std::vector<float> partials_;
  // Of each of tasks_ that is cut: splits that are not done. Who does the last
  // one merges them, so that nobody waits for the others.
  std::vector<int32_t> splits_left_;
  WorkShares shares_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_ATTENTION_H_
