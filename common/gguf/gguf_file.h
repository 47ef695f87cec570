// The GGUF container, versions 2 and 3: typed metadata and where tensors lie.
// What a file claims is checked before it is believed. Layout: ggml's gguf.h.
#ifndef CARAVAN_COMMON_GGUF_GGUF_FILE_H_
#define CARAVAN_COMMON_GGUF_GGUF_FILE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::gguf {

inline constexpr uint64_t kMostKeys = 1 << 16;
inline constexpr uint64_t kMostTensors = 1 << 17;
inline constexpr uint64_t kMostElements = 1 << 24;  // of an array
inline constexpr size_t kMostNameBytes = 65535;

// Numbers as in the files.
enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// "u8", "string", ...
std::string_view Name(ValueType type);

// A metadata value, or an array of one scalar or string type. Views into the
// file's bytes.
struct Value {
  ValueType type = ValueType::kU8;  // of the elements, for an array
  bool is_array = false;
  uint64_t count = 1;                     // elements
  std::span<const std::byte> bytes;       // of scalars, little-endian
  std::vector<std::string_view> strings;  // of kString

  bool is_integer() const;
  // Element `i` of a type that holds such; integers above INT64_MAX wrap.
  int64_t Integer(uint64_t i) const;
  double Number(uint64_t i) const;
};

// How ggml numbers a tensor's type, and its blocks.
struct TensorType {
  uint32_t number;
  std::string_view name;  // ggml's, in lower case: "f32", "q4_0", "q4_k"
  int32_t elements;       // of a block
  int32_t bytes;
};

// Null for a number that no file may have.
const TensorType* FindTensorType(uint32_t number);
const TensorType* FindTensorType(std::string_view name);

struct Tensor {
  std::string name;
  const TensorType* type = nullptr;
  std::vector<int64_t> shape;  // rows first: ggml's dimensions reversed
  uint64_t offset = 0;         // of its first byte in the file
  uint64_t bytes = 0;
};

// Plain data; views into `content` of Parse.
class File {
 public:
  // `file` names it in errors (kModelFileInvalid), which name key or tensor,
  // limit and value: no GGUF, cut off, counts and lengths past the end, keys
  // and tensors that occur twice, unknown types, offsets that are unaligned,
  // overlap or reach past the end.
  static absl::StatusOr<File> Parse(std::span<const std::byte> content,
                                    std::string file);

  const std::string& file() const { return file_; }
  const std::map<std::string, Value, std::less<>>& metadata() const {
    return metadata_;
  }
  // In the file's order.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* FindTensor(std::string_view name) const;

  // Null where there is none of that key.
  const Value* Find(std::string_view key) const;

  // What the key says; nothing where it is absent; an error that names file and
  // key where it is of another type or outside of the range.
  absl::StatusOr<std::optional<int64_t>> Integer(std::string_view key,
                                                 int64_t least,
                                                 int64_t most) const;
  absl::StatusOr<std::optional<double>> Number(std::string_view key) const;
  absl::StatusOr<std::optional<bool>> Bool(std::string_view key) const;
  absl::StatusOr<std::optional<std::string>> String(std::string_view key) const;
  // An array of that type; null where it is absent.
  absl::StatusOr<const Value*> Array(std::string_view key,
                                     ValueType type) const;

  // "FILE: WHAT must be LIMIT; got VALUE".
  absl::Status Error(std::string_view what, std::string_view limit,
                     std::string_view value) const;

 private:
  friend class Reader;
  explicit File(std::string file) : file_(std::move(file)) {}

  std::string file_;
  std::map<std::string, Value, std::less<>> metadata_;
  std::vector<Tensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

// The GGUF file that `path` means: itself where it is one by its name, the only
// *.gguf file (or first part of several) of a directory; nothing where there is
// none. kModelFileInvalid where a directory has several models.
absl::StatusOr<std::optional<std::string>> FindFile(const std::string& path);

// Paths of all parts of the model whose first part is `path`: those after
// NAME-00001-of-0000N.gguf, or `path` alone.
absl::StatusOr<std::vector<std::string>> PartsOf(const std::string& path);

}  // namespace caravan::gguf

#endif  // CARAVAN_COMMON_GGUF_GGUF_FILE_H_
