#include "services/tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/utf8.h"
#include "services/tokenizer/jinja/text.h"

namespace caravan::jinja {
namespace {

using text::AppendUtf8;
using text::DecodeUtf8;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }
int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// One kind of line end; the last one of the template goes.
std::string Normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool AllSpace(std::string_view text) {
  for (size_t i = 0; i < text.size(); i += text::Utf8Size(text[i])) {
    if (!IsSpace(DecodeUtf8(text.substr(i)).code_point)) return false;
  }
  return true;
}

std::string_view StripRight(std::string_view text) {
  const Text stripped =
      Text(text, Origin::kTemplate).Strip(/*left=*/false, /*right=*/true);
  return text.substr(0, stripped.size());
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      CARAVAN_RETURN_IF_ERROR(NextPart());
    }
    Emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const {
    return std::string_view(source_).substr(position_);
  }
  bool At(std::string_view text) const { return rest().starts_with(text); }
  absl::Status Error(std::string_view what) const {
    return ErrorAtLine(line_, what);
  }

  void Emit(TokenType type, std::string_view text) {
    tokens_.push_back({type, std::string(text), line_});
  }

  void Advance(size_t count) {
    const std::string_view skipped = rest().substr(0, count);
    line_ += static_cast<int>(std::count(skipped.begin(), skipped.end(), '\n'));
    position_ += skipped.size();
  }

