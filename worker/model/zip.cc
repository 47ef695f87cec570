#include "worker/model/zip.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

constexpr uint32_t kMemberMark = 0x04034b50;
constexpr uint32_t kEntryMark = 0x02014b50;
constexpr uint32_t kEndMark = 0x06054b50;
constexpr uint32_t kEnd64Mark = 0x06064b50;
constexpr uint32_t kLocator64Mark = 0x07064b50;

constexpr size_t kMemberBytes = 30;  // before its name
constexpr size_t kEntryBytes = 46;   // before its name
constexpr size_t kEndBytes = 22;     // before its comment
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kLocator64Bytes = 20;
constexpr size_t kMostComment = 65535;

constexpr uint32_t kIn64 = 0xffffffff;  // the value is in the ZIP64 field
constexpr uint16_t kField64 = 1;
constexpr uint16_t kEncrypted = 1;  // bit of the flags

// Reads little-endian numbers; offsets were checked by the caller.
template <typename T>
T Read(std::span<const std::byte> bytes, uint64_t offset) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= std::to_integer<uint64_t>(bytes[offset + i]) << (8 * i);
  }
  return static_cast<T>(value);
}

// Where the directory's entries lie.
struct Directory {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t entries = 0;
};

// Reads one archive's directory.
class Reader {
 public:
  Reader(std::span<const std::byte> content, const std::string& file)
      : content_(content), file_(file) {}

  absl::StatusOr<std::vector<ZipMember>> Run();

 private:
  absl::StatusOr<uint64_t> FindEnd() const;
  absl::StatusOr<Directory> FindDirectory() const;
  absl::StatusOr<Directory> ReadEnd64(uint64_t end) const;
  // Reads the entry at `*offset` and moves behind it.
  absl::StatusOr<ZipMember> ReadEntry(const Directory& directory,
                                      uint64_t* offset) const;
  // Takes what did not fit into 32 bits from the entry's ZIP64 field.
  absl::Status Widen(std::span<const std::byte> fields, uint64_t stored,
                     uint64_t* header, ZipMember& member) const;
  // Turns the offset of a member's header into that of its first byte.
  absl::Status Locate(const Directory& directory, uint64_t header,
                      ZipMember& member) const;
  absl::Status CheckMembers(std::vector<ZipMember>& members) const;
  absl::Status Error(std::string_view what, uint64_t offset,
                     std::string_view limit, std::string_view value) const {
    return ModelFileError(
        file_, StrCat("archive: ", what, " at offset ", offset), limit, value);
  }
  bool Has(uint64_t offset, uint64_t bytes) const {
    return offset <= content_.size() && bytes <= content_.size() - offset;
  }

  const std::span<const std::byte> content_;
  const std::string& file_;
};

absl::StatusOr<uint64_t> Reader::FindEnd() const {
  if (content_.size() >= kEndBytes) {
    const uint64_t last = content_.size() - kEndBytes;
    const uint64_t first = last > kMostComment ? last - kMostComment : 0;
    for (uint64_t at = last + 1; at-- > first;) {
      if (Read<uint32_t>(content_, at) == kEndMark) return at;
    }
  }
  return ModelFileError(file_, "archive: end record",
                        "in the last 65557 bytes (is the file cut off?)",
                        StrCat("none in ", content_.size(), " bytes"));
}

absl::StatusOr<Directory> Reader::ReadEnd64(uint64_t end) const {
  const uint64_t locator = end - kLocator64Bytes;
  const uint64_t at = Read<uint64_t>(content_, locator + 8);
  if (!Has(at, kEnd64Bytes) || Read<uint32_t>(content_, at) != kEnd64Mark) {
    return Error("ZIP64 end record", locator, "where the locator says",
                 StrCat("nothing at ", at));
  }
  return Directory{.offset = Read<uint64_t>(content_, at + 48),
                   .bytes = Read<uint64_t>(content_, at + 40),
                   .entries = Read<uint64_t>(content_, at + 32)};
}

absl::StatusOr<Directory> Reader::FindDirectory() const {
  CARAVAN_ASSIGN_OR_RETURN(const uint64_t end, FindEnd());
  Directory directory = {.offset = Read<uint32_t>(content_, end + 16),
                         .bytes = Read<uint32_t>(content_, end + 12),
                         .entries = Read<uint16_t>(content_, end + 10)};
  if (end >= kLocator64Bytes &&
      Read<uint32_t>(content_, end - kLocator64Bytes) == kLocator64Mark) {
    CARAVAN_ASSIGN_OR_RETURN(directory, ReadEnd64(end));
  }
  if (directory.offset > end || directory.bytes > end - directory.offset ||
      directory.entries > directory.bytes / kEntryBytes) {
    return Error(
        "directory", directory.offset,
        StrCat("before the end record at ", end, ", ", kEntryBytes,
               " bytes an entry"),
        StrCat(directory.bytes, " bytes, ", directory.entries, " entries"));
  }
  return directory;
}

