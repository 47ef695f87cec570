#include "gateway/stream/stream_cursor.h"

#include <limits>
#include <optional>

#include "absl/strings/escaping.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

constexpr char kVersion = 1;
constexpr size_t kMaxTextBytes = 2048;

void AppendFixed(uint64_t value, std::string& out) {
  for (int shift = 0; shift < 64; shift += 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xFF));
  }
}

void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>((value & 0x7F) | 0x80));
  }
  out.push_back(static_cast<char>(value));
}

// Reads from the front; `failed` stays once the bytes were too few or a number
// too large.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  uint8_t Byte() {
    if (bytes_.empty()) {
      failed_ = true;
      return 0;
    }
    const auto byte = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  uint64_t Fixed() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 8) {
      value |= uint64_t{Byte()} << shift;
    }
    return value;
  }
  int64_t Varint(int64_t most) {
    uint64_t value = 0;
    uint8_t byte = 0x80;
    for (int shift = 0; shift < 63 && (byte & 0x80) != 0; shift += 7) {
      byte = Byte();
      value |= uint64_t{byte & 0x7Fu} << shift;
    }
    if ((byte & 0x80) != 0 || value > static_cast<uint64_t>(most)) {
      failed_ = true;
      return 0;
    }
    return static_cast<int64_t>(value);
  }
  // Everything was read, and nothing was missing.
  bool whole() const { return !failed_ && bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool failed_ = false;
};

std::optional<StreamCursor> Parse(std::string_view bytes) {
  Reader reader(bytes);
  if (reader.Byte() != kVersion) return std::nullopt;
  StreamCursor cursor;
  cursor.request_tag = reader.Fixed();
  cursor.seed = reader.Fixed();
  cursor.identity_tag = reader.Fixed();
  cursor.introduced = reader.Varint(1) == 1;
  const int64_t count = reader.Varint(kMaxCursorChoices);
  for (int64_t i = 0; i < count; ++i) {
    ChoiceCursor& choice = cursor.choices.emplace_back();
    choice.finished = reader.Varint(1) == 1;
    choice.tokens = static_cast<int32_t>(
        reader.Varint(std::numeric_limits<int32_t>::max()));
    choice.text_bytes = reader.Varint(std::numeric_limits<int64_t>::max());
  }
  if (!reader.whole()) return std::nullopt;
  return cursor;
}

}  // namespace

std::string EncodeCursor(const StreamCursor& cursor) {
  std::string bytes(1, kVersion);
  AppendFixed(cursor.request_tag, bytes);
  AppendFixed(cursor.seed, bytes);
  AppendFixed(cursor.identity_tag, bytes);
  AppendVarint(cursor.introduced ? 1 : 0, bytes);
  AppendVarint(cursor.choices.size(), bytes);
  for (const ChoiceCursor& choice : cursor.choices) {
    AppendVarint(choice.finished ? 1 : 0, bytes);
    AppendVarint(static_cast<uint64_t>(choice.tokens), bytes);
    AppendVarint(static_cast<uint64_t>(choice.text_bytes), bytes);
  }
  return absl::WebSafeBase64Escape(bytes);
}

absl::StatusOr<StreamCursor> DecodeCursor(std::string_view field,
                                          std::string_view text) {
  std::string bytes;
  if (text.size() <= kMaxTextBytes &&
      absl::WebSafeBase64Unescape(ToAbsl(text), &bytes)) {
    if (auto cursor = Parse(bytes)) return *std::move(cursor);
  }
  return FieldError(field, "the id of an event of the stream",
                    text.size() <= 64 ? text : text.substr(0, 64));
}

}  // namespace caravan::gateway
