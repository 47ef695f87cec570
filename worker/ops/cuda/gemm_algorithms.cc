#include "worker/ops/cuda/gemm_algorithms.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <system_error>

#include "common/crc32c.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker::cuda {
namespace {

constexpr std::string_view kFormat = "caravan gemm algorithms 1";
constexpr std::string_view kSum = "crc32c ";
constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr size_t kMaxEntries = 4096;
constexpr int32_t kMaxDimension = 1 << 24;
// Types, rows, columns, tokens, mode, seconds, workspace, and the words.
constexpr size_t kWordsBegin = 7;
constexpr size_t kFieldCount = kWordsBegin + GemmAlgorithm().words.size();

constexpr std::string_view kBf16Name = "bf16";
constexpr std::string_view kStoreName = "store";
constexpr std::string_view kAddName = "add";

std::string HexOf(uint64_t value, int digits) {
  char text[17];
  std::snprintf(text, sizeof(text), "%0*llx", digits,
                static_cast<unsigned long long>(value));
  return text;
}

std::string ShortestOf(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value);
  return error == std::errc() ? std::string(text, end) : "0";
}

std::string SumOf(std::string_view text) {
  return HexOf(Crc32c(std::as_bytes(std::span(text))), 8);
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// All of `text` as a number of the base, if it is one.
template <typename T>
std::optional<T> NumberOf(std::string_view text, int base = 10) {
  T value = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, value, base);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  return value;
}

// A file being read, a line at a time; errors name file and line.
class Reader {
 public:
  Reader(std::string_view text, std::string_view name)
      : lines_(Split(text, '\n')), name_(name) {}

  std::string_view Next() {
    return next_ < lines_.size() ? lines_[next_++] : std::string_view();
  }
  bool AtSum() const {
    return next_ >= lines_.size() || lines_[next_].starts_with(kSum);
  }
  // Of the line that Next gave, or of a part of it.
  absl::Status Error(std::string_view limit, std::string_view value) const {
    return FieldError(StrCat(std::string(name_), ": line ", next_), limit,
                      value.substr(0, 80));
  }

 private:
  const std::vector<std::string_view> lines_;
  const std::string_view name_;
  size_t next_ = 0;
};

absl::StatusOr<int32_t> Dimension(const Reader& reader, std::string_view text,
                                  int32_t most) {
  const std::optional<int32_t> value = NumberOf<int32_t>(text);
  if (value && *value >= 1 && *value <= most) return *value;
  return reader.Error(StrCat("a dimension in [1, ", most, "]"), text);
}

absl::StatusOr<GemmKey> KeyOf(const Reader& reader,
                              std::span<const std::string_view> fields) {
  GemmKey key;
  if (fields[0] != kBf16Name) {
    return reader.Error("products of type bf16", fields[0]);
  }
  CARAVAN_ASSIGN_OR_RETURN(key.rows,
                           Dimension(reader, fields[1], kMaxDimension));
  CARAVAN_ASSIGN_OR_RETURN(key.columns,
                           Dimension(reader, fields[2], kMaxDimension));
  CARAVAN_ASSIGN_OR_RETURN(key.tokens,
                           Dimension(reader, fields[3], kMaxGemmTokens));
  if (GemmTokenBucket(key.tokens) != key.tokens) {
    return reader.Error("a bucket of tokens", fields[3]);
  }
  if (fields[4] != kStoreName && fields[4] != kAddName) {
    return reader.Error("store or add", fields[4]);
  }
  key.adds = fields[4] == kAddName;
  return key;
}

absl::StatusOr<double> SecondsOf(const Reader& reader, std::string_view text) {
  double seconds = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, seconds);
  if (read.ec == std::errc() && read.ptr == end && std::isfinite(seconds) &&
      seconds > 0) {
    return seconds;
  }
  return reader.Error("a time above 0 s", text);
}

absl::StatusOr<GemmAlgorithms::Entry> EntryOf(
    const Reader& reader, std::span<const std::string_view> fields) {
  GemmAlgorithms::Entry entry;
  CARAVAN_ASSIGN_OR_RETURN(entry.seconds, SecondsOf(reader, fields[5]));
  const std::optional<int64_t> workspace = NumberOf<int64_t>(fields[6]);
  if (!workspace || *workspace < 0 || *workspace > kGemmWorkspaceBytes) {
    return reader.Error(
        StrCat("a workspace in [0, ", kGemmWorkspaceBytes, "] bytes"),
        fields[6]);
  }
  entry.algorithm.workspace_bytes = *workspace;
  for (size_t i = 0; i < entry.algorithm.words.size(); ++i) {
    const std::string_view text = fields[kWordsBegin + i];
    const std::optional<uint64_t> word = NumberOf<uint64_t>(text, 16);
    if (!word || text.size() != 16) {
      return reader.Error("16 hexadecimal digits", text);
    }
    entry.algorithm.words[i] = *word;
  }
  return entry;
}

absl::Status ReadProduct(Reader& reader, GemmAlgorithms& algorithms) {
  const std::string_view line = reader.Next();
  const std::vector<std::string_view> fields = Split(line, ' ');
  if (fields.size() != kFieldCount) {
    return reader.Error(StrCat(kFieldCount, " fields"), line);
  }
  if (algorithms.size() >= kMaxEntries) {
    return reader.Error(StrCat("one of at most ", kMaxEntries, " products"),
                        line);
  }
  CARAVAN_ASSIGN_OR_RETURN(const GemmKey key, KeyOf(reader, fields));
  CARAVAN_ASSIGN_OR_RETURN(const GemmAlgorithms::Entry entry,
                           EntryOf(reader, fields));
  if (algorithms.Find(key) != nullptr) {
    return reader.Error("a product that stands there once", line);
  }
  algorithms.Put(key, entry);
  return absl::OkStatus();
}

