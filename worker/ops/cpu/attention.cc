#include "worker/ops/cpu/attention.h"

#include <algorithm>
#include <atomic>

namespace caravan::worker::cpu {
namespace {

// Query rows of a task: enough to use each key that is loaded well, few enough
// to leave work for every member.
constexpr int32_t kTaskRows = 48;
// Steps of more tokens than this are never cut by splits: they have tasks
// enough, and partial results would be large.
constexpr int64_t kMaxSplitTokens = 8;
constexpr int32_t kBlocksPerSplit = kAttentionSplitKeys / kBlockSlots;

int32_t GroupOf(const AttendArgs& args) { return args.heads / args.kv_heads; }

float ScaleOf(const AttendArgs& args) {
  return 1.0f / __builtin_sqrtf(static_cast<float>(args.head_dim));
}

}  // namespace

Attention::Attention(const KernelTable& kernels, ThreadTeam& team)
    : kernels_(kernels), team_(team), lists_(team.size()) {
  for (Lists& lists : lists_) {
    lists.keys.resize(kBlocksPerSplit);
    lists.values.resize(kBlocksPerSplit);
  }
}

void Attention::Run(const AttendArgs& args) {
  MakeTasks(args);
  const bool few = tasks_.size() < static_cast<size_t>(2 * team_.size());
  if (few && team_.size() > 1 && args.q.rows <= kMaxSplitTokens) {
    CutBySplits(args);
    return;
  }
  shares_.Reset(static_cast<int64_t>(tasks_.size()), team_.size());
  team_.Run([&](int member) {
    for (int64_t i; (i = shares_.Next(member)) >= 0;) {
      RunWhole(args, tasks_[i], lists_[member]);
    }
  });
}

void Attention::MakeTasks(const AttendArgs& args) {
  tasks_.clear();
  const int32_t tokens_per_task = std::max(1, kTaskRows / GroupOf(args));
  for (const AttentionRow& row : args.rows) {
    for (int32_t t = 0; t < row.token_count; t += tokens_per_task) {
      for (int32_t head = 0; head < args.kv_heads; ++head) {
        tasks_.push_back(
            {.row = &row,
             .first_token = t,
             .token_count = std::min(tokens_per_task, row.token_count - t),
             .kv_head = head});
      }
    }
  }
}

void Attention::CutBySplits(const AttendArgs& args) {
  split_tasks_.clear();
  splits_left_.clear();
  int64_t partial_rows = 0;
  for (Task& task : tasks_) {
    const int32_t last =
        task.row->first_position + task.first_token + task.token_count - 1;
    task.partial = partial_rows;
    task.whole = splits_left_.size();
    for (int32_t s = 0; s <= last / kAttentionSplitKeys; ++s) {
      split_tasks_.push_back(task);
      split_tasks_.back().split = s;
      partial_rows += int64_t{task.token_count} * GroupOf(args);
    }
    splits_left_.push_back(last / kAttentionSplitKeys + 1);
  }
  partials_.resize(partial_rows * (args.head_dim + 2));
  shares_.Reset(static_cast<int64_t>(split_tasks_.size()), team_.size());
  team_.Run([&](int member) {
    for (int64_t i; (i = shares_.Next(member)) >= 0;) {
      RunOneSplit(args, split_tasks_[i], lists_[member]);
    }
  });
}

void Attention::ListRows(const AttendArgs& args, const Task& task,
                         Lists& lists) {
  const int32_t group = GroupOf(args);
  const size_t rows = static_cast<size_t>(task.token_count) * group;
  lists.q.resize(rows);
  lists.out.resize(rows);
  lists.limits.resize(rows);
  lists.max.resize(rows);
  lists.sum.resize(rows);
  const int64_t first_column = int64_t{task.kv_head} * group * args.head_dim;
  for (size_t i = 0; i < rows; ++i) {
    const int64_t token = task.row->first_token + task.first_token +
                          static_cast<int64_t>(i) / group;
    const int64_t column =
        first_column + static_cast<int64_t>(i) % group * args.head_dim;
    lists.q[i] = args.q.row(token) + column;
    lists.out[i] = args.out.row(token) + column;
  }
}

void Attention::RunWhole(const AttendArgs& args, const Task& task,
                         Lists& lists) {
  ListRows(args, task, lists);
  const int32_t last =
      task.row->first_position + task.first_token + task.token_count - 1;
  for (int32_t s = 0; s <= last / kAttentionSplitKeys; ++s) {
    RunSplit(args, task, s, /*first=*/s == 0, lists);
  }
  for (size_t i = 0; i < lists.out.size(); ++i) {
    kernels_.divide(lists.out[i], lists.sum[i], args.head_dim);
  }
}

void Attention::RunSplit(const AttendArgs& args, const Task& task,
                         int32_t split, bool first, Lists& lists) {
  const int32_t group = GroupOf(args);
  const int32_t base = split * kAttentionSplitKeys;
  const int32_t position = task.row->first_position + task.first_token;
  int skipped = 0;  // query rows before the split's first key
  const int rows = static_cast<int>(lists.q.size());
  for (int i = 0; i < rows; ++i) {
    const int32_t visible = position + i / group + 1 - base;
    if (visible <= 0) ++skipped;
    lists.limits[i] = std::min(visible, kAttentionSplitKeys);
  }
  const int32_t blocks =
      (lists.limits[rows - 1] + kBlockSlots - 1) / kBlockSlots;
  const CpuKv& kv = static_cast<const CpuKv&>(*args.kv);
  for (int32_t b = 0; b < blocks; ++b) {
    const BlockId block = task.row->blocks[split * kBlocksPerSplit + b];
    lists.keys[b] = kv.Keys(args.layer, block, task.kv_head);
    lists.values[b] = kv.Values(args.layer, block, task.kv_head);
  }
  const auto attend_split =
      kv.dtype() == DType::kFp32
          ? kernels_.attend_split_fp32
          : (kv.dtype() == DType::kBf16 ? kernels_.attend_split_bf16
                                        : kernels_.attend_split_fp16);
  attend_split({.keys = lists.keys.data(),
                .values = lists.values.data(),
                .value_stride = kv.value_stride(),
                .head_dim = args.head_dim,
                .scale = ScaleOf(args),
                .rows = rows - skipped,
                .q = lists.q.data() + skipped,
                .limits = lists.limits.data() + skipped,
                .first = first,
                .max = lists.max.data() + skipped,
                .sum = lists.sum.data() + skipped,
                .out = lists.out.data() + skipped});
}

float* Attention::Partial(const AttendArgs& args, const Task& task,
                          int32_t split, int64_t query_row) {
  const int64_t rows = int64_t{task.token_count} * GroupOf(args);
  return partials_.data() +
         (task.partial + split * rows + query_row) * (args.head_dim + 2);
}

void Attention::RunOneSplit(const AttendArgs& args, const Task& task,
                            Lists& lists) {
  ListRows(args, task, lists);
  const size_t rows = lists.q.size();
  for (size_t i = 0; i < rows; ++i) {
    lists.out[i] = Partial(args, task, task.split, static_cast<int64_t>(i)) + 2;
  }
  RunSplit(args, task, task.split, /*first=*/true, lists);
  for (size_t i = 0; i < rows; ++i) {
    lists.out[i][-2] = lists.max[i];
    lists.out[i][-1] = lists.sum[i];
  }
  std::atomic_ref<int32_t> left(splits_left_[task.whole]);
  if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    MergeSplits(args, tasks_[task.whole]);
  }
}

void Attention::MergeSplits(const AttendArgs& args, const Task& task) {
  const int32_t group = GroupOf(args);
  for (int32_t i = 0; i < task.token_count * group; ++i) {
    const int32_t token = task.first_token + i / group;
    const int32_t last_split =
        (task.row->first_position + token) / kAttentionSplitKeys;
    const int32_t head = task.kv_head * group + i % group;
    float* const out = args.out.row(task.row->first_token + token) +
                       int64_t{head} * args.head_dim;
    const float* const first = Partial(args, task, 0, i);
    float max = first[0];
    float sum = first[1];
    std::copy(first + 2, first + 2 + args.head_dim, out);
    for (int32_t s = 1; s <= last_split; ++s) {
      const float* const partial = Partial(args, task, s, i);
      kernels_.merge_split({.head_dim = args.head_dim,
                            .max = partial[0],
                            .sum = partial[1],
                            .o = partial + 2,
                            .into_max = &max,
                            .into_sum = &sum,
                            .into_o = out});
    }
    kernels_.divide(out, sum, args.head_dim);
  }
}

}  // namespace caravan::worker::cpu
