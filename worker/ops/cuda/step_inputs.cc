#include "worker/ops/cuda/step_inputs.h"

#include <cstring>
#include <iterator>
#include <utility>

#include "common/status/status_macros.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/graph_buckets.h"

namespace caravan::worker::cuda {
namespace {

// Of a view's elements, one row after another.
template <typename T>
size_t BytesOf(const View<T>& view) {
  return static_cast<size_t>(view.rows * view.cols) * sizeof(T);
}

// Those, where rows lie apart.
std::vector<float> Packed(const View<const float>& view) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(view.rows * view.cols));
  for (int64_t r = 0; r < view.rows; ++r) {
    values.insert(values.end(), view.row(r), view.row(r) + view.cols);
  }
  return values;
}

// Bytes of a list, rounded up so that what follows it is aligned.
template <typename T>
size_t Aligned(const std::vector<T>& list) {
  return RoundUp(static_cast<int64_t>(list.size() * sizeof(T)), 16);
}

template <typename T>
T* Append(const std::vector<T>& list, void* memory, size_t& offset,
          std::vector<std::byte>& bytes) {
  std::memcpy(bytes.data() + offset, list.data(), list.size() * sizeof(T));
  T* const target =
      reinterpret_cast<T*>(static_cast<std::byte*>(memory) + offset);
  offset += Aligned(list);
  return target;
}

}  // namespace

absl::StatusOr<void*> Scratch::Get(size_t bytes) {
  if (buffer_.bytes() < bytes) {
    buffer_ = DeviceBuffer();
    CARAVAN_ASSIGN_OR_RETURN(buffer_, DeviceBuffer::Allocate(device_, bytes));
  }
  return buffer_.data();
}

StepInputsOnDevice::StepInputsOnDevice(Device* device)
    : device_(*device),
      ids_(device),
      places_of_tokens_(device),
      cos_(device),
      sin_(device),
      tables_memory_(device) {
  for (int i = 0; i < kSlotCount; ++i) slots_.emplace_back(device);
}

absl::Status StepInputsOnDevice::Keep(std::span<const float> vector) {
  if (vector.empty()) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(
      DeviceBuffer buffer,
      DeviceBuffer::Allocate(&device_, vector.size() * sizeof(float)));
  CARAVAN_RETURN_IF_ERROR(device_.Upload(buffer.data(), vector.data(),
                                         vector.size() * sizeof(float)));
  kept_[vector.data()] = {std::move(buffer), vector.size()};
  return absl::OkStatus();
}

absl::Status StepInputsOnDevice::Begin(const StepInputs&) {
  active_ = true;
  for (Shared* const shared : {&ids_, &places_of_tokens_, &cos_, &sin_}) {
    shared->fresh = false;
  }
  tables_fresh_ = false;
  return absl::OkStatus();
}

void StepInputsOnDevice::End() {
  active_ = false;
  padded_tokens_ = 0;
}

template <typename T>
size_t StepInputsOnDevice::RoomFor(const View<T>& view) const {
  View<T> padded = view;
  padded.rows = Padded(view.rows);
  return BytesOf(padded);
}

template <typename T>
absl::Status StepInputsOnDevice::CopyPadded(Shared& shared, const T* host,
                                            int64_t count, int64_t padded_count,
                                            T filler) {
  std::vector<T> all(host, host + count);
  all.resize(static_cast<size_t>(padded_count), filler);
  CARAVAN_ASSIGN_OR_RETURN(
      shared.data, Copy(shared.scratch, all.data(), all.size() * sizeof(T)));
  shared.host = host;
  shared.bytes = static_cast<size_t>(count) * sizeof(T);
  shared.fresh = true;
  return absl::OkStatus();
}

