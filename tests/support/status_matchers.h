// EXPECT_OK, ASSERT_OK, ASSERT_OK_AND_ASSIGN and HasReason for statuses.
#ifndef CARAVAN_TESTS_SUPPORT_STATUS_MATCHERS_H_
#define CARAVAN_TESTS_SUPPORT_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"

namespace caravan::testing {

inline const absl::Status& StatusOf(const absl::Status& s) { return s; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& s) {
  return s.status();
}

// HasReason(Reason::kKvExhausted), HasReason(reason, HasSubstr("3 blocks")).
MATCHER_P(HasReason, reason,
          std::string("has reason ") + std::string(ReasonName(reason))) {
  *result_listener << StatusOf(arg).ToString();
  return !StatusOf(arg).ok() && ReasonOf(StatusOf(arg)) == reason;
}
MATCHER_P2(HasReason, reason, message_matcher, "has reason and message") {
  *result_listener << StatusOf(arg).ToString();
  return !StatusOf(arg).ok() && ReasonOf(StatusOf(arg)) == reason &&
         ::testing::ExplainMatchResult(message_matcher,
                                       std::string(StatusOf(arg).message()),
                                       result_listener);
}
MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

}  // namespace caravan::testing

#define EXPECT_OK(expr) EXPECT_THAT((expr), ::caravan::testing::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT((expr), ::caravan::testing::IsOk())
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL_(           \
      CARAVAN_STATUS_CONCAT_(caravan_test_status_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL_(result, lhs, expr) \
  auto result = (expr);                               \
  ASSERT_OK(result);                                  \
  lhs = *std::move(result)

#endif  // CARAVAN_TESTS_SUPPORT_STATUS_MATCHERS_H_
