#include "worker/model/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;  // of the header's length
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kOneFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

struct NamedWidth {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array<NamedWidth, 14> kWidths = {{{"BOOL", 1},
                                                 {"U8", 1},
                                                 {"I8", 1},
                                                 {"F8_E5M2", 1},
                                                 {"F8_E4M3", 1},
                                                 {"I16", 2},
                                                 {"U16", 2},
                                                 {"F16", 2},
                                                 {"BF16", 2},
                                                 {"I32", 4},
                                                 {"U32", 4},
                                                 {"F32", 4},
                                                 {"I64", 8},
                                                 {"U64", 8}}};

// Bytes of an element, or 0 for a type that the format does not know.
uint64_t WidthOf(std::string_view dtype) {
  if (dtype == "F64") return 8;
  for (const NamedWidth& entry : kWidths) {
    if (entry.name == dtype) return entry.bytes;
  }
  return 0;
}

// An error about one tensor of a file.
absl::Status TensorError(const std::string& file, std::string_view tensor,
                         std::string_view what, std::string_view limit,
                         std::string_view value) {
  return ModelFileError(file, StrCat("tensor ", tensor, ": ", what), limit,
                        value);
}

uint64_t ReadLength(std::span<const std::byte> content) {
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(content[i]) << (8 * i);
  }
  return length;
}

absl::StatusOr<json> ParseHeader(std::span<const std::byte> content,
                                 const std::string& file) {
  constexpr int kDepth = 4;
  if (content.size() < kLengthBytes) {
    return ModelFileError(file, "size", "at least 8 bytes",
                          StrCat(content.size()));
  }
  const uint64_t length = ReadLength(content);
  if (length > kMostHeaderBytes) {
    return ModelFileError(file, "header length at offset 0",
                          StrCat("at most ", kMostHeaderBytes), StrCat(length));
  }
  if (length > content.size() - kLengthBytes) {
    return ModelFileError(
        file, "header at offset 8",
        StrCat("inside the file of ", content.size(), " bytes"),
        StrCat(length, " bytes"));
  }
  const std::string_view text(
      reinterpret_cast<const char*>(content.data()) + kLengthBytes, length);
  return ParseJsonObject(text, StrCat(file, " (header)"),
                         {.max_bytes = kMostHeaderBytes, .max_depth = kDepth});
}

// A count that can be multiplied safely.
std::optional<uint64_t> NonNegative(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t number = value.get<uint64_t>();
  if (number >= uint64_t{1} << 62) return std::nullopt;
  return number;
}

absl::Status ReadShape(const json& entry, TensorRecord& tensor) {
  constexpr size_t kMostDimensions = 8;
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() ||
      shape->size() > kMostDimensions) {
    return TensorError(tensor.file, tensor.name, "shape",
                       "a list of at most 8 sizes",
                       shape == entry.end() ? "nothing" : Excerpt(*shape));
  }
  for (const json& dimension : *shape) {
    const std::optional<uint64_t> size = NonNegative(dimension);
    if (!size) {
      return TensorError(tensor.file, tensor.name, "shape",
                         "of sizes in [0, 2^62)", Excerpt(*shape));
    }
    tensor.shape.push_back(static_cast<int64_t>(*size));
  }
  return absl::OkStatus();
}

absl::Status ReadDType(const json& entry, TensorRecord& tensor) {
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string() ||
      WidthOf(dtype->get_ref<const std::string&>()) == 0) {
    return TensorError(tensor.file, tensor.name, "dtype",
                       "a type of the safetensors format",
                       dtype == entry.end() ? "nothing" : Excerpt(*dtype));
  }
  tensor.dtype_name = dtype->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadOffsets(const json& entry, uint64_t data_begin,
                         uint64_t data_size, TensorRecord& tensor) {
  const auto offsets = entry.find("data_offsets");
  std::optional<uint64_t> begin, end;
  if (offsets != entry.end() && offsets->is_array() && offsets->size() == 2) {
    begin = NonNegative((*offsets)[0]);
    end = NonNegative((*offsets)[1]);
  }
  if (!begin || !end || *begin > *end || *end > data_size) {
    return TensorError(
        tensor.file, tensor.name, "data_offsets",
        StrCat("[begin, end) inside the data of ", data_size, " bytes"),
        offsets == entry.end() ? "nothing" : Excerpt(*offsets));
  }
  tensor.offset = data_begin + *begin;
  tensor.bytes = *end - *begin;
  return absl::OkStatus();
}

// Shape times width is the size of the range, without overflow.
absl::Status CheckSize(const TensorRecord& tensor) {
  unsigned __int128 expected = WidthOf(tensor.dtype_name);
  for (const int64_t size : tensor.shape) {
    expected *= static_cast<uint64_t>(size);
    if (expected >> 62 != 0) {
      return TensorError(tensor.file, tensor.name, "size", "below 2^62 bytes",
                         "more");
    }
  }
  if (expected == tensor.bytes) return absl::OkStatus();
  return TensorError(
      tensor.file, tensor.name, StrCat("data at offset ", tensor.offset),
      StrCat(static_cast<uint64_t>(expected), " bytes by shape and dtype"),
      StrCat(tensor.bytes));
}

