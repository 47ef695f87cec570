#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "services/cli/load_plan.h"
#include "services/cli/load_report.h"
#include "services/cli/load_runner.h"
#include "services/cli/sse_reader.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::ManualClock;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::SizeIs;

LoadPlanOptions Options() {
  LoadPlanOptions options;
  options.request_count = 100;
  options.prompt_tokens = {10, 20};
  options.output_tokens = {5, 5};
  options.seed = 7;
  return options;
}

TEST(LengthRangeTest, ReadsOneLengthOrTwo) {
  ASSERT_OK_AND_ASSIGN(const LengthRange one, ParseLengthRange("--f", "128"));
  EXPECT_EQ(one.least, 128);
  EXPECT_EQ(one.most, 128);
  ASSERT_OK_AND_ASSIGN(const LengthRange two, ParseLengthRange("--f", "1:64"));
  EXPECT_EQ(two.least, 1);
  EXPECT_EQ(two.most, 64);
}

TEST(LengthRangeTest, RefusesWhatIsNoLength) {
  for (const char* text : {"", "0", "-1", "x", "1:", ":2", "3:2", "1:2:3",
                           "1000001", "99999999999999"}) {
    EXPECT_THAT(ParseLengthRange("--prompt-tokens", text),
                HasReason(Reason::kInvalidField))
        << text;
  }
}

TEST(LoadPlanTest, TheSeedDecidesEverything) {
  const LoadPlanOptions options = Options();
  const auto a = MakeLoadPlan(options);
  const auto b = MakeLoadPlan(options);
  ASSERT_THAT(a, SizeIs(100));
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].prompt_tokens, b[i].prompt_tokens);
    EXPECT_EQ(a[i].seed, b[i].seed);
    EXPECT_EQ(PromptOf(options, a[i]), PromptOf(options, b[i]));
    EXPECT_THAT(a[i].prompt_tokens, AllOf(Ge(10), Le(20)));
    EXPECT_EQ(a[i].output_tokens, 5);
    EXPECT_EQ(a[i].arrival, absl::ZeroDuration());
  }
  EXPECT_NE(a[0].seed, a[1].seed);
}

TEST(LoadPlanTest, ArrivalsOfAnOpenLoopHaveTheRateAsked) {
  LoadPlanOptions options = Options();
  options.request_count = 10000;
  options.rate = 50;
  const auto plan = MakeLoadPlan(options);
  EXPECT_TRUE(std::is_sorted(
      plan.begin(), plan.end(),
      [](const auto& a, const auto& b) { return a.arrival < b.arrival; }));
  EXPECT_NEAR(absl::ToDoubleSeconds(plan.back().arrival), 10000 / 50.0, 10);
}

TEST(LoadPlanTest, PromptsShareTheirPrefixAndStayBelowTheVocabulary) {
  LoadPlanOptions options = Options();
  options.shared_prefix_tokens = 8;
  options.vocabulary = 32;
  const auto plan = MakeLoadPlan(options);
  const auto a = PromptOf(options, plan[0]);
  const auto b = PromptOf(options, plan[1]);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 8, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 8, a.begin() + 10, b.begin() + 8));
  EXPECT_THAT(a, Each(AllOf(Ge(0), Le(31))));
}

// Answers at once: each request takes 10 ms to its first token and 1 ms to
// each one after it, on the manual clock.
class FakeLoadClient final : public LoadClient {
 public:
  explicit FakeLoadClient(ManualClock& clock) : clock_(clock) {}

  void Start(const LoadRequest& request, OnTokens on_tokens,
             OnDone on_done) override {
    ++started;
    if (static_cast<int>(request.prompt_ids.size()) == refused_length) {
      on_done(MakeError(Reason::kQueueFull, "full"));
      return;
    }
    clock_.Advance(absl::Milliseconds(9));
    for (int i = 0; i < request.output_tokens; ++i) {
      clock_.Advance(absl::Milliseconds(1));
      on_tokens(1);
    }
    on_done(absl::OkStatus());
  }

  int started = 0;
  int refused_length = -1;

 private:
  ManualClock& clock_;
};

TEST(LoadRunnerTest, TakesTheTimesOfEveryRequest) {
  ManualClock clock;
  FakeLoadClient client(clock);
  const LoadResult result =
      RunLoad(Options(), /*concurrency=*/1, client, clock);
  EXPECT_EQ(client.started, 100);
  ASSERT_THAT(result.outcomes, SizeIs(100));
  for (const LoadOutcome& outcome : result.outcomes) {
    EXPECT_EQ(outcome.first_token, absl::Milliseconds(10));
    EXPECT_THAT(outcome.gaps, SizeIs(4));
    EXPECT_THAT(outcome.gaps, Each(absl::Milliseconds(1)));
    EXPECT_EQ(outcome.total, absl::Milliseconds(14));
  }
  const LoadReport report = MakeLoadReport(result);
  EXPECT_EQ(report.succeeded, 100);
  EXPECT_EQ(report.output_tokens, 500);
  EXPECT_DOUBLE_EQ(report.first_token.p50_ms, 10);
  EXPECT_DOUBLE_EQ(report.total.p99_ms, 14);
  EXPECT_NEAR(report.output_tokens_per_second, 500 / 1.4, 1e-6);
}

TEST(LoadRunnerTest, FailuresAreCountedByReason) {
  ManualClock clock;
  FakeLoadClient client(clock);
  client.refused_length = 10;
  LoadPlanOptions options = Options();
  options.prompt_tokens = {10, 10};
  const LoadResult result = RunLoad(options, /*concurrency=*/4, client, clock);
  const LoadReport report = MakeLoadReport(result);
  EXPECT_EQ(report.failed, 100);
  EXPECT_EQ(report.failures.at("QUEUE_FULL"), 100);
  EXPECT_EQ(report.first_token.p50_ms, 0);
  const auto json = ParseJson(ToJson(report, result.outcomes));
  EXPECT_EQ(json["failures"]["QUEUE_FULL"], 100);
  EXPECT_EQ(json["requests"][99]["failed"], "QUEUE_FULL");
  EXPECT_THAT(ToText(report), HasSubstr("failed with QUEUE_FULL: 100"));
}

TEST(PercentilesTest, AreByNearestRank) {
  std::vector<absl::Duration> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(absl::Milliseconds(i));
  const Percentiles result = PercentilesOf(std::move(samples));
  EXPECT_DOUBLE_EQ(result.p50_ms, 50);
  EXPECT_DOUBLE_EQ(result.p90_ms, 90);
  EXPECT_DOUBLE_EQ(result.p99_ms, 99);
  EXPECT_DOUBLE_EQ(result.mean_ms, 50.5);
}

TEST(SseReaderTest, PiecesOfAnySizeGiveTheSameEvents) {
  const std::string text =
      "data: {\"a\": 1}\n\ndata:two\r\n\r\n: comment\n\ndata: [DONE]\n\n";
  for (size_t size = 1; size <= text.size(); ++size) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < text.size(); at += size) {
      reader.Add(std::string_view(text).substr(at, size),
                 [&](std::string_view data) { events.emplace_back(data); });
    }
    EXPECT_THAT(events, ElementsAre("{\"a\": 1}", "two", "[DONE]"));
  }
}

}  // namespace
}  // namespace caravan::cli
