#include "worker/bench/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/json.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/bench/engine_report.h"

namespace caravan::worker::bench {
namespace {

using caravan::testing::HasReason;
using caravan::testing::RepositoryPath;

EngineBenchOptions Small() {
  EngineBenchOptions options;
  options.model_directory = RepositoryPath("deploy/demo-model");
  options.cpu.threads = 2;
  options.activations = "fp32";
  options.kv = "fp32";
  options.batches = {1, 3};
  options.contexts = {20};
  options.prefill_tokens = 40;
  options.prompt_tokens = 9;
  options.output_tokens = 6;
  options.rules = {.wanted = 2, .most_attempts = 8, .most_difference = 1e9};
  options.sample_seconds = 0;
  options.probe_seconds = 0;
  options.probe_bytes = size_t{4} << 20;
  return options;
}

TEST(EngineBenchTest, ReportsEveryPointBesideItsCeilings) {
  std::vector<std::string> lines;
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(Small(), [&](const std::string& line) {
                         lines.push_back(line);
                       }));
  ASSERT_EQ(report.points.size(), 4u);
  EXPECT_EQ(lines.size(), 4u);
  for (const PointReport& point : report.points) {
    EXPECT_EQ(point.kept_count, 2);
    EXPECT_TRUE(point.complete);
    EXPECT_GT(point.tokens_per_second, 0);
    EXPECT_GT(point.read_ceiling, 0);
    EXPECT_GT(point.operations_ceiling, 0);
    EXPECT_GT(point.operations_share, 0);
  }
  EXPECT_GT(report.machine.bf16, 0);
  EXPECT_GT(report.machine.int8, 0);
  EXPECT_EQ(report.arithmetic, Arithmetic::kFp32);
  EXPECT_TRUE(report.whole.empty());
  EXPECT_GT(report.load.seconds, 0);
  EXPECT_GT(report.load.floor_seconds, 0);
  EXPECT_GT(report.load.peak_bytes, report.load.packed_bytes);
}

TEST(EngineBenchTest, TextAndJsonNameThePoints) {
  EngineBenchOptions options = Small();
  options.whole_runs = 1;
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(options, nullptr));
  EXPECT_THAT(ToText(report), ::testing::HasSubstr("a:fp32/kv:fp32"));
  EXPECT_THAT(ToText(report), ::testing::HasSubstr("cliff"));
  const nlohmann::json json = ParseJson(ToJson(report));
  ASSERT_EQ(json["points"].size(), 4u);
  EXPECT_EQ(json["points"][1]["streams"], 3);
  EXPECT_EQ(json["points"][2]["prompt_tokens"], 20);
  EXPECT_EQ(json["points"][3]["kind"], "prefill");
  EXPECT_GT(json["whole"][1]["tokens_per_second"].get<double>(), 0);
}

TEST(EngineBenchTest, EachTurnMeasuresEveryPointAnew) {
  EngineBenchOptions options = Small();
  options.rules.wanted = 1;
  int turns = 0;
  std::vector<EngineBenchReport> reports;
  ASSERT_OK(RunEngineBenchTurns(
      options, [&] { return ++turns <= 2; },
      [&](const EngineBenchReport& report) { reports.push_back(report); }));
  ASSERT_EQ(reports.size(), 2u);
  for (const EngineBenchReport& report : reports) {
    ASSERT_EQ(report.points.size(), 4u);
    for (const PointReport& point : report.points) {
      EXPECT_EQ(point.kept_count, 1);
      EXPECT_GT(point.tokens_per_second, 0);
    }
  }
}

// Of the demo model's shape: what a step reads and does at least follows from
// the layout.
TEST(EngineBenchTest, FloorsFollowFromTheShape) {
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(Small(), nullptr));
  EXPECT_GT(report.prefill_operations, 0);
  EXPECT_LT(report.prefill_operations,
            2 * static_cast<double>(report.parameters));
  EXPECT_GT(report.step_bytes, report.prefill_operations);
  EXPECT_GT(report.kv_position_bytes, 0);
}

TEST(EngineBenchTest, ProbesThatNeverAgreeEndAfterBoundedAttempts) {
  EngineBenchOptions options = Small();
  options.contexts = {};
  options.batches = {1};
  options.prefill_tokens = 0;
  options.rules = {.wanted = 2, .most_attempts = 3, .most_difference = -1};
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(options, nullptr));
  ASSERT_EQ(report.points.size(), 1u);
  EXPECT_EQ(report.points[0].dropped_count, 3);
  EXPECT_FALSE(report.points[0].complete);
  EXPECT_THAT(ToText(report), ::testing::HasSubstr("too few"));
}

TEST(EngineBenchTest, WeightsAreQuantizedAtLoad) {
  EngineBenchOptions options = Small();
  options.contexts = {};
  options.batches = {1};
  options.prefill_tokens = 0;
  options.weights = "q8_0";
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(options, nullptr));
  EXPECT_THAT(report.checkpoint, ::testing::HasSubstr("converted: "));
}

TEST(EngineBenchTest, RefusesFieldsOutOfRange) {
  EngineBenchOptions options = Small();
  options.output_tokens = 1;
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
  options = Small();
  options.batches = {0};
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
  options = Small();
  options.rules.most_attempts = 1;
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
  options = Small();
  options.batches = {};
  options.contexts = {};
  options.prefill_tokens = 0;
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
}

}  // namespace
}  // namespace caravan::worker::bench