  // Text up to the next tag, and that tag.
  absl::Status NextPart() {
    size_t tag = position_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        tag = std::string::npos;
        break;
      }
      const char kind = source_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
      ++tag;
    }
    if (tag == std::string::npos) {
      EmitData(rest());
      Advance(rest().size());
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool signed_tag = sign == '-' || sign == '+';
    EmitDataBefore(rest().substr(0, tag - position_), kind, sign);
    Advance(tag - position_ + (signed_tag ? 3 : 2));
    line_starting_ = false;
    if (kind == '#') return SkipComment();
    if (kind == '{') return ReadTag(TokenType::kVariableBegin, "}}");
    if (const auto raw_end = EndOfRawTag()) return ReadRaw(*raw_end);
    return ReadTag(TokenType::kBlockBegin, "%}");
  }

  void EmitData(std::string_view data) {
    if (!data.empty()) Emit(TokenType::kData, data);
  }

  // Data before a tag, less what the tag's sign or lstrip_blocks takes.
  void EmitDataBefore(std::string_view data, char kind, char sign) {
    if (sign == '-') {
      EmitData(StripRight(data));
      return;
    }
    if (sign != '+' && kind != '{') {
      const size_t newline = data.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      const bool at_line_start = line > 0 || line_starting_;
      if (at_line_start && AllSpace(data.substr(line))) {
        data = data.substr(0, line);
      }
    }
    EmitData(data);
  }

  // Passes the end of a tag, of `size` bytes and perhaps a sign before it, and
  // what it takes of the text behind.
  void PassEnd(size_t size, char sign, bool trims_newline) {
    Advance(size);
    line_starting_ = false;
    if (sign == '-') {
      while (position_ < source_.size()) {
        const text::Utf8Char c = DecodeUtf8(rest());
        if (!IsSpace(c.code_point)) break;
        line_starting_ = c.code_point == '\n';
        Advance(c.size);
      }
    } else if (sign != '+' && trims_newline && At("\n")) {
      Advance(1);
      line_starting_ = true;
    }
  }

  absl::Status SkipComment() {
    const size_t end = rest().find("#}");
    if (end == std::string_view::npos) return Error("comment has no end");
    const char before = end > 0 ? rest()[end - 1] : '\0';
    Advance(end);
    PassEnd(2, before, /*trims_newline=*/true);
    return absl::OkStatus();
  }

  // After "{%": where "raw %}" ends, if that is what stands here.
  std::optional<size_t> EndOfRawTag() const {
    size_t i = position_;
    const auto skip_space = [&] {
      while (i < source_.size() && AllSpace(source_.substr(i, 1))) ++i;
    };
    skip_space();
    if (source_.compare(i, 3, "raw") != 0) return std::nullopt;
    i += 3;
    skip_space();
    if (source_.compare(i, 2, "%}") == 0) return i + 2;
    if (source_.compare(i, 3, "-%}") == 0) return i + 3;
    return std::nullopt;
  }

  absl::Status ReadRaw(size_t begin) {
    const char sign = source_[begin - 3];
    Advance(begin - 2 - position_);
    PassEnd(2, sign, /*trims_newline=*/true);
    size_t tag = position_;
    while (true) {
      tag = source_.find("{%", tag);
      if (tag == std::string::npos) return Error("raw block has no end");
      size_t i = tag + 2;
      const char end_sign = i < source_.size() ? source_[i] : '\0';
      if (end_sign == '-' || end_sign == '+') ++i;
      while (i < source_.size() && source_[i] == ' ') ++i;
      if (source_.compare(i, 6, "endraw") != 0) {
        tag += 2;
        continue;
      }
      const size_t close = source_.find("%}", i);
      if (close == std::string::npos) return Error("raw block has no end");
      EmitDataBefore(rest().substr(0, tag - position_), '%', end_sign);
      const char close_sign = source_[close - 1];
      Advance(close - position_);
      PassEnd(2, close_sign, /*trims_newline=*/true);
      return absl::OkStatus();
    }
  }

  // The inside of a tag and its end.
  absl::Status ReadTag(TokenType begin, std::string_view end) {
    Emit(begin, "");
    const bool is_block = begin == TokenType::kBlockBegin;
    std::string open;  // brackets
    while (true) {
      SkipSpace();
      if (position_ >= source_.size()) return Error("tag has no end");
      if (open.empty()) {
        const char sign = rest().front();
        const bool has_sign = sign == '-' || sign == '+';
        if (rest().substr(has_sign ? 1 : 0).starts_with(end) &&
            (sign != '+' || is_block)) {
          Emit(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
          if (has_sign) Advance(1);
          PassEnd(2, has_sign ? sign : '\0', is_block);
          return absl::OkStatus();
        }
      }
      CARAVAN_RETURN_IF_ERROR(ReadToken(&open));
    }
  }

  void SkipSpace() {
    while (position_ < source_.size()) {
      const text::Utf8Char c = DecodeUtf8(rest());
      if (!IsSpace(c.code_point)) return;
      Advance(c.size);
    }
  }

  absl::Status ReadToken(std::string* open) {
    const char c = rest().front();
    if (IsNameStart(c)) {
      ReadName();
      return absl::OkStatus();
    }
    if (IsDigit(c)) {
      ReadNumber();
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return ReadString(c);
    return ReadOperator(open);
  }

  void ReadName() {
    size_t size = 1;
    while (size < rest().size() && IsNamePart(rest()[size])) ++size;
    Emit(TokenType::kName, rest().substr(0, size));
    Advance(size);
  }

  void ReadNumber() {
    const std::string_view text = rest();
    size_t size = 0;
    bool is_float = false;
    const auto digit_at = [&](size_t i) {
      return i < text.size() && IsDigit(text[i]);
    };
    const auto skip_digits = [&] {
      while (digit_at(size) ||
             (size < text.size() && text[size] == '_' && digit_at(size + 1))) {
        ++size;
      }
    };
    skip_digits();
    if (size < text.size() && text[size] == '.' && digit_at(size + 1)) {
      is_float = true;
      ++size;
      skip_digits();
    }
    if (size < text.size() && (text[size] == 'e' || text[size] == 'E')) {
      size_t exponent = size + 1;
      if (exponent < text.size() &&
          (text[exponent] == '+' || text[exponent] == '-')) {
        ++exponent;
      }
      if (digit_at(exponent)) {
        is_float = true;
        size = exponent;
        skip_digits();
      }
    }
    std::string digits(text.substr(0, size));
    std::erase(digits, '_');
    Emit(is_float ? TokenType::kFloat : TokenType::kInteger, digits);
    Advance(size);
  }

  absl::Status ReadString(char quote) {
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) {
      end += rest()[end] == '\\' ? 2 : 1;
    }
    if (end >= rest().size()) return Error("string has no end");
    CARAVAN_ASSIGN_OR_RETURN(const std::string text,
                             Unescape(rest().substr(1, end - 1)));
    Emit(TokenType::kString, text);
    Advance(end + 1);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Unescape(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      if (text.front() != '\\') {
        out += text.front();
        text.remove_prefix(1);
        continue;
      }
      text.remove_prefix(1);
      CARAVAN_RETURN_IF_ERROR(UnescapeOne(&text, &out));
    }
    return out;
  }

  // `text` begins behind a backslash.
  absl::Status UnescapeOne(std::string_view* text, std::string* out) const {
    constexpr std::string_view kLetters = "abfnrtv\\'\"\n";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = text->front();
    text->remove_prefix(1);
    if (c == '\n') return absl::OkStatus();
    if (const size_t at = kLetters.find(c); at != std::string_view::npos) {
      *out += kMeanings[at];
      return absl::OkStatus();
    }
    if (c == 'x') return UnescapeHex(2, text, out);
    if (c == 'u') return UnescapeHex(4, text, out);
    if (c == 'U') return UnescapeHex(8, text, out);
    if (c < '0' || c > '7') {
      *out += '\\';
      *out += c;
      return absl::OkStatus();
    }
    uint32_t value = c - '0';
    for (int i = 0; i < 2 && !text->empty() && text->front() >= '0' &&
                    text->front() <= '7';
         ++i) {
      value = value * 8 + (text->front() - '0');
      text->remove_prefix(1);
    }
    AppendUtf8(value, out);
    return absl::OkStatus();
  }

  absl::Status UnescapeHex(size_t digits, std::string_view* text,
                           std::string* out) const {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int digit = i < text->size() ? HexDigit((*text)[i]) : -1;
      if (digit < 0) return Error("string has a broken escape");
      value = value << 4 | static_cast<uint32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return Error("string escapes what is no character");
    }
    text->remove_prefix(digits);
    AppendUtf8(value, out);
    return absl::OkStatus();
  }

  absl::Status ReadOperator(std::string* open) {
    static constexpr std::array<std::string_view, 27> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", "!"};
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(),
                     [&](std::string_view op) { return At(op); });
    if (found == kOperators.end() || *found == "!") {
      return Error(StrCat("unexpected character '", rest().substr(0, 1), "'"));
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') open->push_back(c);
    if (c == ')' || c == ']' || c == '}') {
      const char opening = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open->empty() || open->back() != opening) {
        return Error(StrCat("unexpected '", *found, "'"));
      }
      open->pop_back();
    }
    Emit(TokenType::kOperator, *found);
    Advance(found->size());
    return absl::OkStatus();
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  // Whether what follows begins a line, as far as tags have passed.
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status ErrorAtLine(int line, std::string_view what) {
  return MakeError(Reason::kTemplateError,
                   StrCat("template line ", line, ": ", what),
                   {{"line", StrCat(line)}});
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(Normalized(source)).Run();
}

}  // namespace caravan::jinja
