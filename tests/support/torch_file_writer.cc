#include "tests/support/torch_file_writer.h"

#include <bit>

#include "common/strings.h"

namespace caravan::testing {
namespace {

constexpr uint64_t kIn64 = 0xffffffff;

int64_t CountOf(const TorchContent& content, std::string_view key) {
  for (const TorchStorage& storage : content.storages) {
    if (storage.key == key) {
      return static_cast<int64_t>(storage.bytes.size()) / storage.width;
    }
  }
  return 0;
}

std::vector<int64_t> RowMajor(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i];
  }
  return strides;
}

void AddTensor(const TorchContent& content, const TorchEntry& entry,
               bool old_format, PickleWriter& out) {
  out.Text(entry.name);
  if (entry.parameter)
    out.Global("torch._utils", "_rebuild_parameter").Raw("(");
  out.Global("torch._utils", "_rebuild_tensor_v2").Raw("((");
  out.Text("storage").Global("torch", entry.storage_class);
  out.Text(entry.storage).Text("cpu").Int(CountOf(content, entry.storage));
  if (old_format) out.Raw("N");
  out.Raw("tQ").Int(entry.offset).Ints(entry.sizes);
  out.Ints(entry.strides.empty() ? RowMajor(entry.sizes) : entry.strides);
  out.Raw("\x89").Global("collections", "OrderedDict").Raw(")RtR");
  if (entry.parameter) {
    out.Raw("\x88").Global("collections", "OrderedDict").Raw(")RtR");
  }
}

std::string Pickled(const TorchContent& content, bool old_format) {
  PickleWriter out;
  if (!content.nested_under.empty()) out.Raw("}").Text(content.nested_under);
  out.Global("collections", "OrderedDict").Raw(")R(");
  for (const TorchEntry& entry : content.tensors) {
    AddTensor(content, entry, old_format, out);
  }
  out.Raw("u}").Text("_metadata").Raw("}sb");
  if (!content.nested_under.empty()) out.Raw("s");
  return StrCat(out.text(), ".");
}

std::string Field64(uint64_t bytes, uint64_t offset) {
  return StrCat(Bytes(1, 2), Bytes(24, 2), Bytes(bytes, 8), Bytes(bytes, 8),
                Bytes(offset, 8));
}

std::string MemberHeader(const ZipPart& part) {
  return StrCat(Bytes(0x04034b50, 4), Bytes(0, 4), Bytes(part.method, 2),
                Bytes(0, 8), Bytes(part.bytes.size(), 4),
                Bytes(part.bytes.size(), 4), Bytes(part.name.size(), 2),
                Bytes(0, 2), part.name);
}

std::string DirectoryEntry(const ZipPart& part, uint64_t offset, bool zip64) {
  const std::string field = zip64 ? Field64(part.bytes.size(), offset) : "";
  const uint64_t bytes = zip64 ? kIn64 : part.bytes.size();
  return StrCat(Bytes(0x02014b50, 4), Bytes(0, 6), Bytes(part.method, 2),
                Bytes(0, 8), Bytes(bytes, 4), Bytes(bytes, 4),
                Bytes(part.name.size(), 2), Bytes(field.size(), 2),
                Bytes(0, 10), Bytes(zip64 ? kIn64 : offset, 4), part.name,
                field);
}

std::string End64(size_t parts, size_t directory, size_t offset) {
  return StrCat(Bytes(0x06064b50, 4), Bytes(44, 8), Bytes(0, 12),
                Bytes(parts, 8), Bytes(parts, 8), Bytes(directory, 8),
                Bytes(offset, 8), Bytes(0x07064b50, 4), Bytes(0, 4),
                Bytes(offset + directory, 8), Bytes(1, 4));
}

}  // namespace

std::string Bytes(uint64_t value, int width) {
  std::string bytes;
  for (int i = 0; i < width; ++i) {
    bytes += static_cast<char>(i < 8 ? value >> (8 * i) : 0);
  }
  return bytes;
}

std::string Fp32Bytes(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values)
    bytes += Bytes(std::bit_cast<uint32_t>(value), 4);
  return bytes;
}

std::string Bf16Bytes(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) {
    bytes += Bytes(std::bit_cast<uint32_t>(value) >> 16, 2);
  }
  return bytes;
}

PickleWriter& PickleWriter::Raw(std::string_view bytes) {
  text_ += bytes;
  return *this;
}

PickleWriter& PickleWriter::Text(std::string_view text) {
  text_ += StrCat("X", Bytes(text.size(), 4), text);
  return *this;
}

PickleWriter& PickleWriter::Int(int64_t value) {
  if (value >= 0 && value < 256) {
    text_ += StrCat("K", Bytes(static_cast<uint64_t>(value), 1));
  } else if (value == static_cast<int32_t>(value)) {
    text_ += StrCat("J", Bytes(static_cast<uint64_t>(value), 4));
  } else {
    text_ += StrCat("\x8a\x08", Bytes(static_cast<uint64_t>(value), 8));
  }
  return *this;
}

PickleWriter& PickleWriter::Ints(const std::vector<int64_t>& values) {
  Raw("(");
  for (const int64_t value : values) Int(value);
  return Raw("t");
}

PickleWriter& PickleWriter::Global(std::string_view module,
                                   std::string_view name) {
  text_ += StrCat("c", module, "\n", name, "\n");
  return *this;
}

std::string TorchPickle(const TorchContent& content) {
  return Pickled(content, /*old_format=*/false);
}

std::string ZipArchive(const std::vector<ZipPart>& parts, bool zip64) {
  std::string archive;
  std::string directory;
  for (const ZipPart& part : parts) {
    directory += DirectoryEntry(part, archive.size(), zip64);
    archive += StrCat(MemberHeader(part), part.bytes);
  }
  const size_t offset = archive.size();
  const size_t count = parts.size();
  archive += directory;
  if (zip64) archive += End64(count, directory.size(), offset);
  return StrCat(archive, Bytes(0x06054b50, 4), Bytes(0, 4),
                Bytes(zip64 ? 0xffff : count, 2),
                Bytes(zip64 ? 0xffff : count, 2),
                Bytes(zip64 ? kIn64 : directory.size(), 4),
                Bytes(zip64 ? kIn64 : offset, 4), Bytes(0, 2));
}

std::string TorchArchive(const TorchContent& content, bool zip64) {
  std::vector<ZipPart> parts = {
      {StrCat(content.prefix, "/data.pkl"), TorchPickle(content)},
      {StrCat(content.prefix, "/byteorder"), "little"}};
  for (const TorchStorage& storage : content.storages) {
    parts.push_back(
        {StrCat(content.prefix, "/data/", storage.key), storage.bytes});
  }
  parts.push_back({StrCat(content.prefix, "/version"), "3\n"});
  return ZipArchive(parts, zip64);
}

std::string OldTorchFile(const TorchContent& content) {
  std::string file(
      "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.");
  PickleWriter system;
  system.Raw("}").Text("little_endian").Raw("\x88s");
  PickleWriter keys;
  keys.Raw("](");
  std::string data;
  for (const TorchStorage& storage : content.storages) {
    keys.Text(storage.key);
    data += StrCat(
        Bytes(storage.bytes.size() / static_cast<size_t>(storage.width), 8),
        storage.bytes);
  }
  keys.Raw("e");
  return StrCat(file, system.text(), ".", Pickled(content, true), keys.text(),
                ".", data);
}

}  // namespace caravan::testing
