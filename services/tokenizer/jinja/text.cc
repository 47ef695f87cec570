#include "services/tokenizer/jinja/text.h"

#include <string.h>  // memmem

#include <algorithm>
#include <iterator>

#include "common/text/unicode_class.h"
#include "common/text/utf8.h"

namespace caravan::jinja {
namespace {

using text::CharClass;
using text::ClassOf;
using text::DecodeUtf8;
using text::Utf8Size;

struct CaseMapping {
  uint32_t code_point;
  const char* bytes;
};

#include "services/tokenizer/jinja/case_tables.inc"

template <size_t kSize>
const char* Find(const CaseMapping (&table)[kSize], uint32_t code_point) {
  const CaseMapping* const found =
      std::lower_bound(std::begin(table), std::end(table), code_point,
                       [](const CaseMapping& m, uint32_t value) {
                         return m.code_point < value;
                       });
  if (found == std::end(table) || found->code_point != code_point) {
    return nullptr;
  }
  return found->bytes;
}

// One character, in another case.
std::string Convert(std::string_view character, LetterCase letter_case) {
  if (character.size() == 1) {
    const char c = character.front();
    const bool lower = c >= 'a' && c <= 'z';
    const bool upper = c >= 'A' && c <= 'Z';
    if (letter_case == LetterCase::kLower ||
        letter_case == LetterCase::kFolded) {
      return std::string(1, upper ? static_cast<char>(c + 32) : c);
    }
    return std::string(1, lower ? static_cast<char>(c - 32) : c);
  }
  const uint32_t code_point = DecodeUtf8(character).code_point;
  const char* const other =
      letter_case == LetterCase::kUpper    ? Find(kUpper, code_point)
      : letter_case == LetterCase::kLower  ? Find(kLower, code_point)
      : letter_case == LetterCase::kFolded ? Find(kFolded, code_point)
                                           : Find(kTitle, code_point);
  return other == nullptr ? std::string(character) : std::string(other);
}

bool IsStripped(std::string_view character, std::string_view characters) {
  if (characters.empty()) return IsSpace(DecodeUtf8(character).code_point);
  for (size_t i = 0; i < characters.size(); i += Utf8Size(characters[i])) {
    if (characters.substr(i, Utf8Size(characters[i])) == character) return true;
  }
  return false;
}

// Where str.splitlines cuts.
bool IsLineEnd(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
         c == 0x2028 || c == 0x2029;
}

// Where a line ends and the next one begins.
struct Line {
  size_t end;
  size_t next;
};

Line LineAt(std::string_view bytes, size_t begin) {
  for (size_t i = begin; i < bytes.size();) {
    const size_t next = i + Utf8Size(bytes[i]);
    if (bytes.substr(i).starts_with("\r\n")) return {i, i + 2};
    if (IsLineEnd(DecodeUtf8(bytes.substr(i)).code_point)) return {i, next};
    i = next;
  }
  return {bytes.size(), bytes.size()};
}

// Applies `letter_case(index, previous is a letter)` to each character.
template <typename CaseOf>
Text MapCases(const Text& text, CaseOf case_of) {
  Text out;
  const std::string_view bytes = text.bytes();
  bool after_letter = false;
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    const std::string_view character = bytes.substr(i, Utf8Size(bytes[i]));
    out.Append(Convert(character, case_of(i, after_letter)), text.origin(i));
    after_letter =
        ClassOf(DecodeUtf8(character).code_point) == CharClass::kLetter;
  }
  return out;
}

}  // namespace

size_t FindBytes(std::string_view bytes, std::string_view what, size_t from) {
  if (from > bytes.size()) return std::string_view::npos;
  const void* const found = memmem(bytes.data() + from, bytes.size() - from,
                                   what.data(), what.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<const char*>(found) - bytes.data();
}

bool IsSpace(uint32_t code_point) {
  return (code_point >= 0x1C && code_point <= 0x1F) ||
         ClassOf(code_point) == CharClass::kWhiteSpace;
}

void Text::Append(const Text& other) {
  bytes_.append(other.bytes_);
  origins_.append(other.origins_);
}

void Text::Append(std::string_view bytes, Origin origin) {
  bytes_.append(bytes);
  origins_.append(bytes.size(), static_cast<char>(origin));
}

Text Text::Slice(size_t begin, size_t size) const {
  Text slice;
  slice.bytes_ = bytes_.substr(begin, size);
  slice.origins_ = origins_.substr(begin, size);
  return slice;
}

std::vector<size_t> Text::CharacterOffsets() const {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < bytes_.size(); i += Utf8Size(bytes_[i])) {
    offsets.push_back(i);
  }
  offsets.push_back(bytes_.size());
  return offsets;
}

Text Text::Strip(bool left, bool right, std::string_view characters) const {
  const std::string_view all = bytes_;
  size_t begin = 0;
  size_t end = all.size();
  while (left && begin < end) {
    const size_t size = Utf8Size(all[begin]);
    if (!IsStripped(all.substr(begin, size), characters)) break;
    begin += size;
  }
  while (right && begin < end) {
    size_t last = end - 1;
    while (last > begin && (all[last] & 0xC0) == 0x80) --last;
    if (!IsStripped(all.substr(last, end - last), characters)) break;
    end = last;
  }
  return Slice(begin, end - begin);
}

size_t Text::CountOf(std::string_view what) const {
  if (what.empty()) return CountCharacters() + 1;
  size_t count = 0;
  for (size_t at = FindBytes(bytes_, what); at != std::string::npos;
       at = FindBytes(bytes_, what, at + what.size())) {
    ++count;
  }
  return count;
}

