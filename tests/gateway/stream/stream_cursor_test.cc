#include "gateway/stream/stream_cursor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::testing::HasSubstr;

StreamCursor Sample() {
  StreamCursor cursor;
  cursor.request_tag = 0x0123456789abcdef;
  cursor.seed = ~uint64_t{0};
  cursor.identity_tag = 5;
  cursor.introduced = true;
  cursor.choices = {{0, 0, false}, {127, 128, true}, {1 << 30, 1 << 30, true}};
  return cursor;
}

TEST(StreamCursorTest, ComesBackAsItWas) {
  const std::string text = EncodeCursor(Sample());
  EXPECT_EQ(text.find_first_of("\n\r :"), std::string::npos);
  ASSERT_OK_AND_ASSIGN(const StreamCursor cursor, DecodeCursor("id", text));
  EXPECT_EQ(cursor, Sample());
}

TEST(StreamCursorTest, AnythingElseIsRefusedByName) {
  const std::string text = EncodeCursor(Sample());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(DecodeCursor("id", text.substr(0, size)),
                testing::HasReason(Reason::kInvalidField, HasSubstr("id")))
        << size;
  }
  EXPECT_FALSE(DecodeCursor("id", text + "AAAA").ok());
  EXPECT_FALSE(DecodeCursor("id", std::string(5000, 'A')).ok());
  EXPECT_FALSE(DecodeCursor("id", "?").ok());
}

}  // namespace
}  // namespace caravan::gateway
