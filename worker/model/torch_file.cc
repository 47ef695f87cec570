#include "worker/model/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"
#include "worker/model/pickle.h"
#include "worker/model/zip.h"

namespace caravan::worker {
namespace {

constexpr size_t kMostDimensions = 8;
constexpr uint64_t kMostElements = uint64_t{1} << 60;

// Pickles of the magic number 0x1950a86a20f9469cfc6c and of version 1001, with
// which files begin that are no archives.
constexpr std::string_view kOldMagic =
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    "\x80\x02M\xe9\x03.";

struct StorageClass {
  std::string_view name;
  std::string_view dtype;
  uint64_t width;
};
constexpr std::array<StorageClass, 10> kClasses = {{
    {"torch.FloatStorage", "F32", 4},
    {"torch.HalfStorage", "F16", 2},
    {"torch.BFloat16Storage", "BF16", 2},
    {"torch.DoubleStorage", "F64", 8},
    {"torch.LongStorage", "I64", 8},
    {"torch.IntStorage", "I32", 4},
    {"torch.ShortStorage", "I16", 2},
    {"torch.CharStorage", "I8", 1},
    {"torch.ByteStorage", "U8", 1},
    {"torch.BoolStorage", "BOOL", 1},
}};

// Where a storage's bytes lie.
struct Span {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
using Storages = std::map<std::string, Span, std::less<>>;

// A storage as a pickle names it: a stretch of the bytes under `key`.
struct StorageClaim {
  const StorageClass* type = nullptr;
  std::string_view key;
  uint64_t first = 0;  // element
  uint64_t elements = 0;
};

std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Turns the values of one pickle into tensors.
class Collector {
 public:
  Collector(std::span<const std::byte> content, const std::string& file,
            const Pickle& pickle, const Storages& storages)
      : content_(content), file_(file), pickle_(pickle), storages_(storages) {}

  absl::StatusOr<std::vector<TorchTensor>> Run();

 private:
  const PickleValue& At(PickleIndex index) const { return pickle_[index]; }
  // The dict that has the tensors.
  absl::StatusOr<const PickleValue*> StateDict() const;
  bool HasTensors(const PickleValue& dict) const;
  absl::StatusOr<TorchTensor> Read(std::string_view name,
                                   const PickleValue& value) const;
  absl::StatusOr<StorageClaim> ReadStorage(std::string_view name,
                                           const PickleValue& value) const;
  absl::Status ReadView(std::string_view name, const PickleValue& view,
                        StorageClaim& claim) const;
  absl::StatusOr<std::vector<int64_t>> Sizes(std::string_view name,
                                             std::string_view what,
                                             const PickleValue& tuple) const;
  // Finds the tensor's bytes; `offset` is in elements.
  absl::Status Place(const StorageClaim& claim, uint64_t offset,
                     TorchTensor& tensor) const;
  absl::Status Error(std::string_view name, std::string_view what,
                     std::string_view limit, std::string_view value) const {
    return ModelFileError(file_, StrCat("tensor ", name, ": ", what), limit,
                          value);
  }

