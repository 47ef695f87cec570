#include "common/strings.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

TEST(StringsTest, StandardViewsConcatenate) {
  const std::string_view view = "blocks";
  EXPECT_EQ(StrCat(3, " ", view, std::string("!")), "3 blocks!");
  std::string out = "a";
  StrAppend(&out, view, 1);
  EXPECT_EQ(out, "ablocks1");
}

TEST(StringsTest, ViewsConvertWithoutCopying) {
  const std::string text = "text";
  EXPECT_EQ(ToStd(ToAbsl(text)).data(), text.data());
  EXPECT_EQ(ToAbsl(text).size(), 4u);
}

}  // namespace
}  // namespace caravan
