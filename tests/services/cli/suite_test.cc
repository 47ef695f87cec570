#include "services/cli/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "services/cli/suite_log.h"
#include "services/cli/table.h"
#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;
using ::testing::Optional;

SuiteOptions DemoOptions() {
  SuiteOptions options;
  options.model = "deploy/demo-model";
  return options;
}

// The argument after `flag`; empty when it is not there.
std::string ValueOf(const ServiceSpec& spec, const std::string& flag) {
  const auto it = std::find(spec.arguments.begin(), spec.arguments.end(), flag);
  if (it == spec.arguments.end() || it + 1 == spec.arguments.end()) return "";
  return *(it + 1);
}

TEST(SuiteOptionsTest, NamesTheFlagThatIsOutOfRange) {
  SuiteOptions options = DemoOptions();
  ASSERT_OK(options.Validate());
  options.workers = 0;
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
  EXPECT_THAT(std::string(options.Validate().message()),
              HasSubstr("--workers must be in [1, 64]; got 0"));
  options = DemoOptions();
  options.http_port = 70000;
  EXPECT_THAT(std::string(options.Validate().message()),
              HasSubstr("--http-port"));
  options = DemoOptions();
  options.model = "no/such/directory";
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--model"));
}

TEST(SuiteTest, TheModelIsNamedAfterItsDirectory) {
  SuiteOptions options = DemoOptions();
  EXPECT_EQ(ModelName(options), "demo-model");
  options.model = "deploy/demo-model/";
  EXPECT_EQ(ModelName(options), "demo-model");
  options.served_model_name = "stories";
  EXPECT_EQ(ModelName(options), "stories");
}

TEST(SuiteTest, TheTokenizerGetsTheFormat) {
  SuiteOptions options = DemoOptions();
  EXPECT_EQ(ValueOf(TokenizerSpec(options, "logs"), "--chat-template"), "");
  options.chat_template = "koala";
  EXPECT_EQ(ValueOf(TokenizerSpec(options, "logs"), "--chat-template"),
            "koala");
}

TEST(SuiteTest, WorkersShareTheCores) {
  SuiteOptions options = DemoOptions();
  options.workers = 3;
  EXPECT_EQ(ThreadsOfWorker(options, /*cores=*/16), 5);
  EXPECT_EQ(ThreadsOfWorker(options, /*cores=*/2), 1);
  options.threads = 7;
  EXPECT_EQ(ThreadsOfWorker(options, /*cores=*/2), 7);
}

TEST(SuiteTest, AWorkerGetsItsModelRouterAndPassedFlags) {
  SuiteOptions options = DemoOptions();
  options.worker_arguments = {"--kv-blocks", "64"};
  const ServiceSpec spec =
      WorkerSpec(options, "/bin", 1, /*cores=*/4, "127.0.0.1:9");
  EXPECT_EQ(spec.name, "worker-2");
  EXPECT_EQ(spec.program, "/bin/caravan-worker");
  EXPECT_EQ(ValueOf(spec, "--router"), "127.0.0.1:9");
  EXPECT_EQ(ValueOf(spec, "--served-model-name"), "demo-model");
  EXPECT_EQ(ValueOf(spec, "--kv-blocks"), "64");
  EXPECT_EQ(spec.arguments.back(), "64");
}

TEST(SuiteTest, StagesOfAReplicaCallTheOneBehindAndEndBeforeIt) {
  SuiteOptions options = DemoOptions();
  options.stages = 3;
  options.workers = 2;
  EXPECT_EQ(ThreadsOfWorker(options, /*cores=*/12), 2);
  const ServiceSpec first =
      StageSpec(options, "/bin", 1, /*stage=*/0, /*cores=*/4, "r:1", "n:2");
  EXPECT_EQ(first.name, "worker-2");
  EXPECT_EQ(ValueOf(first, "--stage"), "0/3");
  EXPECT_EQ(ValueOf(first, "--next"), "n:2");
  EXPECT_EQ(ValueOf(first, "--router"), "r:1");
  const ServiceSpec last =
      StageSpec(options, "/bin", 1, /*stage=*/2, /*cores=*/4, "r:1", "");
  EXPECT_EQ(last.name, "worker-2-stage-2");
  EXPECT_EQ(ValueOf(last, "--stage"), "2/3");
  EXPECT_EQ(ValueOf(last, "--next"), "");
  EXPECT_EQ(ValueOf(last, "--router"), "");  // only the first registers
  EXPECT_LT(first.stop_order, last.stop_order);
  EXPECT_LT(last.stop_order, RouterSpec(options, "/bin").stop_order);
  options.stages = 0;
  EXPECT_THAT(options.Validate(),
              HasReason(Reason::kInvalidField, HasSubstr("--stages")));
}

TEST(SuiteTest, OnlyTheGatewayListensElsewhere) {
  SuiteOptions options = DemoOptions();
  options.listen = "0.0.0.0";
  EXPECT_EQ(ValueOf(GatewaySpec(options, "/bin", "r:1", "t:2"), "--listen"),
            "0.0.0.0");
  EXPECT_EQ(ValueOf(RouterSpec(options, "/bin"), "--listen"), "");
  EXPECT_EQ(ValueOf(TokenizerSpec(options, "/bin"), "--listen"), "");
}

TEST(SuiteLogTest, ReadsLoadingProgress) {
  EXPECT_THAT(LoadPercentOf("2026-01-01T00:00:00.000Z info process=worker "
                            "event=load_progress percent=40"),
              Optional(40));
  EXPECT_FALSE(LoadPercentOf("event=other percent=40").has_value());
}

TEST(SuiteLogTest, WarningsAndForeignLinesDeserveAttention) {
  const std::string time = "2026-01-01T00:00:00.000Z ";
  EXPECT_FALSE(DeservesAttention(time + "info process=router event=x"));
  EXPECT_TRUE(DeservesAttention(time + "warning process=router event=x"));
  EXPECT_TRUE(DeservesAttention("terminate called after throwing"));
}

TEST(TableTest, NumbersStandToTheRight) {
  Table table({"name", "count"});
  table.AddRow({"a", "7"});
  table.AddRow({"longer"});
  EXPECT_EQ(table.ToString(), "name    count\na           7\nlonger\n");
}

}  // namespace
}  // namespace caravan::cli
