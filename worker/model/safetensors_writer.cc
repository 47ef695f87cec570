#include "worker/model/safetensors_writer.h"

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {

std::string_view SafetensorsName(DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return "F32";
    case DType::kBf16:
      return "BF16";
    case DType::kFp16:
      return "F16";
    case DType::kFp8:
      return "F8_E4M3";
  }
  return "unknown";
}

int64_t TensorHeader::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

uint64_t TensorHeader::bytes() const {
  return static_cast<uint64_t>(elements()) * SizeOf(dtype);
}

SafetensorsWriter::SafetensorsWriter(std::string path, uint64_t left)
    : path_(std::move(path)),
      left_(left),
      out_(path_, std::ios::binary | std::ios::trunc) {}

absl::Status SafetensorsWriter::Error() const {
  const std::error_code error(errno, std::generic_category());
  return MakeError(Reason::kModelFileInvalid,
                   StrCat(path_, ": cannot be written: ", error.message()),
                   {{"file", path_}});
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::span<const TensorHeader> tensors) {
  constexpr size_t kAlignment = 8;
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t end = 0;
  for (const TensorHeader& tensor : tensors) {
    const uint64_t begin = std::exchange(end, end + tensor.bytes());
    header[tensor.name] = {{"dtype", SafetensorsName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
  }
  std::string text = DumpJson(header);
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, end));
  for (size_t i = 0; i < 8; ++i) {
    writer->out_.put(static_cast<char>(text.size() >> (8 * i)));
  }
  writer->out_.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!writer->out_) return writer->Error();
  return writer;
}

absl::Status SafetensorsWriter::Append(std::span<const std::byte> bytes) {
  if (bytes.size() > left_) {
    return MakeError(Reason::kInternal,
                     StrCat(path_, ": more bytes than its header says"));
  }
  left_ -= bytes.size();
  out_.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return out_ ? absl::OkStatus() : Error();
}

absl::Status SafetensorsWriter::Append(DType dtype,
                                       std::span<const float> values) {
  if (dtype == DType::kFp32) return Append(std::as_bytes(values));
  narrow_.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const bool bf16 = dtype == DType::kBf16;
    narrow_[i] = bf16 ? ToBf16(values[i]).bits : ToFp16(values[i]).bits;
    const float rounded =
        bf16 ? ToFloat(Bf16{narrow_[i]}) : ToFloat(Fp16{narrow_[i]});
    if (std::isfinite(values[i]) && !std::isfinite(rounded)) {
      return ModelFileError(path_, "every value",
                            StrCat("in the range of ", Name(dtype)),
                            StrCat(values[i]));
    }
  }
  return Append(std::as_bytes(std::span<const uint16_t>(narrow_)));
}

absl::Status SafetensorsWriter::Close() {
  if (left_ > 0) {
    return MakeError(Reason::kInternal,
                     StrCat(path_, ": lacks ", left_, " bytes"));
  }
  out_.close();
  return out_ ? absl::OkStatus() : Error();
}

}  // namespace caravan::worker
