#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace caravan {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// What `write` puts on standard error.
template <typename Write>
std::string Captured(std::string_view level, Write write) {
  ::testing::internal::CaptureStderr();
  InitLog("log_test", level);
  write();
  return ::testing::internal::GetCapturedStderr();
}

TEST(LogTest, OneEventIsOneLineOfPairs) {
  const std::string line = Captured("info", [] {
    LogInfo("worker_registered", {{"worker_id", "w1"}, {"epoch", 7}});
  });
  EXPECT_THAT(line, AllOf(HasSubstr(" info process=log_test "),
                          EndsWith("event=worker_registered worker_id=w1 "
                                   "epoch=7\n")));
}

TEST(LogTest, ValuesCannotBreakTheLine) {
  const std::string line = Captured("info", [] {
    LogInfo("e", {{"text", "two words\n\"quoted\" a=b"}, {"empty", ""}});
  });
  EXPECT_THAT(line, EndsWith("text=\"two words\\n\\\"quoted\\\" a=b\" "
                             "empty=\"\"\n"));
}

TEST(LogTest, WritesStatusesAndBooleansInWords) {
  const std::string line = Captured("info", [] {
    LogError("e", {{"ok", true}, {"error", absl::AbortedError("late")}});
  });
  EXPECT_THAT(line, EndsWith("event=e ok=true error=\"ABORTED: late\"\n"));
}

TEST(LogTest, LevelsBelowTheSetOneAreSilent) {
  EXPECT_EQ(Captured("warning", [] { LogInfo("quiet", {}); }), "");
  EXPECT_THAT(Captured("debug", [] { LogDebug("loud", {}); }),
              HasSubstr("event=loud"));
}

TEST(LogTest, WarningIsALevel) {
  EXPECT_THAT(Captured("warning", [] { LogWarning("degraded", {}); }),
              HasSubstr(" warning "));
}

TEST(LogTest, SaysWhetherDebugLinesAreWritten) {
  InitLog("log_test", "info");
  EXPECT_FALSE(DebugIsLogged());
  InitLog("log_test", "debug");
  EXPECT_TRUE(DebugIsLogged());
  InitLog("log_test", "info");
}

}  // namespace
}  // namespace caravan
