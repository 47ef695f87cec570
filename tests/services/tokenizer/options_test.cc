#include "services/tokenizer/options.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

absl::StatusOr<std::optional<TokenizerOptions>> Parse(
    std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "caravan-tokenizer");
  return ParseTokenizerOptions(static_cast<int>(arguments.size()),
                               arguments.data());
}

TEST(TokenizerOptionsTest, ReadsRepeatedModels) {
  const auto options = Parse({"--model", "a", "--model", "b=c", "--port", "0"});
  ASSERT_OK(options);
  EXPECT_THAT((*options)->models, ::testing::ElementsAre("a", "b=c"));
  EXPECT_EQ((*options)->port, 0);
  EXPECT_EQ((*options)->metrics_port, 9482);
}

TEST(TokenizerOptionsTest, WrongFlagsAreNamed) {
  EXPECT_THAT(Parse({}),
              HasReason(Reason::kInvalidField, HasSubstr("--model")));
  EXPECT_THAT(Parse({"--model", "a", "--port", "70000"}),
              HasReason(Reason::kInvalidField, HasSubstr("--port")));
  EXPECT_THAT(Parse({"--model", "a", "--grace", "-1"}),
              HasReason(Reason::kInvalidField, HasSubstr("--grace")));
  EXPECT_THAT(Parse({"--model", "a", "--log-level", "loud"}),
              HasReason(Reason::kInvalidField, HasSubstr("--log-level")));
  EXPECT_THAT(Parse({"--modell", "a"}),
              HasReason(Reason::kInvalidField, HasSubstr("--modell")));
}

}  // namespace
}  // namespace caravan::tokenizer