absl::StatusOr<int32_t> StepInputsOnDevice::BeginPadded(
    const StepInputs& inputs, int32_t tokens, int32_t split_keys) {
  CARAVAN_RETURN_IF_ERROR(Begin(inputs));
  const int64_t count = std::ssize(inputs.ids);
  const int64_t half = inputs.cos.cols;
  CARAVAN_RETURN_IF_ERROR(
      CopyPadded<int32_t>(ids_, inputs.ids.data(), count, tokens, 0));
  CARAVAN_RETURN_IF_ERROR(CopyPadded<int64_t>(
      places_of_tokens_, inputs.slots.data(), count, tokens, -1));
  CARAVAN_RETURN_IF_ERROR(
      CopyPadded<float>(cos_, inputs.cos.data, count * half, tokens * half, 0));
  CARAVAN_RETURN_IF_ERROR(
      CopyPadded<float>(sin_, inputs.sin.data, count * half, tokens * half, 0));
  static constexpr BlockId kAnyBlock = 0;
  std::vector<AttentionRow> rows(inputs.rows.begin(), inputs.rows.end());
  for (int32_t t = static_cast<int32_t>(count); t < tokens; ++t) {
    rows.push_back({.first_token = t,
                    .token_count = 1,
                    .first_position = 0,
                    .blocks = {&kAnyBlock, 1}});
  }
  CARAVAN_RETURN_IF_ERROR(UploadTables(rows, {split_keys, /*tile_tokens=*/1}));
  table_rows_ = inputs.rows;
  step_tokens_ = count;
  padded_tokens_ = tokens;
  tables_.host.max_splits = SplitBucket(tables_.host.max_splits);
  return tables_.host.max_splits;
}

absl::StatusOr<void*> StepInputsOnDevice::Copy(Scratch& scratch,
                                               const void* host, size_t bytes) {
  CARAVAN_ASSIGN_OR_RETURN(void* const data, scratch.Get(bytes));
  if (bytes > 0) CARAVAN_RETURN_IF_ERROR(device_.Upload(data, host, bytes));
  return data;
}

absl::StatusOr<void*> StepInputsOnDevice::CopyShared(Shared& shared,
                                                     const void* host,
                                                     size_t bytes) {
  if (active_ && shared.fresh && shared.host == host && shared.bytes == bytes) {
    return shared.data;
  }
  CARAVAN_ASSIGN_OR_RETURN(shared.data, Copy(shared.scratch, host, bytes));
  shared.host = host;
  shared.bytes = bytes;
  shared.fresh = true;
  return shared.data;
}

absl::StatusOr<DeviceView> StepInputsOnDevice::In(
    Slot slot, const View<const float>& view) {
  if (device_.Owns(view.data)) {
    return DeviceView{const_cast<float*>(view.data), view.stride};
  }
  CARAVAN_RETURN_IF_ERROR(slots_[slot].Get(RoomFor(view)).status());
  const bool apart = view.stride != view.cols;
  const std::vector<float> packed = apart ? Packed(view) : std::vector<float>();
  CARAVAN_ASSIGN_OR_RETURN(
      void* const data,
      Copy(slots_[slot], apart ? packed.data() : view.data, BytesOf(view)));
  return DeviceView{static_cast<float*>(data), view.cols};
}

absl::StatusOr<DeviceView> StepInputsOnDevice::Out(Slot slot,
                                                   const View<float>& view) {
  if (device_.Owns(view.data)) return DeviceView{view.data, view.stride};
  CARAVAN_ASSIGN_OR_RETURN(void* const data, slots_[slot].Get(RoomFor(view)));
  return DeviceView{static_cast<float*>(data), view.cols};
}

absl::Status StepInputsOnDevice::Finish(const DeviceView& device,
                                        const View<float>& view) {
  if (device.data == view.data || view.rows == 0) return absl::OkStatus();
  if (view.stride == view.cols) {
    return device_.Download(view.data, device.data, BytesOf(view));
  }
  std::vector<float> packed(static_cast<size_t>(view.rows * view.cols));
  CARAVAN_RETURN_IF_ERROR(
      device_.Download(packed.data(), device.data, BytesOf(view)));
  for (int64_t r = 0; r < view.rows; ++r) {
    std::memcpy(view.row(r), packed.data() + r * view.cols,
                static_cast<size_t>(view.cols) * sizeof(float));
  }
  return absl::OkStatus();
}

