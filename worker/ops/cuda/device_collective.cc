#include "worker/ops/cuda/device_collective.h"

#include <algorithm>

#include "common/status/status_macros.h"
#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {
namespace {

// Of one rank in one gather: enough to fill a link, little beside the weights.
constexpr int64_t kGatherBytes = int64_t{4} << 20;

size_t PartBytes(int64_t rows, int64_t columns) {
  return sizeof(float) * static_cast<size_t>(rows * columns);
}

RowOwners OwnersOf(int64_t rows, int ranks) {
  static_assert(kMostRanks == kSegments);
  const auto borders = RowsOfRanks(rows, ranks);
  RowOwners owners;
  for (int r = 0; r <= kMostRanks; ++r) {
    owners.first[r] = static_cast<int32_t>(borders[static_cast<size_t>(r)]);
  }
  return owners;
}

template <typename Kernel>
LaunchShape Columns(int64_t rows, int64_t columns) {
  return {.x = rows,
          .y = CeilDiv(columns, Kernel::kThreads),
          .threads = Kernel::kThreads};
}

}  // namespace

int64_t DeviceCollective::RowsAtOnce(int64_t columns) const {
  return std::max<int64_t>(1,
                           kGatherBytes / (int64_t{sizeof(float)} * columns));
}

size_t DeviceCollective::AllBytes(int64_t rows, int64_t columns) const {
  return static_cast<size_t>(ranks_) *
         PartBytes(std::min(rows, RowsAtOnce(columns)), columns);
}

int64_t DeviceCollective::WidestPart(int64_t columns) const {
  const auto borders = RowsOfRanks(columns, ranks_);
  int64_t widest = 0;
  for (int r = 0; r < ranks_; ++r) {
    widest = std::max(widest, borders[static_cast<size_t>(r) + 1] -
                                  borders[static_cast<size_t>(r)]);
  }
  return widest;
}

size_t DeviceCollective::ScratchBytes(const ScratchSpec& spec) const {
  if (ranks_ == 1) return 0;
  const int64_t columns =
      spec.logits_rows == 0 ? 1 : WidestPart(spec.vocabulary);
  return DeviceBuffer::AllocatedBytes(
             std::max(PartBytes(spec.max_tokens, spec.hidden),
                      PartBytes(spec.logits_rows, columns))) +
         DeviceBuffer::AllocatedBytes(
             std::max(AllBytes(spec.max_tokens, spec.hidden),
                      AllBytes(spec.logits_rows, columns)));
}

absl::Status DeviceCollective::Reserve(const ScratchSpec& spec) {
  if (ranks_ == 1) return absl::OkStatus();
  const int64_t columns =
      spec.logits_rows == 0 ? 1 : WidestPart(spec.vocabulary);
  CARAVAN_RETURN_IF_ERROR(
      part_
          .Get(std::max(PartBytes(spec.max_tokens, spec.hidden),
                        PartBytes(spec.logits_rows, columns)))
          .status());
  return all_
      .Get(std::max(AllBytes(spec.max_tokens, spec.hidden),
                    AllBytes(spec.logits_rows, columns)))
      .status();
}

absl::StatusOr<View<float>> DeviceCollective::Part(int64_t rows,
                                                   int64_t columns) {
  CARAVAN_ASSIGN_OR_RETURN(void* const data,
                           part_.Get(PartBytes(rows, columns)));
  return View<float>(static_cast<float*>(data), rows, columns);
}

absl::StatusOr<Gathered> DeviceCollective::Gather(const View<const float>& part,
                                                  int64_t first,
                                                  int64_t count) {
  const size_t bytes = PartBytes(count, part.cols);
  CARAVAN_ASSIGN_OR_RETURN(void* const all,
                           all_.Get(static_cast<size_t>(ranks_) * bytes));
  CARAVAN_RETURN_IF_ERROR(
      device_.Gather({.part = part.row(first),
                      .all = all,
                      .bytes = static_cast<int64_t>(bytes)}));
  return Gathered{.all = static_cast<const float*>(all),
                  .part = count * part.cols,
                  .columns = part.cols};
}

absl::Status DeviceCollective::AllReduceAdd(int, const AllReduceAddArgs& args) {
  const int64_t at_once = RowsAtOnce(args.partial.cols);
  for (int64_t t = 0; t < args.x.rows; t += at_once) {
    const int64_t count = std::min(at_once, args.x.rows - t);
    CARAVAN_ASSIGN_OR_RETURN(const Gathered parts,
                             Gather(args.partial, t, count));
    CARAVAN_RETURN_IF_ERROR(device_.Launch<AddTreeKernel>(
        Columns<AddTreeKernel>(count, args.x.cols),
        {.parts = parts,
         .ranks = ranks_,
         .flush = args.flush ? 1 : 0,
         .bias = args.bias.empty() ? nullptr : args.bias.data(),
         .x = args.x.row(t),
         .stride = args.x.stride}));
  }
  return absl::OkStatus();
}

absl::Status DeviceCollective::PickRows(const View<const float>& part,
                                        const int32_t* ids, int64_t table_rows,
                                        const DeviceView& x) {
  const RowOwners owners = OwnersOf(table_rows, ranks_);
  const int64_t at_once = RowsAtOnce(part.cols);
  for (int64_t t = 0; t < part.rows; t += at_once) {
    const int64_t count = std::min(at_once, part.rows - t);
    CARAVAN_ASSIGN_OR_RETURN(const Gathered parts, Gather(part, t, count));
    CARAVAN_RETURN_IF_ERROR(device_.Launch<PickRowsKernel>(
        Columns<PickRowsKernel>(count, part.cols), {.parts = parts,
                                                    .owners = owners,
                                                    .ids = ids + t,
                                                    .x = x.data + t * x.stride,
                                                    .stride = x.stride}));
  }
  return absl::OkStatus();
}

absl::Status DeviceCollective::PlaceColumns(const View<const float>& part,
                                            int64_t columns,
                                            const DeviceView& y) {
  const RowOwners owners = OwnersOf(columns, ranks_);
  const int64_t at_once = RowsAtOnce(part.cols);
  for (int64_t t = 0; t < part.rows; t += at_once) {
    const int64_t count = std::min(at_once, part.rows - t);
    CARAVAN_ASSIGN_OR_RETURN(const Gathered parts, Gather(part, t, count));
    CARAVAN_RETURN_IF_ERROR(device_.Launch<PlaceColumnsKernel>(
        Columns<PlaceColumnsKernel>(count, columns),
        {.parts = parts,
         .owners = owners,
         .columns = columns,
         .y = y.data + t * y.stride,
         .stride = y.stride}));
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker::cuda
