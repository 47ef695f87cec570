#include "common/text/utf8.h"

#include <gtest/gtest.h>

#include <string>

#include "common/text/unicode_class.h"

namespace caravan::text {
namespace {

TEST(Utf8Test, EveryCodePointSurvives) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string bytes;
    AppendUtf8(c, &bytes);
    const Utf8Char decoded = DecodeUtf8(bytes);
    ASSERT_EQ(decoded.kind, Utf8Char::Kind::kValid);
    ASSERT_EQ(decoded.code_point, c);
    ASSERT_EQ(decoded.size, static_cast<int>(bytes.size()));
    ASSERT_EQ(Utf8Size(bytes.front()), decoded.size);
  }
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_FALSE(FirstInvalidUtf8("caf\xC3\xA9"));
  EXPECT_EQ(FirstInvalidUtf8("a\x80"), 1u);
  EXPECT_EQ(FirstInvalidUtf8("ab\xC0\xAF"), 2u);        // overlong
  EXPECT_EQ(FirstInvalidUtf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(FirstInvalidUtf8("x\xF0\x9F\x98"), 1u);     // cut off
}

// As Python's bytes.decode("utf-8", "replace").
TEST(Utf8Test, ReplacesEachMaximalInvalidPartOnce) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(ReplaceInvalidUtf8("a\xF0\x9F\x98z"), "a" + r + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82"), r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x80\x80\x41"), r + r + r + "A");
}

TEST(UnicodeClassTest, KnowsTheClassesOfThePatterns) {
  EXPECT_EQ(ClassOf('a'), CharClass::kLetter);
  EXPECT_EQ(ClassOf(0x4E2D), CharClass::kLetter);
  EXPECT_EQ(ClassOf('7'), CharClass::kNumber);
  EXPECT_EQ(ClassOf(0x00BD), CharClass::kNumber);
  EXPECT_EQ(ClassOf(0x85), CharClass::kWhiteSpace);
  EXPECT_EQ(ClassOf(0x3000), CharClass::kWhiteSpace);
  EXPECT_EQ(ClassOf(0x1C), CharClass::kOther);
  EXPECT_EQ(ClassOf(0x0301), CharClass::kOther);
  EXPECT_EQ(ClassOf(0x10FFFF), CharClass::kOther);
}

}  // namespace
}  // namespace caravan::text