absl::StatusOr<const float*> StepInputsOnDevice::Vector(
    Slot slot, std::span<const float> vector) {
  if (vector.empty()) return nullptr;
  auto after = kept_.upper_bound(vector.data());
  if (after != kept_.begin()) {  // maybe a part of one
    const auto& [begin, kept] = *std::prev(after);
    if (vector.data() + vector.size() <= begin + kept.count) {
      return kept.buffer.As<const float>() + (vector.data() - begin);
    }
  }
  CARAVAN_ASSIGN_OR_RETURN(
      void* const data,
      Copy(slots_[slot], vector.data(), vector.size() * sizeof(float)));
  return static_cast<const float*>(data);
}

absl::StatusOr<const int32_t*> StepInputsOnDevice::Tokens(
    std::span<const int32_t> tokens) {
  CARAVAN_ASSIGN_OR_RETURN(
      void* const data,
      Copy(slots_[kTokens], tokens.data(), tokens.size() * sizeof(int32_t)));
  return static_cast<const int32_t*>(data);
}

absl::StatusOr<const int32_t*> StepInputsOnDevice::Ids(
    std::span<const int32_t> ids) {
  CARAVAN_ASSIGN_OR_RETURN(
      void* const data,
      CopyShared(ids_, ids.data(), ids.size() * sizeof(int32_t)));
  return static_cast<const int32_t*>(data);
}

absl::StatusOr<const int64_t*> StepInputsOnDevice::Slots(
    std::span<const int64_t> slots) {
  CARAVAN_ASSIGN_OR_RETURN(void* const data,
                           CopyShared(places_of_tokens_, slots.data(),
                                      slots.size() * sizeof(int64_t)));
  return static_cast<const int64_t*>(data);
}

absl::StatusOr<const float*> StepInputsOnDevice::Cos(
    const View<const float>& cos) {
  CARAVAN_ASSIGN_OR_RETURN(void* const data,
                           CopyShared(cos_, cos.data, BytesOf(cos)));
  return static_cast<const float*>(data);
}

absl::StatusOr<const float*> StepInputsOnDevice::Sin(
    const View<const float>& sin) {
  CARAVAN_ASSIGN_OR_RETURN(void* const data,
                           CopyShared(sin_, sin.data, BytesOf(sin)));
  return static_cast<const float*>(data);
}

absl::StatusOr<const DeviceTables*> StepInputsOnDevice::Tables(
    std::span<const AttentionRow> rows, const TableShape& shape) {
  if (active_ && tables_fresh_ && rows.data() == table_rows_.data() &&
      rows.size() == table_rows_.size() &&
      shape.split_keys == table_shape_.split_keys &&
      // Rows of one token have tiles of one, whatever fits.
      (padded_tokens_ > 0 || shape.tile_tokens == table_shape_.tile_tokens)) {
    return &tables_;
  }
  CARAVAN_RETURN_IF_ERROR(UploadTables(rows, shape));
  return &tables_;
}

absl::Status StepInputsOnDevice::UploadTables(
    std::span<const AttentionRow> rows, const TableShape& shape) {
  tables_.host = MakeAttentionTables(rows, shape.split_keys, shape.tile_tokens,
                                     kPartialSlots);
  const AttentionTables& host = tables_.host;
  std::vector<std::byte> bytes(Aligned(host.places) + Aligned(host.tiles) +
                               Aligned(host.blocks));
  CARAVAN_ASSIGN_OR_RETURN(void* const data, tables_memory_.Get(bytes.size()));
  size_t offset = 0;
  tables_.places = Append(host.places, data, offset, bytes);
  tables_.tiles = Append(host.tiles, data, offset, bytes);
  tables_.blocks = Append(host.blocks, data, offset, bytes);
  if (!bytes.empty()) {
    CARAVAN_RETURN_IF_ERROR(device_.Upload(data, bytes.data(), bytes.size()));
  }
  table_rows_ = rows;
  table_shape_ = shape;
  tables_fresh_ = true;
  return absl::OkStatus();
}

}  // namespace caravan::worker::cuda
