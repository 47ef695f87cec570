// Writes files as PyTorch's `save` does, and others that it never would.
#ifndef CARAVAN_TESTS_SUPPORT_TORCH_FILE_WRITER_H_
#define CARAVAN_TESTS_SUPPORT_TORCH_FILE_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan::testing {

// Little-endian bytes of a number.
std::string Bytes(uint64_t value, int width);

// The bytes of floats, and of floats cut to bfloat16.
std::string Fp32Bytes(const std::vector<float>& values);
std::string Bf16Bytes(const std::vector<float>& values);

// Builds a pickle, opcode by opcode. Every call adds to the text.
class PickleWriter {
 public:
  PickleWriter() : text_("\x80\x02") {}

  PickleWriter& Raw(std::string_view bytes);
  PickleWriter& Text(std::string_view text);
  PickleWriter& Int(int64_t value);
  PickleWriter& Ints(const std::vector<int64_t>& values);  // as a tuple
  PickleWriter& Global(std::string_view module, std::string_view name);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

struct TorchEntry {
  std::string name;
  std::string storage;        // key
  std::string storage_class;  // "HalfStorage"
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides = {};  // row-major where empty
  int64_t offset = 0;                 // elements
  bool parameter = false;
};

struct TorchStorage {
  std::string key;
  int width = 4;  // bytes of an element
  std::string bytes;
};

struct TorchContent {
  std::vector<TorchEntry> tensors;
  std::vector<TorchStorage> storages;
  std::string nested_under;  // a key of the outer dict, or empty
  std::string prefix = "archive";
};

// The dict of `content`'s tensors as a pickle.
std::string TorchPickle(const TorchContent& content);

// An archive with stored members; with `zip64` as for files above 4 GiB.
struct ZipPart {
  std::string name;
  std::string bytes;
  int method = 0;
};
std::string ZipArchive(const std::vector<ZipPart>& parts, bool zip64 = false);

// The file of torch 1.6 and later, and the one before it.
std::string TorchArchive(const TorchContent& content, bool zip64 = false);
std::string OldTorchFile(const TorchContent& content);

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_SUPPORT_TORCH_FILE_WRITER_H_