absl::Status Reader::Widen(std::span<const std::byte> fields, uint64_t stored,
                           uint64_t* header, ZipMember& member) const {
  uint64_t* wanted[] = {&member.bytes, &stored, header};
  for (size_t at = 0; at + 4 <= fields.size();) {
    const uint16_t id = Read<uint16_t>(fields, at);
    const size_t size = Read<uint16_t>(fields, at + 2);
    at += 4;
    if (size > fields.size() - at) break;
    if (id == kField64) {
      size_t from = at;
      for (uint64_t* const value : wanted) {
        if (*value != kIn64 || from + 8 > at + size) continue;
        *value = Read<uint64_t>(fields, from);
        from += 8;
      }
    }
    at += size;
  }
  if (stored == member.bytes) return absl::OkStatus();
  return ModelFileError(file_, StrCat("archive: member ", member.name),
                        StrCat("stored in its ", member.bytes, " bytes"),
                        StrCat(stored));
}

absl::Status Reader::Locate(const Directory& directory, uint64_t header,
                            ZipMember& member) const {
  const std::string what = StrCat("member ", member.name);
  if (header > directory.offset || directory.offset - header < kMemberBytes ||
      Read<uint32_t>(content_, header) != kMemberMark) {
    return Error(what, header, "a member's header", "something else");
  }
  member.offset = header + kMemberBytes +
                  Read<uint16_t>(content_, header + 26) +
                  Read<uint16_t>(content_, header + 28);
  if (member.offset > directory.offset ||
      member.bytes > directory.offset - member.offset) {
    return Error(what, member.offset,
                 StrCat("before the directory at ", directory.offset),
                 StrCat(member.bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ZipMember> Reader::ReadEntry(const Directory& directory,
                                            uint64_t* offset) const {
  const uint64_t at = *offset;
  const uint64_t end = directory.offset + directory.bytes;
  if (end - at < kEntryBytes || Read<uint32_t>(content_, at) != kEntryMark) {
    return Error("entry", at, "a directory entry", "something else");
  }
  const size_t name_bytes = Read<uint16_t>(content_, at + 28);
  const size_t field_bytes = Read<uint16_t>(content_, at + 30);
  const size_t comment_bytes = Read<uint16_t>(content_, at + 32);
  *offset = at + kEntryBytes + name_bytes + field_bytes + comment_bytes;
  if (*offset > end) return Error("entry", at, "in the directory", "cut off");
  ZipMember member;
  const auto name = content_.subspan(at + kEntryBytes, name_bytes);
  member.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  const uint16_t flags = Read<uint16_t>(content_, at + 8);
  const uint16_t method = Read<uint16_t>(content_, at + 10);
  if (method != 0 || (flags & kEncrypted) != 0) {
    return Error(StrCat("member ", member.name), at,
                 "stored (method 0), not encrypted",
                 StrCat("method ", method, ", flags ", flags));
  }
  member.bytes = Read<uint32_t>(content_, at + 24);
  uint64_t header = Read<uint32_t>(content_, at + 42);
  CARAVAN_RETURN_IF_ERROR(
      Widen(content_.subspan(at + kEntryBytes + name_bytes, field_bytes),
            Read<uint32_t>(content_, at + 20), &header, member));
  CARAVAN_RETURN_IF_ERROR(Locate(directory, header, member));
  return member;
}

absl::Status Reader::CheckMembers(std::vector<ZipMember>& members) const {
  const auto by_name = [](const ZipMember& a, const ZipMember& b) {
    return a.name < b.name;
  };
  std::sort(members.begin(), members.end(), by_name);
  for (size_t i = 1; i < members.size(); ++i) {
    if (members[i].name == members[i - 1].name) {
      return Error(StrCat("member ", members[i].name), members[i].offset,
                   "the only one of its name", "another");
    }
  }
  std::stable_sort(members.begin(), members.end(),
                   [](const ZipMember& a, const ZipMember& b) {
                     return a.offset < b.offset;
                   });
  for (size_t i = 1; i < members.size(); ++i) {
    const uint64_t end = members[i - 1].offset + members[i - 1].bytes;
    if (members[i].offset < end) {
      return Error(
          StrCat("member ", members[i].name), members[i].offset,
          StrCat("behind ", members[i - 1].name, ", which ends at ", end),
          "overlap");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ZipMember>> Reader::Run() {
  CARAVAN_ASSIGN_OR_RETURN(const Directory directory, FindDirectory());
  std::vector<ZipMember> members;
  uint64_t offset = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    CARAVAN_ASSIGN_OR_RETURN(ZipMember member, ReadEntry(directory, &offset));
    members.push_back(std::move(member));
  }
  CARAVAN_RETURN_IF_ERROR(CheckMembers(members));
  return members;
}

}  // namespace

bool LooksLikeZip(std::span<const std::byte> content) {
  return content.size() >= 4 && Read<uint32_t>(content, 0) == kMemberMark;
}

absl::StatusOr<std::vector<ZipMember>> ParseZip(
    std::span<const std::byte> content, const std::string& file) {
  return Reader(content, file).Run();
}

}  // namespace caravan::worker
