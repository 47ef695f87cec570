#include "common/gguf/gguf_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gguf {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMostAlignment = 1 << 20;
constexpr uint32_t kMostDimensions = 4;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr std::string_view kSuffix = ".gguf";

struct ScalarType {
  std::string_view name;
  int bytes;  // 0: of no fixed size
};

constexpr std::array<ScalarType, 13> kValueTypes = {{{"u8", 1},
                                                     {"i8", 1},
                                                     {"u16", 2},
                                                     {"i16", 2},
                                                     {"u32", 4},
                                                     {"i32", 4},
                                                     {"f32", 4},
                                                     {"bool", 1},
                                                     {"string", 0},
                                                     {"array", 0},
                                                     {"u64", 8},
                                                     {"i64", 8},
                                                     {"f64", 8}}};

constexpr std::array<TensorType, 29> kTensorTypes = {{
    {0, "f32", 1, 4},         {1, "f16", 1, 2},
    {2, "q4_0", 32, 18},      {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},      {7, "q5_1", 32, 24},
    {8, "q8_0", 32, 34},      {9, "q8_1", 32, 36},
    {10, "q2_k", 256, 84},    {11, "q3_k", 256, 110},
    {12, "q4_k", 256, 144},   {13, "q5_k", 256, 176},
    {14, "q6_k", 256, 210},   {16, "iq2_xxs", 256, 66},
    {17, "iq2_xs", 256, 74},  {18, "iq3_xxs", 256, 98},
    {19, "iq1_s", 256, 50},   {20, "iq4_nl", 32, 18},
    {21, "iq3_s", 256, 110},  {22, "iq2_s", 256, 82},
    {23, "iq4_xs", 256, 136}, {24, "i8", 1, 1},
    {25, "i16", 1, 2},        {26, "i32", 1, 4},
    {27, "i64", 1, 8},        {29, "iq1_m", 256, 56},
    {30, "bf16", 1, 2},       {34, "tq1_0", 256, 54},
    {35, "tq2_0", 256, 66},
}};

template <typename T>
T Load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

// Fit for a message.
std::string Shown(std::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, 60)) {
    shown += c >= ' ' && c <= '~' ? c : '?';
  }
  return shown;
}

}  // namespace

// Reads a file from its beginning.
class Reader {
 public:
  Reader(std::span<const std::byte> content, std::string name)
      : content_(content), file_(std::move(name)) {}

