#include "worker/shard/collective.h"

#include <algorithm>
#include <cstdint>

#include "worker/ops/canonical_math.h"

namespace caravan::worker {
namespace {

constexpr int64_t kFloatsPerLine = 16;

// target = a + b; `target` may be one of them.
template <bool kFlush>
void Add(const float* a, const float* b, int64_t count, float* target) {
  for (int64_t i = 0; i < count; ++i) {
    const float sum = a[i] + b[i];
    target[i] = kFlush ? Flush(sum) : sum;
  }
}

// The tree above `rows`, of a power of two, into the first of `sums`; each of
// those has room for a run of columns.
template <bool kFlush>
void AddTree(std::span<const float* const> rows, int64_t count, float* sums) {
  const size_t half = rows.size() / 2;
  if (half == 0) {
    std::copy_n(rows[0], count, sums);
    return;
  }
  if (half == 1) return Add<kFlush>(rows[0], rows[1], count, sums);
  AddTree<kFlush>(rows.first(half), count, sums);
  AddTree<kFlush>(rows.last(half), count, sums + count);
  Add<kFlush>(sums, sums + count, count, sums);
}

// Columns that are summed at a time, so that sums stay in the nearest cache.
constexpr int64_t kRun = 256;
constexpr int kMostRanks = 8;

struct Run {
  std::span<const View<const float>> partials;
  int64_t row;
  int64_t first;
  int64_t count;
};

void AddRun(const Run& run, const AllReduceAddArgs& args) {
  const float* rows[kMostRanks];
  float sums[kRun * kMostRanks / 2];
  for (size_t r = 0; r < run.partials.size(); ++r) {
    rows[r] = run.partials[r].row(run.row) + run.first;
  }
  const std::span<const float* const> all(rows, run.partials.size());
  (args.flush ? AddTree<true> : AddTree<false>)(all, run.count, sums);
  if (!args.bias.empty()) {
    Add<false>(sums, args.bias.data() + run.first, run.count, sums);
  }
  float* const x = args.x.row(run.row) + run.first;
  Add<false>(x, sums, run.count, x);
}

}  // namespace

HostCollective::HostCollective(cpu::ThreadTeam* team)
    : team_(*team), partials_(static_cast<size_t>(team->size())) {}

absl::Status HostCollective::AllReduceAdd(int rank,
                                          const AllReduceAddArgs& args) {
  partials_[static_cast<size_t>(rank)] = args.partial;
  team_.Barrier(rank);
  const int64_t lines = (args.x.cols + kFloatsPerLine - 1) / kFloatsPerLine;
  const int64_t begin = rank * lines / team_.size() * kFloatsPerLine;
  const int64_t end =
      std::min(args.x.cols, (rank + 1) * lines / team_.size() * kFloatsPerLine);
  for (int64_t row = 0; row < args.x.rows; ++row) {
    for (int64_t first = begin; first < end; first += kRun) {
      AddRun({partials_, row, first, std::min(kRun, end - first)}, args);
    }
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker
