// Writes GGUF files, version 3.
#ifndef CARAVAN_COMMON_GGUF_GGUF_WRITER_H_
#define CARAVAN_COMMON_GGUF_GGUF_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/gguf/gguf_file.h"

namespace caravan::gguf {

// Collects metadata and tensors; Header() is what lies before the data. The
// caller then writes each tensor's bytes in order, each followed by zeros up to
// the next multiple of kAlignment. Keys and names must differ.
class HeaderWriter {
 public:
  static constexpr uint64_t kAlignment = 32;

  void Add(std::string_view key, std::string_view value);
  void Add(std::string_view key, const char* value) {
    Add(key, std::string_view(value));
  }
  void Add(std::string_view key, uint32_t value);
  void Add(std::string_view key, float value);
  void Add(std::string_view key, bool value);
  void Add(std::string_view key, std::span<const std::string> values);
  void Add(std::string_view key, std::span<const float> values);
  void Add(std::string_view key, std::span<const int32_t> values);
  // A value of another file, as it is there.
  void Add(std::string_view key, const Value& value);

  // `shape` has rows first. Returns the bytes of the tensor.
  uint64_t AddTensor(std::string_view name, const TensorType& type,
                     std::span<const int64_t> shape);

  // Padded to kAlignment.
  std::string Header() const;

  static uint64_t Padding(uint64_t bytes) {
    return (kAlignment - bytes % kAlignment) % kAlignment;
  }

 private:
  void Key(std::string_view key, ValueType type);
  void ArrayOf(std::string_view key, ValueType type, uint64_t count);

  uint64_t key_count_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t offset_ = 0;
  std::string metadata_;
  std::string tensors_;
};

}  // namespace caravan::gguf

#endif  // CARAVAN_COMMON_GGUF_GGUF_WRITER_H_
