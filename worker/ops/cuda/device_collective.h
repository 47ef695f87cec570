// What a rank on a device has with its peers: every rank's part is gathered,
// and each rank makes of it the same rows, in the order of the ranks.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_COLLECTIVE_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_COLLECTIVE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/collective.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/step_inputs.h"

namespace caravan::worker::cuda {

// All views and lists lie in the device's memory. Every rank makes the same
// calls with equal shapes. One caller at a time.
class DeviceCollective final : public Collective {
 public:
  // `ranks` in {1, 2, 4, 8}; of one rank nothing is asked.
  DeviceCollective(Device* device, int ranks)
      : device_(*device), ranks_(ranks), part_(device), all_(device) {}

  int ranks() const { return ranks_; }
  // What Reserve allocates.
  size_t ScratchBytes(const ScratchSpec& spec) const;
  absl::Status Reserve(const ScratchSpec& spec);
  size_t scratch_bytes() const { return part_.bytes() + all_.bytes(); }

  // Memory for what this rank gives: rows of `columns` one after another, good
  // until the next call.
  absl::StatusOr<View<float>> Part(int64_t rows, int64_t columns);

  // The plain sibling is HostCollective; the order is its.
  absl::Status AllReduceAdd(int rank, const AllReduceAddArgs& args) override;
  // x[t, :] = row t of the part of the rank that has row ids[t] of a table of
  // `table_rows` (RowsOfRanks).
  absl::Status PickRows(const View<const float>& part, const int32_t* ids,
                        int64_t table_rows, const DeviceView& x);
  // y = the columns of all ranks side by side; `part` has those of this rank,
  // and room for as many as any has (WidestPart).
  absl::Status PlaceColumns(const View<const float>& part, int64_t columns,
                            const DeviceView& y);
  // The most columns that a rank has of `columns`.
  int64_t WidestPart(int64_t columns) const;

 private:
  // Rows of `columns` that are gathered at once.
  int64_t RowsAtOnce(int64_t columns) const;
  // Gathers rows [first, first + count).
  absl::StatusOr<Gathered> Gather(const View<const float>& part, int64_t first,
                                  int64_t count);
  size_t AllBytes(int64_t rows, int64_t columns) const;

  Device& device_;
  const int ranks_;
  Scratch part_;
  Scratch all_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_COLLECTIVE_H_