  absl::StatusOr<File> Run() {
    CARAVAN_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < keys_; ++i) {
      CARAVAN_RETURN_IF_ERROR(ReadPair());
    }
    CARAVAN_RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < tensors_; ++i) {
      CARAVAN_RETURN_IF_ERROR(ReadTensor());
    }
    CARAVAN_RETURN_IF_ERROR(PlaceTensors());
    return std::move(file_);
  }

 private:
  uint64_t left() const { return content_.size() - at_; }

  template <typename T>
  absl::StatusOr<T> Take(std::string_view what) {
    if (left() < sizeof(T)) return CutOff(what);
    at_ += sizeof(T);
    return Load<T>(content_.data() + at_ - sizeof(T));
  }

  absl::Status CutOff(std::string_view what) const {
    return file_.Error(StrCat(what, " at offset ", at_),
                       StrCat("inside the ", content_.size(), " bytes"),
                       "a file that is cut off");
  }

  absl::StatusOr<std::string_view> TakeString(std::string_view what) {
    CARAVAN_ASSIGN_OR_RETURN(const uint64_t length, Take<uint64_t>(what));
    if (length > left()) return CutOff(what);
    const char* const text =
        reinterpret_cast<const char*>(content_.data() + at_);
    at_ += length;
    return std::string_view(text, length);
  }

  // A count of things that take at least `least` bytes each.
  absl::StatusOr<uint64_t> TakeCount(std::string_view what, uint64_t most,
                                     uint64_t least) {
    CARAVAN_ASSIGN_OR_RETURN(const uint64_t count, Take<uint64_t>(what));
    if (count > most) {
      return file_.Error(what, StrCat("at most ", most), StrCat(count));
    }
    if (count > left() / least) return CutOff(what);
    return count;
  }

  absl::Status ReadHeader() {
    CARAVAN_ASSIGN_OR_RETURN(const uint32_t magic, Take<uint32_t>("magic"));
    if (magic != kMagic) return file_.Error("magic", "GGUF", "other bytes");
    CARAVAN_ASSIGN_OR_RETURN(const uint32_t version, Take<uint32_t>("version"));
    if (version != 2 && version != 3) {
      return file_.Error("version", "2 or 3", StrCat(version));
    }
    CARAVAN_ASSIGN_OR_RETURN(tensors_,
                             TakeCount("tensor count", kMostTensors, 1));
    CARAVAN_ASSIGN_OR_RETURN(keys_, TakeCount("key count", kMostKeys, 1));
    return absl::OkStatus();
  }

  absl::Status ReadPair() {
    CARAVAN_ASSIGN_OR_RETURN(const std::string_view key, TakeString("key"));
    if (key.empty() || key.size() > kMostNameBytes) {
      return file_.Error("length of a key", StrCat("1 to ", kMostNameBytes),
                         StrCat(key.size()));
    }
    const std::string what = StrCat("key ", Shown(key));
    CARAVAN_ASSIGN_OR_RETURN(const uint32_t type, Take<uint32_t>(what));
    Value value;
    value.is_array = type == static_cast<uint32_t>(ValueType::kArray);
    uint32_t element = type;
    if (value.is_array) {
      CARAVAN_ASSIGN_OR_RETURN(element, Take<uint32_t>(what));
    }
    if (element >= kValueTypes.size() ||
        element == static_cast<uint32_t>(ValueType::kArray)) {
      return file_.Error(StrCat("type of ", what), "a scalar or string",
                         StrCat(element));
    }
    value.type = static_cast<ValueType>(element);
    CARAVAN_RETURN_IF_ERROR(ReadValue(what, value));
    if (!file_.metadata_.emplace(key, std::move(value)).second) {
      return file_.Error(what, "there once", "another");
    }
    return absl::OkStatus();
  }

  absl::Status ReadValue(std::string_view what, Value& value) {
    const uint64_t width = static_cast<uint64_t>(
        kValueTypes[static_cast<size_t>(value.type)].bytes);
    if (value.is_array) {
      CARAVAN_ASSIGN_OR_RETURN(
          value.count,
          TakeCount(what, kMostElements, std::max<uint64_t>(width, 1)));
    }
    if (value.type != ValueType::kString) {
      if (value.count > left() / width) return CutOff(what);
      value.bytes = content_.subspan(at_, value.count * width);
      at_ += value.count * width;
      return absl::OkStatus();
    }
    if (value.count > left() / sizeof(uint64_t)) return CutOff(what);
    value.strings.reserve(value.count);
    for (uint64_t i = 0; i < value.count; ++i) {
      CARAVAN_ASSIGN_OR_RETURN(value.strings.emplace_back(), TakeString(what));
    }
    return absl::OkStatus();
  }

  absl::Status ReadAlignment() {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<int64_t> alignment,
                             file_.Integer(kAlignmentKey, 1, kMostAlignment));
    if (!alignment) return absl::OkStatus();
    alignment_ = static_cast<uint64_t>(*alignment);
    if ((alignment_ & (alignment_ - 1)) == 0) return absl::OkStatus();
    return file_.Error(kAlignmentKey, "a power of two", StrCat(alignment_));
  }

  absl::Status ReadTensor() {
    CARAVAN_ASSIGN_OR_RETURN(const std::string_view name,
                             TakeString("tensor name"));
    if (name.empty() || name.size() > kMostNameBytes) {
      return file_.Error("length of a tensor's name",
                         StrCat("1 to ", kMostNameBytes), StrCat(name.size()));
    }
    Tensor tensor;
    tensor.name = std::string(name);
    const std::string what = StrCat("tensor ", Shown(name));
    CARAVAN_RETURN_IF_ERROR(ReadShape(what, tensor));
    CARAVAN_ASSIGN_OR_RETURN(const uint32_t type, Take<uint32_t>(what));
    tensor.type = FindTensorType(type);
    if (tensor.type == nullptr) {
      return file_.Error(StrCat("type of ", what), "one of ggml's",
                         StrCat(type));
    }
    CARAVAN_ASSIGN_OR_RETURN(tensor.offset, Take<uint64_t>(what));
    CARAVAN_RETURN_IF_ERROR(SetBytes(what, tensor));
    const bool added =
        file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second;
    if (!added) return file_.Error(what, "there once", "another");
    file_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status ReadShape(std::string_view what, Tensor& tensor) {
    CARAVAN_ASSIGN_OR_RETURN(const uint32_t dimensions, Take<uint32_t>(what));
    if (dimensions < 1 || dimensions > kMostDimensions) {
      return file_.Error(StrCat("dimensions of ", what),
                         StrCat("1 to ", kMostDimensions), StrCat(dimensions));
    }
    for (uint32_t i = 0; i < dimensions; ++i) {
      CARAVAN_ASSIGN_OR_RETURN(const uint64_t size, Take<uint64_t>(what));
      if (size < 1 || size > INT32_MAX) {
        return file_.Error(StrCat("sizes of ", what), "1 to 2147483647",
                           StrCat(size));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    return absl::OkStatus();
  }

  absl::Status SetBytes(std::string_view what, Tensor& tensor) {
    const int64_t cols = tensor.shape.back();
    if (cols % tensor.type->elements != 0) {
      return file_.Error(StrCat("columns of ", what),
                         StrCat("whole blocks of ", tensor.type->elements),
                         StrCat(cols));
    }
    unsigned __int128 bytes = static_cast<unsigned __int128>(
        cols / tensor.type->elements * tensor.type->bytes);
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
      bytes *= static_cast<uint64_t>(tensor.shape[i]);
      if (bytes > content_.size()) return CutOff(what);
    }
    tensor.bytes = static_cast<uint64_t>(bytes);
    return absl::OkStatus();
  }

  // Offsets are relative to the aligned end of the header until here.
  absl::Status PlaceTensors() {
    if (tensors_ == 0) return absl::OkStatus();
    const uint64_t begin = (at_ + alignment_ - 1) / alignment_ * alignment_;
    if (begin > content_.size()) return CutOff("data");
    std::vector<const Tensor*> order;
    for (Tensor& tensor : file_.tensors_) {
      const std::string what = StrCat("tensor ", Shown(tensor.name));
      if (tensor.offset % alignment_ != 0) {
        return file_.Error(StrCat("offset of ", what),
                           StrCat("a multiple of ", alignment_),
                           StrCat(tensor.offset));
      }
      const uint64_t room = content_.size() - begin;
      if (tensor.offset > room || tensor.bytes > room - tensor.offset) {
        return file_.Error(
            StrCat("end of ", what),
            StrCat("inside the ", content_.size(), " bytes"),
            StrCat("offset ", tensor.offset, ", ", tensor.bytes, " bytes"));
      }
      tensor.offset += begin;
      order.push_back(&tensor);
    }
    return CheckOverlap(std::move(order));
  }

  absl::Status CheckOverlap(std::vector<const Tensor*> order) const {
    std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
      return a->offset < b->offset;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const uint64_t end = order[i - 1]->offset + order[i - 1]->bytes;
      if (order[i]->offset >= end) continue;
      return file_.Error(
          StrCat("tensor ", Shown(order[i]->name)),
          StrCat("behind ", Shown(order[i - 1]->name), ", which ends at ", end),
          StrCat("offset ", order[i]->offset));
    }
    return absl::OkStatus();
  }

  const std::span<const std::byte> content_;
  uint64_t at_ = 0;
  uint64_t keys_ = 0;
  uint64_t tensors_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  File file_;
};

