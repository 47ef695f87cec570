#include "gateway/admission/api_keys.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

TEST(ApiKeysTest, WithoutKeysEveryoneMayCall) {
  const ApiKeys keys;
  ASSERT_OK_AND_ASSIGN(const Tenant tenant, keys.Authenticate(""));
  EXPECT_EQ(tenant.name, "");
}

TEST(ApiKeysTest, ReadsLines) {
  ASSERT_OK_AND_ASSIGN(const ApiKeys keys,
                       ApiKeys::Parse("# comment\n\nk1 alice\nk2 bob 2.5\r\n"));
  ASSERT_OK_AND_ASSIGN(const Tenant alice, keys.Authenticate("Bearer k1"));
  EXPECT_EQ(alice.name, "alice");
  EXPECT_EQ(alice.weight, 1);
  ASSERT_OK_AND_ASSIGN(const Tenant bob, keys.Authenticate("bearer k2"));
  EXPECT_EQ(bob.name, "bob");
  EXPECT_EQ(bob.weight, 2.5);
}

TEST(ApiKeysTest, ReadsJson) {
  ASSERT_OK_AND_ASSIGN(
      const ApiKeys keys,
      ApiKeys::Parse(R"([{"key":"k","tenant":"t","weight":3}])"));
  ASSERT_OK_AND_ASSIGN(const Tenant tenant, keys.Authenticate("Bearer k"));
  EXPECT_EQ(tenant.weight, 3);
}

TEST(ApiKeysTest, RefusesUnknownKeysAndOtherSchemes) {
  ASSERT_OK_AND_ASSIGN(const ApiKeys keys, ApiKeys::Parse("k t"));
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer x", "Basic k"}) {
    EXPECT_THAT(keys.Authenticate(header), HasReason(Reason::kUnauthenticated))
        << header;
  }
}

TEST(ApiKeysTest, NamesTheLineThatIsWrong) {
  EXPECT_THAT(ApiKeys::Parse("k t\nlonely"),
              HasReason(Reason::kInvalidField, HasSubstr("line 2")));
  EXPECT_THAT(ApiKeys::Parse("k t -1"),
              HasReason(Reason::kInvalidField, HasSubstr("weight")));
  EXPECT_THAT(ApiKeys::Parse("k t\nk u"),
              HasReason(Reason::kInvalidField, HasSubstr("twice")));
  EXPECT_THAT(ApiKeys::Parse("[{\"key\":\"k\"}]"),
              HasReason(Reason::kInvalidField, HasSubstr("[0]")));
  EXPECT_THAT(ApiKeys::Parse(""), HasReason(Reason::kInvalidField));
}

}  // namespace
}  // namespace caravan::gateway
