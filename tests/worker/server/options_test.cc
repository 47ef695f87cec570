#include "worker/server/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Parses and returns the exit code, -1 for none.
int Parse(std::vector<std::string> flags, WorkerOptions* options) {
  flags.insert(flags.begin(), "caravan-worker");
  std::vector<char*> argv;
  for (std::string& flag : flags) argv.push_back(flag.data());
  return ParseOptions(static_cast<int>(argv.size()), argv.data(), options)
      .value_or(-1);
}

TEST(WorkerOptionsTest, FlagsReachTheirFields) {
  WorkerOptions options;
  ASSERT_EQ(Parse({"--model",
                   "/m",
                   "--router",
                   "a:1,b:2",
                   "--threads",
                   "3",
                   "--kv-memory",
                   "2MiB",
                   "--override",
                   "rope_theta=5",
                   "--override",
                   "vocab_size=7",
                   "--grace",
                   "1.5",
                   "--port",
                   "0",
                   "--depth",
                   "2",
                   "--no-prefix-cache",
                   "--null-model",
                   "--tls-cert",
                   "c"},
                  &options),
            -1);
  EXPECT_EQ(options.model_directory, "/m");
  EXPECT_THAT(options.routers, ElementsAre("a:1", "b:2"));
  EXPECT_EQ(options.threads, 3);
  EXPECT_EQ(options.kv_memory_bytes, 2 << 20);
  EXPECT_THAT(options.overrides, ElementsAre("rope_theta=5", "vocab_size=7"));
  EXPECT_EQ(options.grace, absl::Milliseconds(1500));
  EXPECT_EQ(options.server.port, 0);
  EXPECT_EQ(options.depth, 2);
  EXPECT_FALSE(options.prefix_cache);
  EXPECT_TRUE(options.null_model);
  EXPECT_EQ(options.server.tls.certificate_file, "c");
}

TEST(WorkerOptionsTest, AnOverrideWithCommasIsOne) {
  WorkerOptions options;
  const std::string scaling = R"(rope_scaling={"type":"linear","factor":2.0})";
  ASSERT_EQ(Parse({"--model", "/m", "--override", scaling}, &options), -1);
  EXPECT_THAT(options.overrides, ElementsAre(scaling));
}

TEST(WorkerOptionsTest, HelpEndsWithZeroAndNonsenseWithout) {
  WorkerOptions options;
  EXPECT_EQ(Parse({"--help"}, &options), 0);
  EXPECT_GT(Parse({"--modle", "/m"}, &options), 0);
  EXPECT_GT(Parse({}, &options), 0);
  EXPECT_GT(Parse({"--model", "/m", "--threads", "many"}, &options), 0);
  EXPECT_GT(Parse({"--model", "/m", "--threads", "-1"}, &options), 0);
}

TEST(WorkerOptionsTest, AStageOfSeveralIsOnePlanDeeperThanTheyAreMany) {
  WorkerOptions options;
  EXPECT_EQ(options.EffectiveDepth(), 1);
  ASSERT_EQ(
      Parse({"--model", "/m", "--stage", "1/3", "--next", "h:9"}, &options),
      -1);
  EXPECT_EQ(options.stage, (Stage{1, 3}));
  EXPECT_EQ(options.next, "h:9");
  EXPECT_EQ(options.EffectiveDepth(), 4);
  EXPECT_GT(Parse({"--model", "/m", "--stage", "1"}, &options), 0);
  EXPECT_GT(Parse({"--model", "/m", "--stage", "1/2x"}, &options), 0);
}

TEST(WorkerOptionsTest, BadValuesAreRefusedByFlag) {
  const auto refusal = [](auto spoil) {
    WorkerOptions options;
    options.model_directory = "/m";
    EXPECT_OK(options.Validate());
    spoil(options);
    return options.Validate();
  };
  using O = WorkerOptions;
  const auto bad = [](const char* flag) {
    return HasReason(Reason::kInvalidField, HasSubstr(flag));
  };
  EXPECT_THAT(refusal([](O& o) { o.model_directory = ""; }), bad("--model"));
  EXPECT_THAT(refusal([](O& o) { o.device = "tpu"; }), bad("--device"));
  EXPECT_THAT(refusal([](O& o) { o.profile = "slow"; }), bad("--profile"));
  EXPECT_THAT(refusal([](O& o) { o.activations = "fp4"; }),
              bad("--activations"));
  EXPECT_THAT(refusal([](O& o) { o.kv = "int4"; }), bad("--kv"));
  EXPECT_THAT(refusal([](O& o) { o.weights = "q2_k"; }), bad("--weights"));
  EXPECT_THAT(refusal([](O& o) { o.generation_config = "no"; }),
              bad("--generation-config"));
  EXPECT_THAT(refusal([](O& o) { o.max_running = 0; }), bad("--max-running"));
  EXPECT_THAT(
      refusal([](O& o) { o.max_prefill_chunk = o.max_prefill_tokens + 1; }),
      bad("--max-prefill-chunk"));
  EXPECT_THAT(
      refusal([](O& o) { o.max_prefill_tokens = o.max_step_tokens + 1; }),
      bad("--max-prefill-tokens"));
  EXPECT_THAT(refusal([](O& o) { o.max_prefill_tokens = 0; }),
              bad("--max-prefill-tokens"));
  EXPECT_THAT(refusal([](O& o) { o.depth = 9; }), bad("--depth"));
  EXPECT_THAT(refusal([](O& o) { o.ranks = 9; }), bad("--ranks"));
  EXPECT_THAT(refusal([](O& o) {
                o.ranks = 4;
                o.threads = 3;
              }),
              bad("--threads"));
  EXPECT_THAT(refusal([](O& o) { o.stage = {0, 2}; }), bad("--next"));
  EXPECT_THAT(refusal([](O& o) { o.next = "a:1"; }), bad("--next"));
  EXPECT_THAT(refusal([](O& o) { o.stage = {2, 2}; }), bad("--stage"));
  EXPECT_THAT(refusal([](O& o) { o.stage = {0, 0}; }), bad("--stage"));
  EXPECT_THAT(refusal([](O& o) {
                o.stage = {1, 2};
                o.routers = {"a:1"};
              }),
              bad("--router"));
  EXPECT_THAT(refusal([](O& o) {
                o.stage = {1, 2};
                o.null_model = true;
              }),
              bad("--null-model"));
  EXPECT_THAT(refusal([](O& o) { o.step_timeout = absl::ZeroDuration(); }),
              bad("--step-timeout"));
  EXPECT_THAT(refusal([](O& o) { o.kv_blocks = -1; }), bad("--kv-blocks"));
  EXPECT_THAT(refusal([](O& o) { o.kv_blocks = o.kv_memory_bytes = 1; }),
              bad("--kv-memory"));
  EXPECT_THAT(refusal([](O& o) { o.grace = absl::Seconds(-1); }),
              bad("--grace"));
  EXPECT_THAT(refusal([](O& o) { o.server.port = 65536; }), bad("--port"));
  EXPECT_THAT(refusal([](O& o) { o.routers = {"nowhere"}; }), bad("--router"));
  EXPECT_THAT(refusal([](O& o) { o.advertise = "host:99999"; }),
              bad("--advertise"));
  EXPECT_THAT(refusal([](O& o) {
                o.server.listen = "0.0.0.0";
                o.routers = {"a:1"};
              }),
              bad("--advertise"));
}

}  // namespace
}  // namespace caravan::worker