std::string_view Name(ValueType type) {
  return kValueTypes[static_cast<size_t>(type)].name;
}

bool Value::is_integer() const {
  return type != ValueType::kF32 && type != ValueType::kF64 &&
         type != ValueType::kBool && type != ValueType::kString;
}

int64_t Value::Integer(uint64_t i) const {
  const std::byte* const data = bytes.data();
  switch (type) {
    case ValueType::kU8:
    case ValueType::kBool:
      return Load<uint8_t>(data + i);
    case ValueType::kI8:
      return Load<int8_t>(data + i);
    case ValueType::kU16:
      return Load<uint16_t>(data + 2 * i);
    case ValueType::kI16:
      return Load<int16_t>(data + 2 * i);
    case ValueType::kU32:
      return Load<uint32_t>(data + 4 * i);
    case ValueType::kI32:
      return Load<int32_t>(data + 4 * i);
    case ValueType::kU64:
    case ValueType::kI64:
      return Load<int64_t>(data + 8 * i);
    default:
      return 0;
  }
}

double Value::Number(uint64_t i) const {
  if (type == ValueType::kF32) return Load<float>(bytes.data() + 4 * i);
  if (type == ValueType::kF64) return Load<double>(bytes.data() + 8 * i);
  return static_cast<double>(Integer(i));
}