size_t Text::CountWords() const {
  const std::string_view bytes = bytes_;
  size_t count = 0;
  bool in_word = false;
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    const bool space = IsSpace(DecodeUtf8(bytes.substr(i)).code_point);
    if (!space && !in_word) ++count;
    in_word = !space;
  }
  return count;
}

size_t Text::CountCharacters() const {
  return std::count_if(bytes_.begin(), bytes_.end(),
                       [](char c) { return (c & 0xC0) != 0x80; });
}

std::vector<Text> Text::Split(std::string_view separator, int64_t limit) const {
  std::vector<Text> parts;
  size_t begin = 0;
  for (size_t at = FindBytes(bytes_, separator);
       at != std::string::npos &&
       (limit < 0 || static_cast<int64_t>(parts.size()) < limit);
       at = FindBytes(bytes_, separator, begin)) {
    parts.push_back(Slice(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(Slice(begin, bytes_.size() - begin));
  return parts;
}

std::vector<Text> Text::SplitRight(std::string_view separator,
                                   int64_t limit) const {
  std::vector<Text> parts;
  size_t end = bytes_.size();
  while ((limit < 0 || static_cast<int64_t>(parts.size()) < limit) &&
         end >= separator.size()) {
    const size_t at = bytes_.rfind(separator, end - separator.size());
    if (at == std::string::npos) break;
    const size_t after = at + separator.size();
    parts.push_back(Slice(after, end - after));
    end = at;
  }
  parts.push_back(Slice(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Text> Text::SplitWhiteSpace(int64_t limit) const {
  std::vector<Text> parts;
  Text rest = Strip(/*left=*/true, /*right=*/false);
  const std::string_view bytes = rest.bytes_;
  size_t i = 0;
  while (i < bytes.size()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      parts.push_back(rest.Slice(i, bytes.size() - i).Strip(false, true));
      return parts;
    }
    const size_t begin = i;
    const auto space_at = [&](size_t at) {
      return IsSpace(DecodeUtf8(bytes.substr(at)).code_point);
    };
    while (i < bytes.size() && !space_at(i)) i += Utf8Size(bytes[i]);
    parts.push_back(rest.Slice(begin, i - begin));
    while (i < bytes.size() && space_at(i)) i += Utf8Size(bytes[i]);
  }
  return parts;
}

Text Text::Replace(std::string_view from, const Text& to, int64_t limit) const {
  Text out;
  size_t begin = 0;
  int64_t count = 0;
  const auto more = [&] { return limit < 0 || count < limit; };
  if (from.empty()) {
    const std::vector<size_t> offsets = CharacterOffsets();
    for (size_t i = 0; i < offsets.size(); ++i) {
      if (more()) out.Append(to);
      ++count;
      if (i + 1 == offsets.size()) break;
      out.Append(Slice(offsets[i], offsets[i + 1] - offsets[i]));
    }
    return out;
  }
  for (size_t at = FindBytes(bytes_, from); at != std::string::npos && more();
       at = FindBytes(bytes_, from, begin)) {
    out.Append(Slice(begin, at - begin));
    out.Append(to);
    begin = at + from.size();
    ++count;
  }
  out.Append(Slice(begin, bytes_.size() - begin));
  return out;
}

std::vector<Text::Run> Text::Runs() const {
  std::vector<Run> runs;
  size_t begin = 0;
  while (begin < bytes_.size()) {
    size_t end = origins_.find_first_not_of(origins_[begin], begin);
    if (end == std::string::npos) end = bytes_.size();
    runs.push_back(
        {std::string_view(bytes_).substr(begin, end - begin), origin(begin)});
    begin = end;
  }
  return runs;
}

Text ToCase(const Text& text, LetterCase letter_case) {
  return MapCases(text, [&](size_t, bool) { return letter_case; });
}

Text Capitalize(const Text& text) {
  return MapCases(text, [](size_t index, bool) {
    return index == 0 ? LetterCase::kTitle : LetterCase::kLower;
  });
}

Text SwapCase(const Text& text) {
  Text out;
  const std::string_view bytes = text.bytes();
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    const std::string_view character = bytes.substr(i, Utf8Size(bytes[i]));
    const std::string lower = Convert(character, LetterCase::kLower);
    const std::string upper = Convert(character, LetterCase::kUpper);
    // Letters of title case are neither.
    if (lower != character && upper != character) {
      out.Append(character, text.origin(i));
    } else {
      out.Append(lower != character ? lower : upper, text.origin(i));
    }
  }
  return out;
}

bool IsTitle(const Text& text) {
  const std::string_view bytes = text.bytes();
  bool any = false;
  bool after_cased = false;
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    const std::string_view character = bytes.substr(i, Utf8Size(bytes[i]));
    const bool lower = Convert(character, LetterCase::kUpper) != character;
    const bool upper = Convert(character, LetterCase::kLower) != character;
    if (upper && after_cased) return false;
    if (lower && !upper && !after_cased) return false;
    any = any || lower || upper;
    after_cased = lower || upper;
  }
  return any;
}

std::vector<Text> LinesOf(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    const Line line = LineAt(text.bytes(), begin);
    const size_t end = keep_ends ? line.next : line.end;
    lines.push_back(text.Slice(begin, end - begin));
    begin = line.next;
  }
  return lines;
}

size_t CountLines(const Text& text) {
  size_t count = 0;
  for (size_t begin = 0; begin < text.size(); ++count) {
    begin = LineAt(text.bytes(), begin).next;
  }
  return count;
}

Text TitleCase(const Text& text) {
  return MapCases(text, [](size_t, bool after_letter) {
    return after_letter ? LetterCase::kLower : LetterCase::kTitle;
  });
}

}  // namespace caravan::jinja
