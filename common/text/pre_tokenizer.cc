#include "common/text/pre_tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/text/unicode_class.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

// A place in valid text, read character by character.
class Cursor {
 public:
  Cursor(std::string_view text, size_t offset, const CharClass* classes)
      : text_(text), classes_(classes), offset_(offset) {
    Load();
  }

  bool at_end() const { return offset_ >= text_.size(); }
  size_t offset() const { return offset_; }
  uint32_t character() const { return character_; }  // 0 at the end

  bool Is(CharClass c) const { return !at_end() && class_ == c; }
  bool IsLineEnd() const { return character_ == '\r' || character_ == '\n'; }
  // Neither white space, letter nor number.
  bool IsSymbol() const { return Is(CharClass::kOther); }

  void Advance() {
    offset_ += size_;
    Load();
  }
  void AdvanceWhile(CharClass c) {
    while (Is(c)) Advance();
  }

 private:
  void Load() {
    if (at_end()) {
      character_ = 0;
      size_ = 0;
      return;
    }
    character_ = DecodeValidUtf8(text_.data() + offset_, &size_);
    class_ = classes_[character_];
  }

  std::string_view text_;
  const CharClass* classes_;
  size_t offset_;
  uint32_t character_ = 0;
  int size_ = 0;
  CharClass class_ = CharClass::kOther;
};

// Lower case of what the contractions are made of; U+017F folds to s.
uint32_t Fold(uint32_t c) {
  if (c >= 'A' && c <= 'Z') return c + ('a' - 'A');
  return c == 0x17F ? 's' : c;
}

// End of 's 't 're 've 'm 'll 'd at `start`, or `start` where none is.
size_t EndOfContraction(std::string_view text, size_t start,
                        const CharClass* classes, bool ignore_case) {
  if (text[start] != '\'') return start;
  Cursor cursor(text, start + 1, classes);
  const auto take = [&] {
    const uint32_t c = cursor.character();
    if (!cursor.at_end()) cursor.Advance();
    return ignore_case ? Fold(c) : c;
  };
  const uint32_t first = take();
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    return cursor.offset();
  }
  const uint32_t second = take();
  const bool pair = ((first == 'r' || first == 'v') && second == 'e') ||
                    (first == 'l' && second == 'l');
  return pair ? cursor.offset() : start;
}

// End of the white space at `cursor` by \s+(?!\S)|\s+: a run before something
// else leaves its last character for what follows, unless it has only one.
size_t EndOfWhiteSpace(Cursor cursor) {
  const size_t start = cursor.offset();
  size_t last = start;
  while (cursor.Is(CharClass::kWhiteSpace)) {
    last = cursor.offset();
    cursor.Advance();
  }
  return cursor.at_end() || last == start ? cursor.offset() : last;
}

// The two patterns differ in few places; `End` gives the end of the piece that
// begins at `start`.
struct Llama3Scanner {
  static size_t End(std::string_view text, size_t start,
                    const CharClass* classes) {
    if (const size_t end =
            EndOfContraction(text, start, classes, /*ignore_case=*/true);
        end > start) {
      return end;
    }
    Cursor cursor(text, start, classes);
    if (const size_t end = EndOfWord(cursor); end > start) return end;
    if (cursor.Is(CharClass::kNumber)) return EndOfNumber(cursor);
    if (const size_t end = EndOfSymbols(cursor); end > start) return end;
    if (const size_t end = EndOfLines(cursor); end > start) return end;
    return EndOfWhiteSpace(cursor);
  }

 private:
  // [^\r\n\p{L}\p{N}]?\p{L}+
  static size_t EndOfWord(Cursor cursor) {
    const size_t start = cursor.offset();
    if (!cursor.IsLineEnd() && !cursor.Is(CharClass::kLetter) &&
        !cursor.Is(CharClass::kNumber)) {
      cursor.Advance();
    }
    if (!cursor.Is(CharClass::kLetter)) return start;
    cursor.AdvanceWhile(CharClass::kLetter);
    return cursor.offset();
  }
  // \p{N}{1,3}
  static size_t EndOfNumber(Cursor cursor) {
    for (int i = 0; i < 3 && cursor.Is(CharClass::kNumber); ++i) {
      cursor.Advance();
    }
    return cursor.offset();
  }
  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  static size_t EndOfSymbols(Cursor cursor) {
    const size_t start = cursor.offset();
    if (cursor.character() == ' ') cursor.Advance();
    if (!cursor.IsSymbol()) return start;
    while (cursor.IsSymbol()) cursor.Advance();
    while (cursor.IsLineEnd()) cursor.Advance();
    return cursor.offset();
  }
  // \s*[\r\n]+
  static size_t EndOfLines(Cursor cursor) {
    size_t end = cursor.offset();
    while (cursor.Is(CharClass::kWhiteSpace)) {
      const bool line_end = cursor.IsLineEnd();
      cursor.Advance();
      if (line_end) end = cursor.offset();
    }
    return end;
  }
};

struct Gpt2Scanner {
  static size_t End(std::string_view text, size_t start,
                    const CharClass* classes) {
    if (const size_t end =
            EndOfContraction(text, start, classes, /*ignore_case=*/false);
        end > start) {
      return end;
    }
    Cursor cursor(text, start, classes);
    if (cursor.character() == ' ') cursor.Advance();
    for (const CharClass c :
         {CharClass::kLetter, CharClass::kNumber, CharClass::kOther}) {
      if (!cursor.Is(c)) continue;
      cursor.AdvanceWhile(c);
      return cursor.offset();
    }
    return EndOfWhiteSpace(Cursor(text, start, classes));
  }
};

template <typename Scanner>
class ScanningPreTokenizer final : public PreTokenizer {
 public:
  absl::StatusOr<size_t> SplitSome(
      std::string_view text, size_t start, size_t most,
      std::vector<std::string_view>* pieces) const override {
    const CharClass* const classes = CharClasses();
    for (; start < text.size() && most > 0; --most) {
      const size_t end = Scanner::End(text, start, classes);
      pieces->push_back(text.substr(start, end - start));
      start = end;
    }
    return start;
  }
};

}  // namespace

absl::Status PreTokenizer::Split(std::string_view text,
                                 std::vector<std::string_view>* pieces) const {
  return SplitSome(text, 0, SIZE_MAX, pieces).status();
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    const std::string& pattern) {
  if (pattern == kLlama3Pattern) {
    return std::make_unique<ScanningPreTokenizer<Llama3Scanner>>();
  }
  if (pattern == kGpt2Pattern) {
    return std::make_unique<ScanningPreTokenizer<Gpt2Scanner>>();
  }
  return CreatePcrePreTokenizer(pattern);
}

}  // namespace caravan::text