// The sum comes first: nothing else of a torn file is believed.
absl::Status CheckSum(std::string_view text, std::string_view name) {
  const size_t begin = text.rfind(kSum);
  const std::string expected =
      begin == std::string_view::npos
          ? std::string()
          : StrCat(std::string(kSum), SumOf(text.substr(0, begin)), "\n");
  if (!expected.empty() && text.substr(begin) == expected) {
    return absl::OkStatus();
  }
  return FieldError(name, "a whole file that ends with the CRC32C of its lines",
                    begin == std::string_view::npos ? text.substr(0, 40)
                                                    : text.substr(begin, 40));
}

// Whether the next line is "WHAT VALUE" with this machine's value; what is
// not, goes to `differences`.
absl::Status ReadSite(Reader& reader, std::string_view what,
                      std::string_view own, std::string& differences) {
  const std::string_view line = reader.Next();
  if (!line.starts_with(StrCat(what, " "))) {
    return reader.Error(StrCat(what, " and a name"), line);
  }
  const std::string_view value = line.substr(what.size() + 1);
  if (value != own) {
    StrAppend(&differences, differences.empty() ? "" : ", ", what, " ",
              value.substr(0, 80), " (here ", own, ")");
  }
  return absl::OkStatus();
}

}  // namespace

int32_t GemmTokenBucket(int64_t tokens) {
  int32_t bucket = 1;
  while (bucket < tokens) {
    const int32_t between = bucket + bucket / 2;
    if (bucket >= 32 && between >= tokens) return between;
    bucket *= 2;
  }
  return bucket;
}

std::vector<int32_t> GemmTokenBuckets(int64_t most) {
  std::vector<int32_t> buckets;
  const int64_t end = std::min<int64_t>(most, kMaxGemmTokens);
  for (int64_t tokens = 1; tokens <= end; tokens = buckets.back() + 1) {
    buckets.push_back(GemmTokenBucket(tokens));
  }
  return buckets;
}

size_t FastestOf(std::span<const double> seconds) {
  constexpr double kNoise = 0.99;
  size_t best = 0;
  for (size_t i = 1; i < seconds.size(); ++i) {
    if (seconds[i] < kNoise * seconds[best]) best = i;
  }
  return best;
}

const GemmAlgorithms::Entry* GemmAlgorithms::Find(const GemmKey& key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

// Times apart, what they have chosen together.
std::string GemmAlgorithms::Digest() const {
  GemmAlgorithms untimed = *this;
  for (auto& [key, entry] : untimed.entries_) entry.seconds = 1;
  return SumOf(untimed.Serialize());
}

std::string GemmAlgorithms::Serialize() const {
  std::string text = StrCat(kFormat, "\nlibrary ", site_.library, "\ndriver ",
                            site_.driver, "\ncard ", site_.card, "\n");
  for (const auto& [key, entry] : entries_) {
    StrAppend(&text, kBf16Name, " ", key.rows, " ", key.columns, " ",
              key.tokens, " ", key.adds ? kAddName : kStoreName, " ",
              ShortestOf(entry.seconds), " ", entry.algorithm.workspace_bytes);
    for (const uint64_t word : entry.algorithm.words) {
      StrAppend(&text, " ", HexOf(word, 16));
    }
    text += '\n';
  }
  StrAppend(&text, kSum, SumOf(text), "\n");
  return text;
}

absl::StatusOr<GemmAlgorithms> GemmAlgorithms::Parse(std::string_view text,
                                                     std::string_view name,
                                                     const GemmSite& site) {
  if (text.size() > kMaxFileBytes) {
    return FieldError(name, StrCat("at most ", kMaxFileBytes, " bytes"),
                      StrCat(text.size()));
  }
  CARAVAN_RETURN_IF_ERROR(CheckSum(text, name));
  Reader reader(text, name);
  if (const std::string_view line = reader.Next(); line != kFormat) {
    return reader.Error(kFormat, line);
  }
  std::string differences;
  CARAVAN_RETURN_IF_ERROR(
      ReadSite(reader, "library", site.library, differences));
  CARAVAN_RETURN_IF_ERROR(ReadSite(reader, "driver", site.driver, differences));
  CARAVAN_RETURN_IF_ERROR(ReadSite(reader, "card", site.card, differences));
  GemmAlgorithms algorithms(site);
  while (!reader.AtSum()) {
    CARAVAN_RETURN_IF_ERROR(ReadProduct(reader, algorithms));
  }
  if (differences.empty()) return algorithms;
  return MakeError(Reason::kIdentityMismatch,
                   StrCat(std::string(name), ": measured with ", differences));
}

absl::StatusOr<GemmAlgorithms> GemmAlgorithms::Load(const std::string& path,
                                                    const GemmSite& site) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return MakeError(Reason::kNotFound, StrCat(path, " cannot be opened"));
  }
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return Parse(text, path, site);
}

absl::Status GemmAlgorithms::Save(const std::string& path) const {
  const std::string next = StrCat(path, ".new");
  std::ofstream file(next, std::ios::binary | std::ios::trunc);
  file << Serialize();
  file.close();
  if (!file || std::rename(next.c_str(), path.c_str()) != 0) {
    std::remove(next.c_str());
    return MakeError(Reason::kInternal, StrCat(path, " cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker::cuda