// Ranges follow each other from the first data byte to the file's last.
absl::Status CheckTiling(std::vector<TensorRecord>& tensors,
                         uint64_t data_begin, uint64_t file_size,
                         const std::string& file) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorRecord& a, const TensorRecord& b) {
              return a.offset != b.offset ? a.offset < b.offset
                                          : a.bytes < b.bytes;
            });
  uint64_t next = data_begin;
  for (const TensorRecord& tensor : tensors) {
    if (tensor.offset != next) {
      return TensorError(file, tensor.name, "begin",
                         StrCat("offset ", next, ", without ",
                                tensor.offset < next ? "overlap" : "hole"),
                         StrCat(tensor.offset));
    }
    next += tensor.bytes;
  }
  if (next == file_size) return absl::OkStatus();
  return ModelFileError(file, "end of the last tensor",
                        StrCat("the file's end, offset ", file_size),
                        StrCat("offset ", next));
}

absl::StatusOr<TensorRecord> ReadEntry(const std::string& name,
                                       const json& entry, uint64_t data_begin,
                                       uint64_t file_size,
                                       const std::string& file) {
  TensorRecord tensor;
  tensor.name = name;
  tensor.file = file;
  if (!entry.is_object()) {
    return TensorError(file, name, "entry", "an object", Excerpt(entry));
  }
  CARAVAN_RETURN_IF_ERROR(ReadDType(entry, tensor));
  CARAVAN_RETURN_IF_ERROR(ReadShape(entry, tensor));
  CARAVAN_RETURN_IF_ERROR(
      ReadOffsets(entry, data_begin, file_size - data_begin, tensor));
  CARAVAN_RETURN_IF_ERROR(CheckSize(tensor));
  return tensor;
}

// The files of an index, each with the tensors that it shall have.
absl::StatusOr<std::map<std::string, std::vector<std::string>>> ReadIndex(
    const std::string& path) {
  constexpr JsonLimits kLimits = {.max_bytes = size_t{64} << 20,
                                  .max_depth = 8};
  CARAVAN_ASSIGN_OR_RETURN(const json index, ReadJsonObject(path, kLimits));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return ModelFileError(path, "weight_map", "an object", "none");
  }
  std::map<std::string, std::vector<std::string>> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get_ref<const std::string&>().find_first_of(
                                 "/\\") != std::string::npos) {
      return ModelFileError(path, StrCat("file of tensor ", tensor),
                            "a name in the same folder", Excerpt(file));
    }
    files[file.get<std::string>()].push_back(tensor);
  }
  return files;
}

}  // namespace

std::optional<DType> TensorRecord::dtype() const {
  if (dtype_name == "F32") return DType::kFp32;
  if (dtype_name == "BF16") return DType::kBf16;
  if (dtype_name == "F16") return DType::kFp16;
  return std::nullopt;
}

absl::StatusOr<std::vector<TensorRecord>> ParseSafetensors(
    std::span<const std::byte> content, const std::string& file) {
  CARAVAN_ASSIGN_OR_RETURN(const json header, ParseHeader(content, file));
  const uint64_t data_begin = kLengthBytes + ReadLength(content);
  std::vector<TensorRecord> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadataKey) continue;
    CARAVAN_ASSIGN_OR_RETURN(
        TensorRecord tensor,
        ReadEntry(name, entry, data_begin, content.size(), file));
    tensor.data = content.data() + tensor.offset;
    tensors.push_back(std::move(tensor));
  }
  CARAVAN_RETURN_IF_ERROR(
      CheckTiling(tensors, data_begin, content.size(), file));
  return tensors;
}

absl::Status Checkpoint::AddFile(const std::string& name) {
  const std::string path = StrCat(directory_, "/", name);
  CARAVAN_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  CARAVAN_ASSIGN_OR_RETURN(std::vector<TensorRecord> tensors,
                           ParseSafetensors({file.data(), file.size()}, path));
  for (TensorRecord& tensor : tensors) {
    const auto [entry, added] = tensors_.try_emplace(tensor.name, tensor);
    if (!added) {
      return TensorError(path, tensor.name, "place", "one file",
                         StrCat("another in ", entry->second.file));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards() {
  CARAVAN_ASSIGN_OR_RETURN(const auto files,
                           ReadIndex(StrCat(directory_, "/", kIndexFile)));
  for (const auto& [file, names] : files) {
    CARAVAN_RETURN_IF_ERROR(AddFile(file));
    for (const std::string& name : names) {
      const TensorRecord* const tensor = Find(name);
      const std::string path = StrCat(directory_, "/", file);
      if (tensor == nullptr || tensor->file != path) {
        return TensorError(path, name, "presence",
                           StrCat("as ", kIndexFile, " says"), "absence");
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(directory));
  std::error_code error;
  const auto exists = [&](std::string_view name) {
    return std::filesystem::exists(StrCat(directory, "/", name), error);
  };
  if (exists(kOneFile)) {
    CARAVAN_RETURN_IF_ERROR(checkpoint->AddFile(std::string(kOneFile)));
  } else if (exists(kIndexFile)) {
    CARAVAN_RETURN_IF_ERROR(checkpoint->AddShards());
  } else {
    return MakeError(
        Reason::kNotFound,
        StrCat(directory, ": has neither ", kOneFile, " nor ", kIndexFile),
        {{"file", directory}});
  }
  return checkpoint;
}

const TensorRecord* Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::StatusOr<const TensorRecord*> Checkpoint::Get(
    std::string_view name) const {
  const TensorRecord* const tensor = Find(name);
  if (tensor != nullptr) return tensor;
  return TensorError(directory_, name, "presence", "in the checkpoint",
                     "absence");
}

void Checkpoint::DropPages(const TensorRecord& tensor) const {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + tensor.bytes) / page * page;
  if (first >= last) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace caravan::worker