const TensorType* FindTensorType(uint32_t number) {
  for (const TensorType& type : kTensorTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

const TensorType* FindTensorType(std::string_view name) {
  for (const TensorType& type : kTensorTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

absl::StatusOr<File> File::Parse(std::span<const std::byte> content,
                                 std::string file) {
  return Reader(content, std::move(file)).Run();
}

const Tensor* File::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const Value* File::Find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

absl::StatusOr<std::optional<int64_t>> File::Integer(std::string_view key,
                                                     int64_t least,
                                                     int64_t most) const {
  const Value* const value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  if (value->is_array || !value->is_integer()) {
    return Error(key, "an integer", Name(value->type));
  }
  const int64_t number = value->Integer(0);
  if (number < least || number > most) {
    return Error(key, StrCat("in [", least, ", ", most, "]"), StrCat(number));
  }
  return std::optional<int64_t>(number);
}

absl::StatusOr<std::optional<double>> File::Number(std::string_view key) const {
  const Value* const value = Find(key);
  if (value == nullptr) return std::optional<double>();
  const bool is_number =
      value->type != ValueType::kString && value->type != ValueType::kBool;
  if (value->is_array || !is_number || !std::isfinite(value->Number(0))) {
    return Error(key, "a finite number", Name(value->type));
  }
  return std::optional<double>(value->Number(0));
}

absl::StatusOr<std::optional<bool>> File::Bool(std::string_view key) const {
  const Value* const value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (value->is_array || value->type != ValueType::kBool) {
    return Error(key, "true or false", Name(value->type));
  }
  return std::optional<bool>(value->Integer(0) != 0);
}

absl::StatusOr<std::optional<std::string>> File::String(
    std::string_view key) const {
  const Value* const value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (value->is_array || value->type != ValueType::kString) {
    return Error(key, "a string", Name(value->type));
  }
  return std::optional<std::string>(value->strings[0]);
}

absl::StatusOr<const Value*> File::Array(std::string_view key,
                                         ValueType type) const {
  const Value* const value = Find(key);
  if (value == nullptr) return static_cast<const Value*>(nullptr);
  if (!value->is_array || value->type != type) {
    return Error(
        key, StrCat("an array of ", Name(type)),
        StrCat(value->is_array ? "an array of " : "", Name(value->type)));
  }
  return value;
}

absl::Status File::Error(std::string_view what, std::string_view limit,
                         std::string_view value) const {
  return MakeError(
      Reason::kModelFileInvalid,
      StrCat(file_, ": ", what, " must be ", limit, "; got ", value),
      {{"file", file_}});
}

namespace {

// The digits of "-00001-of-00003" at the end of a stem.
struct Part {
  std::string stem;
  int number = 0;
  int count = 0;
};

std::optional<int> Digits(std::string_view text) {
  if (text.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  int value = 0;
  for (const char c : text) value = 10 * value + (c - '0');
  return value;
}

std::optional<Part> SplitPart(const std::string& path) {
  constexpr size_t kTail = 15;  // -00001-of-00003
  if (!path.ends_with(kSuffix)) return std::nullopt;
  const std::string stem = path.substr(0, path.size() - kSuffix.size());
  if (stem.size() < kTail) return std::nullopt;
  const std::string_view tail =
      std::string_view(stem).substr(stem.size() - kTail);
  const std::optional<int> number = Digits(tail.substr(1, 5));
  const std::optional<int> count = Digits(tail.substr(10));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !number || !count) {
    return std::nullopt;
  }
  return Part{stem.substr(0, stem.size() - kTail), *number, *count};
}

absl::Status PathError(const std::string& path, std::string_view what) {
  return MakeError(Reason::kModelFileInvalid, StrCat(path, ": ", what),
                   {{"file", path}});
}

}  // namespace

absl::StatusOr<std::optional<std::string>> FindFile(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    if (!path.ends_with(kSuffix)) return std::optional<std::string>();
    return std::optional<std::string>(path);
  }
  std::vector<std::string> found;
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().string();
    if (!name.ends_with(kSuffix)) continue;
    const std::optional<Part> part = SplitPart(name);
    if (!part || part->number == 1) found.push_back(name);
  }
  if (error) return PathError(path, error.message());
  if (found.empty()) return std::optional<std::string>();
  if (found.size() == 1) return std::optional<std::string>(found[0]);
  std::sort(found.begin(), found.end());
  return PathError(path, StrCat("must have one GGUF model; got ", found.size(),
                                ", such as ", found[0], " and ", found[1],
                                " (name the file that is meant)"));
}

absl::StatusOr<std::vector<std::string>> PartsOf(const std::string& path) {
  const std::optional<Part> part = SplitPart(path);
  if (!part) return std::vector<std::string>{path};
  if (part->number != 1 || part->count < 1 || part->count > 1000) {
    return PathError(path, StrCat("must be the first of its parts; got ",
                                  part->number, " of ", part->count));
  }
  std::vector<std::string> paths;
  for (int i = 1; i <= part->count; ++i) {
    const std::string number = std::to_string(100000 + i).substr(1);
    const std::string count = std::to_string(100000 + part->count).substr(1);
    paths.push_back(StrCat(part->stem, "-", number, "-of-", count, kSuffix));
  }
  return paths;
}

}  // namespace caravan::gguf
