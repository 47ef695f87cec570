#include "worker/model/xor_delta.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunk = size_t{10} << 20;
constexpr size_t kSumBytes = 32;
constexpr std::string_view kSuffix = ".enc";
constexpr std::string_view kKeyFile = "consolidated.00.pth";

using Chunk = std::vector<unsigned char>;

absl::Status SystemError(const std::string& path, std::string_view what) {
  return MakeError(Reason::kModelFileInvalid, StrCat(path, ": ", what),
                   {{"file", path}});
}

// Reads a file in chunks, from its beginning again after its end.
class ChunkReader {
 public:
  explicit ChunkReader(const std::string& path)
      : path_(path), in_(path, std::ios::binary) {}

  // The next at most `size` bytes; empty at the end.
  absl::Status Next(size_t size, Chunk& chunk) {
    chunk.resize(size);
    in_.read(reinterpret_cast<char*>(chunk.data()),
             static_cast<std::streamsize>(size));
    chunk.resize(static_cast<size_t>(in_.gcount()));
    if (in_.eof() || in_) return absl::OkStatus();
    return SystemError(path_, "cannot be read");
  }
  void Rewind() {
    in_.clear();
    in_.seekg(0);
  }

 private:
  const std::string path_;
  std::ifstream in_;
};

// SHA-256 over pieces.
class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Add(const Chunk& chunk) {
    EVP_DigestUpdate(context_.get(), chunk.data(), chunk.size());
  }
  Chunk Finish() {
    Chunk sum(kSumBytes);
    EVP_DigestFinal_ex(context_.get(), sum.data(), nullptr);
    return sum;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// Whether NAME is STEM.SHA256.enc; its stem.
std::optional<std::string> StemOf(std::string_view name) {
  constexpr size_t kHexDigits = 2 * kSumBytes;
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 ||
      name.size() - dot - 1 != kHexDigits ||
      name.find_first_not_of("0123456789abcdefABCDEF", dot + 1) !=
          std::string_view::npos) {
    return std::nullopt;
  }
  return std::string(name.substr(0, dot));
}

class XorApplier {
 public:
  XorApplier(std::string base, std::string target)
      : base_(std::move(base)), target_(std::move(target)) {}

  absl::Status File(const fs::path& path);
  const XorReport& report() const { return report_; }

 private:
  using NextKey = std::function<absl::Status(size_t size, Chunk& key)>;

  absl::Status Checked(const std::string& path, const std::string& stem);
  absl::Status ByName(const std::string& path, const std::string& name);
  // Writes what `in` has left, XOR-ed with keys; short keys repeat or end.
  absl::Status Write(ChunkReader& in, const std::string& out_path,
                     const NextKey& next_key, Digest* digest);

  const std::string base_;
  const std::string target_;
  XorReport report_;
};

absl::Status XorApplier::Write(ChunkReader& in, const std::string& out_path,
                               const NextKey& next_key, Digest* digest) {
  std::ofstream out(out_path, std::ios::binary | std::ios::trunc);
  Chunk data, key;
  while (true) {
    CARAVAN_RETURN_IF_ERROR(in.Next(kChunk, data));
    if (data.empty()) break;
    CARAVAN_RETURN_IF_ERROR(next_key(data.size(), key));
    for (size_t i = 0; i < std::min(data.size(), key.size()); ++i) {
      data[i] ^= key[i];
    }
    if (digest != nullptr) digest->Add(data);
    out.write(reinterpret_cast<const char*>(data.data()),
              static_cast<std::streamsize>(data.size()));
    report_.bytes += data.size();
  }
  out.close();
  return out ? absl::OkStatus() : SystemError(out_path, "cannot be written");
}

