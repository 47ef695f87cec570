#include "common/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace caravan {
namespace {

TEST(JsonTest, TextThatIsNotJsonIsDiscarded) {
  for (const char* const text : {"", "{", "[1,]", "{\"a\":1} b", "nul"}) {
    EXPECT_TRUE(ParseJson(text).is_discarded()) << text;
    EXPECT_TRUE(ParseOrderedJson(text).is_discarded()) << text;
  }
}

TEST(JsonTest, MembersKeepTheOrderOfTheTextWhereItIsAskedFor) {
  const std::string text = R"({"b":1,"a":{"d":2,"c":3}})";
  EXPECT_EQ(DumpJson(ParseOrderedJson(text)), text);
  EXPECT_EQ(DumpJson(ParseJson(text)), R"({"a":{"c":3,"d":2},"b":1})");
}

TEST(JsonTest, AnIndentMakesLines) {
  EXPECT_EQ(DumpJson(ParseJson(R"({"a":[1]})"), 2),
            "{\n  \"a\": [\n    1\n  ]\n}");
}

TEST(JsonTest, BytesThatAreNotUtf8AreReplaced) {
  EXPECT_EQ(DumpJson(nlohmann::json("a\xff"
                                    "b")),
            "\"a\ufffdb\"");
}

}  // namespace
}  // namespace caravan
