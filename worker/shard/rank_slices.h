// How ranks share matrices out: heads, columns and rows of each, parted where
// segments of the canonical computation are.
#ifndef CARAVAN_WORKER_SHARD_RANK_SLICES_H_
#define CARAVAN_WORKER_SHARD_RANK_SLICES_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "worker/ops/backend.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

// Where each rank's part begins, and the end of the last: of columns where they
// are shared out, else of rows.
using RankBorders = std::vector<int64_t>;

// Precondition of all below: the parts pass Check(parts, spec) (ops/check.h)
// and `ranks` passes CheckRankCount(). A table's rows are all the first rank's,
// unless ranks lie `apart`, on a device each.
RankBorders BordersOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                      int ranks, bool apart);

// What one rank packs of a matrix; no rows where it has nothing.
struct RankSlice {
  std::vector<RawMatrix> parts;
  PackSpec spec;
};
RankSlice SliceOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                  int ranks, int rank, bool apart);

// Errors of all below: kInvalidField names --ranks, the limit and the value.

// 1, 2, 4 or 8.
absl::Status CheckRankCount(int ranks);

// Whether borders of segments part the matrix and cut no block of its type, nor
// a group of int8 `activations`. `name` is for the message.
absl::Status CheckSlices(std::string_view name,
                         std::span<const RawMatrix> parts, const PackSpec& spec,
                         ActivationType activations, int ranks);

// Whether every rank has rows of a table or an output head, which those that
// lie apart need.
absl::Status CheckRows(std::span<const RawMatrix> parts, const PackSpec& spec,
                       int ranks);

// Whether `ranks` can share a model out: each of its matrices and its heads.
absl::Status CheckRanks(int32_t kv_heads, std::span<const MatrixShape> matrices,
                        ActivationType activations, int ranks);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_RANK_SLICES_H_
