// Text that knows where each of its bytes came from.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_TEXT_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan::jinja {

// The template's author may write special tokens; a value's may not.
enum class Origin : char { kValue = 0, kTemplate = 1 };

// UTF-8 with an origin for each byte. Positions and counts are in characters
// where a function says so, else in bytes.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, Origin origin)
      : bytes_(bytes), origins_(bytes.size(), static_cast<char>(origin)) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  Origin origin(size_t index) const {
    return static_cast<Origin>(origins_[index]);
  }

  void Append(const Text& other);
  void Append(std::string_view bytes, Origin origin);
  Text Slice(size_t begin, size_t size) const;

  // Offsets of the beginnings of all characters, and the size at the end.
  std::vector<size_t> CharacterOffsets() const;

  // Without the white space (or the characters in `characters`, if not empty)
  // at the ends.
  Text Strip(bool left, bool right, std::string_view characters = {}) const;

  // How many there are, without counting one twice.
  size_t CountOf(std::string_view what) const;
  // How many parts SplitWhiteSpace gives without a limit.
  size_t CountWords() const;
  size_t CountCharacters() const;

  // Parts between `separator`, which is not empty; at most `limit` cuts, or all
  // if negative.
  std::vector<Text> Split(std::string_view separator, int64_t limit) const;
  // The same from the right.
  std::vector<Text> SplitRight(std::string_view separator, int64_t limit) const;
  // Parts between runs of white space.
  std::vector<Text> SplitWhiteSpace(int64_t limit) const;

  Text Replace(std::string_view from, const Text& to, int64_t limit) const;

  // Stretches of one origin, in order.
  struct Run {
    std::string_view bytes;
    Origin origin;
  };
  std::vector<Run> Runs() const;

 private:
  std::string bytes_;
  std::string origins_;  // one Origin for each byte
};

// Where `what` begins in `bytes`, not before `from`, or npos; in linear time.
size_t FindBytes(std::string_view bytes, std::string_view what,
                 size_t from = 0);

// What Python's str.isspace and the \s of its patterns take for white space.
bool IsSpace(uint32_t code_point);

enum class LetterCase { kUpper, kLower, kTitle, kFolded };

// The whole text in upper or lower case (full mappings, as Python's), keeping
// the origins. kTitle is for single characters.
Text ToCase(const Text& text, LetterCase letter_case);

// First letter of the text, or of each word, in title case; others lower.
Text Capitalize(const Text& text);
Text TitleCase(const Text& text);

// Upper case where it was lower, and the other way round.
Text SwapCase(const Text& text);

// As str.istitle: words begin with a capital and go on without.
bool IsTitle(const Text& text);

// As str.splitlines, which knows more line ends than \n.
std::vector<Text> LinesOf(const Text& text, bool keep_ends);
size_t CountLines(const Text& text);

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_TEXT_H_
