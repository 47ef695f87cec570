// Enumerations that exist in C++ and on the wire are the same.
#include <gtest/gtest.h>

#include <string>

#include "caravan/v1/error.pb.h"
#include "caravan/v1/tokenizer.pb.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "common/text/vocabulary.h"

namespace caravan {
namespace {

TEST(EnumsTest, ErrorReasonsEqualReasons) {
  const auto* const type = v1::ErrorReason_descriptor();
  ASSERT_EQ(type->value_count(), kReasonCount);
  for (int i = 0; i < type->value_count(); ++i) {
    const auto reason = static_cast<Reason>(type->value(i)->number());
    EXPECT_EQ(type->value(i)->name(),
              StrCat("ERROR_REASON_", ReasonName(reason)));
  }
}

TEST(EnumsTest, TokenKindsEqualThoseOfVocabularies) {
  EXPECT_EQ(v1::TOKEN_KIND_NORMAL, static_cast<int>(text::TokenKind::kNormal));
  EXPECT_EQ(v1::TOKEN_KIND_SPECIAL,
            static_cast<int>(text::TokenKind::kSpecial));
  EXPECT_EQ(v1::TOKEN_KIND_BYTE, static_cast<int>(text::TokenKind::kByte));
  EXPECT_EQ(v1::TOKEN_KIND_UNUSED, static_cast<int>(text::TokenKind::kUnused));
  EXPECT_EQ(v1::TokenKind_descriptor()->value_count(), 5);
}

}  // namespace
}  // namespace caravan
