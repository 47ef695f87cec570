#include "common/gguf/gguf_writer.h"

#include <algorithm>

namespace caravan::gguf {
namespace {

template <typename T>
void Put(T value, std::string* target) {
  target->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(std::string_view text, std::string* target) {
  Put<uint64_t>(text.size(), target);
  target->append(text);
}

}  // namespace

void HeaderWriter::Key(std::string_view key, ValueType type) {
  ++key_count_;
  PutString(key, &metadata_);
  Put(static_cast<uint32_t>(type), &metadata_);
}

void HeaderWriter::ArrayOf(std::string_view key, ValueType type,
                           uint64_t count) {
  Key(key, ValueType::kArray);
  Put(static_cast<uint32_t>(type), &metadata_);
  Put(count, &metadata_);
}

void HeaderWriter::Add(std::string_view key, std::string_view value) {
  Key(key, ValueType::kString);
  PutString(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, uint32_t value) {
  Key(key, ValueType::kU32);
  Put(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, float value) {
  Key(key, ValueType::kF32);
  Put(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, bool value) {
  Key(key, ValueType::kBool);
  Put<uint8_t>(value ? 1 : 0, &metadata_);
}

void HeaderWriter::Add(std::string_view key,
                       std::span<const std::string> values) {
  ArrayOf(key, ValueType::kString, values.size());
  for (const std::string& value : values) PutString(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, std::span<const float> values) {
  ArrayOf(key, ValueType::kF32, values.size());
  for (const float value : values) Put(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, std::span<const int32_t> values) {
  ArrayOf(key, ValueType::kI32, values.size());
  for (const int32_t value : values) Put(value, &metadata_);
}

void HeaderWriter::Add(std::string_view key, const Value& value) {
  if (value.is_array) {
    ArrayOf(key, value.type, value.count);
  } else {
    Key(key, value.type);
  }
  for (const std::string_view text : value.strings) {
    PutString(text, &metadata_);
  }
  metadata_.append(reinterpret_cast<const char*>(value.bytes.data()),
                   value.bytes.size());
}

uint64_t HeaderWriter::AddTensor(std::string_view name, const TensorType& type,
                                 std::span<const int64_t> shape) {
  ++tensor_count_;
  PutString(name, &tensors_);
  Put(static_cast<uint32_t>(shape.size()), &tensors_);
  uint64_t elements = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    Put(static_cast<uint64_t>(shape[i]), &tensors_);
    elements *= static_cast<uint64_t>(shape[i]);
  }
  Put(type.number, &tensors_);
  Put(offset_, &tensors_);
  const uint64_t bytes = elements / static_cast<uint64_t>(type.elements) *
                         static_cast<uint64_t>(type.bytes);
  offset_ += bytes + Padding(bytes);
  return bytes;
}

std::string HeaderWriter::Header() const {
  std::string header = "GGUF";
  Put<uint32_t>(3, &header);
  Put(tensor_count_, &header);
  Put(key_count_, &header);
  header += metadata_;
  header += tensors_;
  header.append(Padding(header.size()), '\0');
  return header;
}

}  // namespace caravan::gguf
