// Arguments of phases on their way to the device: what lies in host memory is
// copied there, what a step's phases share only once a step, vectors of
// weights only once.
#ifndef CARAVAN_WORKER_OPS_CUDA_STEP_INPUTS_H_
#define CARAVAN_WORKER_OPS_CUDA_STEP_INPUTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {

// Device memory that grows to what was asked for most and is used again.
class Scratch {
 public:
  explicit Scratch(Device* device) : device_(device) {}
  absl::StatusOr<void*> Get(size_t bytes);
  size_t bytes() const { return buffer_.bytes(); }

 private:
  Device* const device_;
  DeviceBuffer buffer_;
};

// Row-major floats on the device.
struct DeviceView {
  float* data = nullptr;
  int64_t stride = 0;
};

// The tables of a step's attention on the device.
struct DeviceTables {
  AttentionTables host;
  TokenPlace* places = nullptr;
  TokenTile* tiles = nullptr;
  int32_t* blocks = nullptr;
};

// What attention tables depend on beside the rows.
struct TableShape {
  int32_t split_keys = 0;
  int32_t tile_tokens = 0;

  friend bool operator==(const TableShape&, const TableShape&) = default;
};

// One caller at a time. Pointers are good until the argument of the same name
// is given again.
class StepInputsOnDevice {
 public:
  // Places for copies of arguments that are not shared.
  enum Slot { kX, kQ, kOut, kNorm, kBias, kUpBias, kTokens, kSlotCount };

  explicit StepInputsOnDevice(Device* device);

  absl::Status Keep(std::span<const float> vector);
  absl::Status Begin(const StepInputs& inputs);
  // The same for a step whose rows have one token each, copied at once and
  // padded to `tokens` with rows that are stored nowhere: nothing but the
  // contents of memory tells such steps apart. Gives the splits that run at the
  // same time, rounded up to SplitBucket.
  absl::StatusOr<int32_t> BeginPadded(const StepInputs& inputs, int32_t tokens,
                                      int32_t split_keys);
  void End();
  // Rows to compute where a phase has `rows`.
  int64_t Padded(int64_t rows) const {
    return padded_tokens_ > 0 && rows == step_tokens_ ? padded_tokens_ : rows;
  }

  // Views and vectors; empty vectors are null. Of views in host memory nothing
  // but their columns is read or written.
  absl::StatusOr<DeviceView> In(Slot slot, const View<const float>& view);
  // Where to write; not copied there.
  absl::StatusOr<DeviceView> Out(Slot slot, const View<float>& view);
  // Copies back what Out (or In) gave for a view in host memory.
  absl::Status Finish(const DeviceView& device, const View<float>& view);
  absl::StatusOr<const float*> Vector(Slot slot, std::span<const float> vector);
  absl::StatusOr<const int32_t*> Tokens(std::span<const int32_t> tokens);

  // What a step's phases share.
  absl::StatusOr<const int32_t*> Ids(std::span<const int32_t> ids);
  absl::StatusOr<const int64_t*> Slots(std::span<const int64_t> slots);
  absl::StatusOr<const float*> Cos(const View<const float>& cos);
  absl::StatusOr<const float*> Sin(const View<const float>& sin);
  absl::StatusOr<const DeviceTables*> Tables(std::span<const AttentionRow> rows,
                                             const TableShape& shape);

 private:
  // An argument that a step's phases repeat, and its copy.
  struct Shared {
    explicit Shared(Device* device) : scratch(device) {}
    Scratch scratch;
    const void* host = nullptr;
    size_t bytes = 0;
    void* data = nullptr;
    bool fresh = false;  // copied since the step began
  };

  absl::StatusOr<void*> Copy(Scratch& scratch, const void* host, size_t bytes);
  // Bytes of a view with room for the rows that a step is padded with.
  template <typename T>
  size_t RoomFor(const View<T>& view) const;
  // Copies an argument with `filler` behind it.
  template <typename T>
  absl::Status CopyPadded(Shared& shared, const T* host, int64_t count,
                          int64_t padded_count, T filler);
  absl::Status UploadTables(std::span<const AttentionRow> rows,
                            const TableShape& shape);
  absl::StatusOr<void*> CopyShared(Shared& shared, const void* host,
                                   size_t bytes);

  Device& device_;
  // A vector that was kept: its copy, and how many floats.
  struct Kept {
    DeviceBuffer buffer;
    size_t count = 0;
  };
  std::map<const float*, Kept> kept_;
  std::vector<Scratch> slots_;
  bool active_ = false;
  int64_t step_tokens_ = 0;
  int64_t padded_tokens_ = 0;  // 0: the step is not padded
  Shared ids_, places_of_tokens_, cos_, sin_;
  Scratch tables_memory_;
  DeviceTables tables_;
  std::span<const AttentionRow> table_rows_;
  TableShape table_shape_;
  bool tables_fresh_ = false;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_STEP_INPUTS_H_