  const std::span<const std::byte> content_;
  const std::string& file_;
  const Pickle& pickle_;
  const Storages& storages_;
};

bool Collector::HasTensors(const PickleValue& dict) const {
  for (size_t i = 1; i < dict.items.size(); i += 2) {
    if (At(dict.items[i]).kind == PickleKind::kTensor) return true;
  }
  return false;
}

absl::StatusOr<const PickleValue*> Collector::StateDict() const {
  const PickleValue& root = At(pickle_.root);
  if (root.kind != PickleKind::kDict) {
    return ModelFileError(file_, "pickle's value", "a dict of tensors",
                          Name(root.kind));
  }
  if (HasTensors(root)) return &root;
  for (size_t i = 0; i < root.items.size(); i += 2) {
    const PickleValue& key = At(root.items[i]);
    const PickleValue& value = At(root.items[i + 1]);
    if (key.kind == PickleKind::kText && value.kind == PickleKind::kDict &&
        (key.text == "model" || key.text == "module" ||
         key.text == "state_dict")) {
      return &value;
    }
  }
  return ModelFileError(file_, "pickle's value",
                        "a dict of tensors, or one under \"model\", "
                        "\"module\" or \"state_dict\"",
                        "a dict without any");
}

absl::StatusOr<std::vector<int64_t>> Collector::Sizes(
    std::string_view name, std::string_view what,
    const PickleValue& tuple) const {
  std::vector<int64_t> sizes;
  if (tuple.items.size() > kMostDimensions) {
    return Error(name, what, "at most 8 numbers", StrCat(tuple.items.size()));
  }
  for (const PickleIndex index : tuple.items) {
    const PickleValue& size = At(index);
    if (size.kind != PickleKind::kInt || size.number < 0 ||
        static_cast<uint64_t>(size.number) >= kMostElements) {
      return Error(name, what, "integers in [0, 2^60)",
                   size.kind == PickleKind::kInt ? StrCat(size.number)
                                                 : StrCat(Name(size.kind)));
    }
    sizes.push_back(size.number);
  }
  return sizes;
}

// The oldest files may name a storage as (key, first element, count) of
// another one.
absl::Status Collector::ReadView(std::string_view name, const PickleValue& view,
                                 StorageClaim& claim) const {
  if (view.kind == PickleKind::kNone) return absl::OkStatus();
  const auto is_count = [&](size_t i) {
    const PickleValue& value = At(view.items[i]);
    return value.kind == PickleKind::kInt && value.number >= 0 &&
           static_cast<uint64_t>(value.number) < kMostElements;
  };
  if (view.kind != PickleKind::kTuple || view.items.size() != 3 ||
      !is_count(1) || !is_count(2)) {
    return Error(name, "view of a storage", "(key, first, count) or None",
                 Name(view.kind));
  }
  claim.first = static_cast<uint64_t>(At(view.items[1]).number);
  claim.elements = static_cast<uint64_t>(At(view.items[2]).number);
  return absl::OkStatus();
}

absl::StatusOr<StorageClaim> Collector::ReadStorage(
    std::string_view name, const PickleValue& value) const {
  StorageClaim claim;
  const std::string_view class_name = At(value.items[0]).text;
  for (const StorageClass& type : kClasses) {
    if (type.name == class_name) claim.type = &type;
  }
  if (claim.type == nullptr) {
    return Error(name, "storage class", "one of torch's", class_name);
  }
  claim.key = At(value.items[1]).text;
  const int64_t count = At(value.items[3]).number;
  if (count < 0 || static_cast<uint64_t>(count) >= kMostElements) {
    return Error(name, "storage's count", "in [0, 2^60)", StrCat(count));
  }
  claim.elements = static_cast<uint64_t>(count);
  if (value.items.size() > 4) {
    CARAVAN_RETURN_IF_ERROR(ReadView(name, At(value.items[4]), claim));
  }
  return claim;
}

// Elements from a tensor's first to behind its last; 0 where it has none.
std::optional<uint64_t> Extent(const std::vector<int64_t>& sizes,
                               const std::vector<int64_t>& strides) {
  unsigned __int128 extent = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    extent += static_cast<unsigned __int128>(sizes[i] - 1) *
              static_cast<uint64_t>(strides[i]);
    if (extent >= kMostElements) return std::nullopt;
  }
  return static_cast<uint64_t>(extent);
}

std::optional<uint64_t> CountOf(const std::vector<int64_t>& sizes) {
  unsigned __int128 count = 1;
  for (const int64_t size : sizes) {
    count *= static_cast<uint64_t>(size);
    if (count >= kMostElements) return std::nullopt;
  }
  return static_cast<uint64_t>(count);
}

bool IsRowMajor(const std::vector<int64_t>& sizes,
                const std::vector<int64_t>& strides) {
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] != 1 && strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

absl::Status Collector::Place(const StorageClaim& claim, uint64_t offset,
                              TorchTensor& tensor) const {
  TensorRecord& record = tensor.record;
  const auto storage = storages_.find(claim.key);
  if (storage == storages_.end()) {
    return Error(record.name, "storage", "in the file",
                 StrCat("none of key ", claim.key));
  }
  const uint64_t width = claim.type->width;
  const Span& span = storage->second;
  if (claim.first + claim.elements > span.bytes / width) {
    return Error(record.name, StrCat("storage at offset ", span.offset),
                 StrCat("of ", claim.first + claim.elements, " elements"),
                 StrCat(span.bytes, " bytes"));
  }
  const std::optional<uint64_t> count = CountOf(record.shape);
  const std::optional<uint64_t> extent = Extent(record.shape, tensor.strides);
  if (!count || !extent || offset > claim.elements ||
      *extent > claim.elements - offset ||
      // Strides of 0 would let a small file stand for a huge tensor.
      *count > claim.elements) {
    return Error(record.name,
                 StrCat("place in the storage at offset ", span.offset),
                 StrCat("inside its ", claim.elements, " elements"),
                 StrCat("element ", offset, " and more"));
  }
  record.bytes = *count * width;
  record.offset = span.offset + (claim.first + offset) * width;
  record.data = content_.data() + record.offset;
  if (*count == 0 || IsRowMajor(record.shape, tensor.strides)) {
    tensor.strides.clear();
  }
  return absl::OkStatus();
}

absl::StatusOr<TorchTensor> Collector::Read(std::string_view name,
                                            const PickleValue& value) const {
  TorchTensor tensor;
  tensor.record.name = name;
  tensor.record.file = file_;
  CARAVAN_ASSIGN_OR_RETURN(const StorageClaim claim,
                           ReadStorage(name, At(value.items[0])));
  tensor.record.dtype_name = claim.type->dtype;
  const int64_t offset = At(value.items[1]).number;
  if (offset < 0) return Error(name, "offset", "at least 0", StrCat(offset));
  CARAVAN_ASSIGN_OR_RETURN(tensor.record.shape,
                           Sizes(name, "sizes", At(value.items[2])));
  CARAVAN_ASSIGN_OR_RETURN(tensor.strides,
                           Sizes(name, "strides", At(value.items[3])));
  if (tensor.strides.size() != tensor.record.shape.size()) {
    return Error(name, "strides",
                 StrCat("as many as sizes, ", tensor.record.shape.size()),
                 StrCat(tensor.strides.size()));
  }
  CARAVAN_RETURN_IF_ERROR(Place(claim, static_cast<uint64_t>(offset), tensor));
  return tensor;
}

absl::StatusOr<std::vector<TorchTensor>> Collector::Run() {
  CARAVAN_ASSIGN_OR_RETURN(const PickleValue* const dict, StateDict());
  std::vector<TorchTensor> tensors;
  std::set<std::string_view> names;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    const PickleValue& key = At(dict->items[i]);
    const PickleValue& value = At(dict->items[i + 1]);
    if (value.kind != PickleKind::kTensor) continue;
    if (key.kind != PickleKind::kText) {
      return ModelFileError(file_, "name of a tensor", "a text",
                            Name(key.kind));
    }
    if (!names.insert(key.text).second) {
      return Error(key.text, "name", "the only one", "another");
    }
    CARAVAN_ASSIGN_OR_RETURN(TorchTensor tensor, Read(key.text, value));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string_view TextOf(std::span<const std::byte> content,
                        const ZipMember& member) {
  return {reinterpret_cast<const char*>(content.data()) + member.offset,
          static_cast<size_t>(member.bytes)};
}

// PREFIX/data.pkl beside PREFIX/data/KEY.
absl::StatusOr<std::vector<TorchTensor>> ParseArchive(
    std::span<const std::byte> content, const std::string& file) {
  constexpr std::string_view kPickleName = "/data.pkl";
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<ZipMember> members,
                           ParseZip(content, file));
  const auto pickled = std::find_if(
      members.begin(), members.end(),
      [&](const ZipMember& m) { return m.name.ends_with(kPickleName); });
  if (pickled == members.end()) {
    return ModelFileError(file, "archive", "one with a member PREFIX/data.pkl",
                          StrCat(members.size(), " others"));
  }
  const std::string prefix =
      pickled->name.substr(0, pickled->name.size() - kPickleName.size());
  const std::string data = StrCat(prefix, "/data/");
  Storages storages;
  for (const ZipMember& member : members) {
    if (member.name.starts_with(data)) {
      storages[member.name.substr(data.size())] = {member.offset, member.bytes};
    } else if (member.name == StrCat(prefix, "/byteorder") &&
               TextOf(content, member) != "little") {
      return ModelFileError(file, "byteorder", "little", "another");
    }
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const Pickle pickle,
      ParsePickle(content.subspan(pickled->offset, pickled->bytes), file,
                  pickled->offset));
  return Collector(content, file, pickle, storages).Run();
}

// Runs the pickle at `*at` and moves behind it.
absl::StatusOr<Pickle> NextPickle(std::span<const std::byte> content,
                                  const std::string& file, uint64_t* at) {
  CARAVAN_ASSIGN_OR_RETURN(Pickle pickle,
                           ParsePickle(content.subspan(*at), file, *at));
  *at += pickle.bytes;
  return pickle;
}

// {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {...}}
absl::Status CheckSystem(const Pickle& pickle, const std::string& file) {
  const PickleValue& root = pickle[pickle.root];
  for (size_t i = 0; root.kind == PickleKind::kDict && i < root.items.size();
       i += 2) {
    const PickleValue& value = pickle[root.items[i + 1]];
    if (pickle[root.items[i]].text == "little_endian" &&
        value.kind == PickleKind::kBool && value.number == 1) {
      return absl::OkStatus();
    }
  }
  return ModelFileError(file, "system information", "little-endian",
                        "something else");
}

// Bytes of an element of each storage that a pickle names, by key.
std::map<std::string_view, uint64_t> WidthsOf(const Pickle& pickle) {
  std::map<std::string_view, uint64_t> widths;
  for (const PickleValue& value : pickle.values) {
    if (value.kind != PickleKind::kStorage) continue;
    for (const StorageClass& type : kClasses) {
      if (type.name == pickle[value.items[0]].text) {
        widths[pickle[value.items[1]].text] = type.width;
      }
    }
  }
  return widths;
}

// After the keys' list each storage follows, in the list's order: its count of
// elements and its bytes.
absl::StatusOr<Storages> ReadOldStorages(std::span<const std::byte> content,
                                         const std::string& file, uint64_t at,
                                         const Pickle& keys,
                                         const Pickle& tensors) {
  constexpr size_t kCountBytes = 8;
  const std::map<std::string_view, uint64_t> widths = WidthsOf(tensors);
  Storages storages;
  for (const PickleIndex index : keys[keys.root].items) {
    const std::string_view key = keys[index].text;
    const auto width = widths.find(key);
    if (width == widths.end() || content.size() - at < kCountBytes) {
      return ModelFileError(file, StrCat("storage ", key, " at offset ", at),
                            "one that a tensor names, in the file",
                            width == widths.end() ? "another" : "cut off");
    }
    uint64_t count = 0;
    for (size_t i = 0; i < kCountBytes; ++i) {
      count |= std::to_integer<uint64_t>(content[at + i]) << (8 * i);
    }
    at += kCountBytes;
    if (count > (content.size() - at) / width->second) {
      return ModelFileError(
          file, StrCat("storage ", key, " at offset ", at),
          StrCat("inside the file of ", content.size(), " bytes"),
          StrCat(count, " elements of ", width->second, " bytes"));
    }
    storages[std::string(key)] = {at, count * width->second};
    at += count * width->second;
  }
  return storages;
}

// Magic number, version, system information, tensors, keys: a pickle each.
absl::StatusOr<std::vector<TorchTensor>> ParseOld(
    std::span<const std::byte> content, const std::string& file) {
  uint64_t at = kOldMagic.size();
  CARAVAN_ASSIGN_OR_RETURN(const Pickle system, NextPickle(content, file, &at));
  CARAVAN_RETURN_IF_ERROR(CheckSystem(system, file));
  CARAVAN_ASSIGN_OR_RETURN(const Pickle tensors,
                           NextPickle(content, file, &at));
  CARAVAN_ASSIGN_OR_RETURN(const Pickle keys, NextPickle(content, file, &at));
  CARAVAN_ASSIGN_OR_RETURN(const Storages storages,
                           ReadOldStorages(content, file, at, keys, tensors));
  return Collector(content, file, tensors, storages).Run();
}

void CopyStrided(const std::byte* source, const std::vector<int64_t>& sizes,
                 const std::vector<int64_t>& strides, size_t width,
                 std::byte* target) {
  std::vector<int64_t> at(sizes.size());
  while (true) {
    int64_t offset = 0;
    for (size_t i = 0; i < at.size(); ++i) offset += at[i] * strides[i];
    std::memcpy(target, source + static_cast<size_t>(offset) * width, width);
    target += width;
    size_t i = at.size();
    while (i > 0 && ++at[i - 1] == sizes[i - 1]) at[--i] = 0;
    if (i == 0) return;
  }
}

}  // namespace

absl::StatusOr<std::vector<TorchTensor>> ParseTorchFile(
    std::span<const std::byte> content, const std::string& file) {
  if (LooksLikeZip(content)) return ParseArchive(content, file);
  const std::span<const std::byte> magic = AsBytes(kOldMagic);
  if (content.size() >= magic.size() &&
      std::equal(magic.begin(), magic.end(), content.begin())) {
    return ParseOld(content, file);
  }
  return ModelFileError(file, "first bytes at offset 0",
                        "of a ZIP archive or of torch's older format",
                        "others");
}

void CopyTensor(const TorchTensor& tensor, std::byte* target) {
  const TensorRecord& record = tensor.record;
  if (record.bytes == 0) return;
  if (tensor.strides.empty()) {
    std::memcpy(target, record.data, record.bytes);
    return;
  }
  size_t elements = 1;
  for (const int64_t size : record.shape) {
    elements *= static_cast<size_t>(size);
  }
  CopyStrided(record.data, record.shape, tensor.strides,
              record.bytes / elements, target);
}

}  // namespace caravan::worker