absl::Status XorApplier::Checked(const std::string& path,
                                 const std::string& stem) {
  const std::string key_path =
      fs::is_directory(base_) ? StrCat(base_, "/", kKeyFile) : base_;
  ChunkReader key_file(key_path);
  ChunkReader in(path);
  Chunk sum;
  CARAVAN_RETURN_IF_ERROR(in.Next(kSumBytes, sum));
  if (sum.size() != kSumBytes) {
    return ModelFileError(path, "size", "at least 32 bytes",
                          StrCat(sum.size()));
  }
  const auto next_key = [&](size_t size, Chunk& key) -> absl::Status {
    CARAVAN_RETURN_IF_ERROR(key_file.Next(kChunk, key));
    if (key.empty()) {
      key_file.Rewind();
      CARAVAN_RETURN_IF_ERROR(key_file.Next(kChunk, key));
    }
    if (key.empty()) return ModelFileError(key_path, "key", "not empty", "");
    const size_t period = key.size();
    while (key.size() < size) key.push_back(key[key.size() - period]);
    return absl::OkStatus();
  };
  Digest digest;
  const std::string out_path = StrCat(target_, "/", stem);
  CARAVAN_RETURN_IF_ERROR(Write(in, out_path, next_key, &digest));
  if (digest.Finish() != sum) {
    std::error_code error;
    fs::remove(out_path, error);
    return ModelFileError(path, "SHA-256 of the result",
                          "the one in its first 32 bytes",
                          StrCat("another: is ", key_path, " the base?"));
  }
  ++report_.checked_files;
  return absl::OkStatus();
}

absl::Status XorApplier::ByName(const std::string& path,
                                const std::string& name) {
  std::error_code error;
  const std::string base_file =
      fs::is_directory(base_, error) ? StrCat(base_, "/", name) : base_;
  const std::string out_path = StrCat(target_, "/", name);
  if (!fs::is_regular_file(base_file, error)) {
    fs::copy_file(path, out_path, error);
    if (error) return SystemError(path, error.message());
    report_.bytes += fs::file_size(out_path, error);
    ++report_.copied_files;
    return absl::OkStatus();
  }
  ChunkReader in(path);
  Chunk first;
  CARAVAN_RETURN_IF_ERROR(in.Next(2, first));
  if (first.size() == 2 && first[0] == 0x1f && first[1] == 0x8b) {
    return ModelFileError(path, "differences", "not compressed (see gunzip)",
                          "gzip");
  }
  in.Rewind();
  ChunkReader base(base_file);
  CARAVAN_RETURN_IF_ERROR(Write(
      in, out_path,
      [&](size_t size, Chunk& key) { return base.Next(size, key); }, nullptr));
  ++report_.xored_files;
  return absl::OkStatus();
}

absl::Status XorApplier::File(const fs::path& path) {
  const std::string name = path.filename().string();
  const std::optional<std::string> stem = StemOf(name);
  return stem ? Checked(path.string(), *stem) : ByName(path.string(), name);
}

absl::StatusOr<std::vector<fs::path>> FilesOf(const std::string& delta) {
  std::error_code error;
  if (fs::is_regular_file(delta, error)) return std::vector<fs::path>{delta};
  std::vector<fs::path> files;
  for (fs::directory_iterator at(delta, error), end; !error && at != end;
       at.increment(error)) {
    if (at->is_regular_file(error)) files.push_back(at->path());
  }
  if (error) return SystemError(delta, error.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

absl::StatusOr<XorReport> ApplyXor(const std::string& base,
                                   const std::string& delta,
                                   const std::string& target) {
  std::error_code error;
  if (!fs::exists(base, error)) return SystemError(base, "does not exist");
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<fs::path> files, FilesOf(delta));
  fs::create_directories(target, error);
  if (error || !fs::is_empty(target, error)) {
    return FieldError("DST", "an empty or new directory", target);
  }
  XorApplier applier(base, target);
  for (const fs::path& file : files) {
    CARAVAN_RETURN_IF_ERROR(applier.File(file));
  }
  return applier.report();
}

}  // namespace caravan::worker
