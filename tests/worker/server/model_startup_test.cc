#include "worker/server/model_startup.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/json.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/worker/server/submits.h"
#include "tests/worker/server/test_session.h"
#include "worker/server/model_identity.h"
#include "worker/server/worker_server.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::ConnectWorker;
using ::caravan::testing::HasReason;
using ::caravan::testing::MakeSubmit;
using ::caravan::testing::ReadFile;
using ::caravan::testing::RepositoryPath;
using ::caravan::testing::TemporaryDirectory;
using ::caravan::testing::TestSession;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

WorkerOptions DemoOptions() {
  WorkerOptions options;
  options.model_directory = RepositoryPath("deploy/demo-model");
  options.threads = 1;
  options.kv_blocks = 128;
  return options;
}

absl::StatusOr<std::unique_ptr<ServedModel>> StartDemo(
    const WorkerOptions& options) {
  return StartModel(options, [](int) {});
}

TEST(ModelStartupTest, TheDemoModelSaysWhoItIs) {
  ASSERT_OK_AND_ASSIGN(const auto model, StartDemo(DemoOptions()));
  const v1::ModelInfo& info = model->info;
  EXPECT_EQ(info.name(), "demo-model");
  EXPECT_EQ(info.context_length(), 1024);
  EXPECT_EQ(info.vocabulary_size(), 4096);
  EXPECT_EQ(info.block_size(), 16);
  EXPECT_EQ(info.block_count(), 128);
  EXPECT_THAT(info.eos_token_ids(), ElementsAre(4091, 4094));
  const v1::ModelIdentity& identity = info.identity();
  EXPECT_THAT(identity.numerics_class(), StartsWith("cpu-"));
  for (const std::string& id :
       {identity.weights_id(), identity.fingerprint(), identity.tokenizer_id(),
        identity.template_id()}) {
    EXPECT_EQ(id.size(), 32u);
  }
}

TEST(ModelStartupTest, DefaultsAreThoseOfTheModelAndNoOthers) {
  WorkerOptions options = DemoOptions();
  options.null_model = true;
  ASSERT_OK_AND_ASSIGN(auto model, StartDemo(options));
  EXPECT_FLOAT_EQ(model->info.default_sampling().temperature(), 0.6f);
  EXPECT_FLOAT_EQ(model->info.default_sampling().top_p(), 0.9f);
  EXPECT_FALSE(model->info.default_sampling().has_top_k());
  options.generation_config = "none";
  options.served_model_name = "stories";
  ASSERT_OK_AND_ASSIGN(model, StartDemo(options));
  EXPECT_FALSE(model->info.default_sampling().has_temperature());
  EXPECT_EQ(model->info.name(), "stories");
}

// The demo model's tokenizer beside a config of another vocabulary.
absl::Status StartWithRows(int rows) {
  const std::string demo = RepositoryPath("deploy/demo-model");
  const TemporaryDirectory directory;
  std::filesystem::copy(demo, directory.path());
  nlohmann::json config = ParseJson(ReadFile(demo + "/config.json"));
  config["vocab_size"] = rows;
  std::ofstream(directory.path() + "/config.json") << config;
  WorkerOptions options = DemoOptions();
  options.model_directory = directory.path();
  options.null_model = true;
  return StartDemo(options).status();
}

TEST(ModelStartupTest, MoreTokenIdsThanEmbeddingRowsAreRefused) {
  EXPECT_THAT(
      StartWithRows(4095),
      HasReason(Reason::kModelFileInvalid, AllOf(HasSubstr("at most 4095 ids"),
                                                 HasSubstr("it has 4096"))));
  EXPECT_OK(StartWithRows(4096));
  EXPECT_OK(StartWithRows(4160));
}

TEST(ModelStartupTest, WhatIsAllocatedIsWhatWasPlanned) {
  ASSERT_OK_AND_ASSIGN(const auto model, StartDemo(DemoOptions()));
  EXPECT_GT(model->planned.weight_bytes(), 8'000'000);
  EXPECT_EQ(model->planned.weight_bytes(), model->allocated.weight_bytes());
  EXPECT_EQ(model->planned.kv_bytes(), model->allocated.kv_bytes());
  EXPECT_EQ(model->planned.arena_bytes(), model->allocated.arena_bytes());
}

TEST(ModelStartupTest, AWorkerThatComputesNothingHasAnIdentityOfItsOwn) {
  WorkerOptions options = DemoOptions();
  options.null_model = true;
  ASSERT_OK_AND_ASSIGN(const auto model, StartDemo(options));
  EXPECT_EQ(model->info.identity().numerics_class(), "null/v1");
  EXPECT_EQ(model->planned.weight_bytes(), 0);
  EXPECT_EQ(model->planned.kv_bytes(), 0);
}

TEST(ModelStartupTest, WhatThisBuildCannotDoIsRefusedByName) {
  WorkerOptions options = DemoOptions();
  options.device = "cuda";
  EXPECT_THAT(StartDemo(options), HasReason(Reason::kUnsupportedParameter,
                                            HasSubstr("--device=cuda")));
  options = DemoOptions();
  options.activations = "fp8";
  EXPECT_THAT(StartDemo(options), HasReason(Reason::kUnsupportedParameter,
                                            HasSubstr("--activations=fp8")));
  options = DemoOptions();
  options.kv = "q8_0";
  EXPECT_THAT(StartDemo(options),
              HasReason(Reason::kUnsupportedParameter, HasSubstr("--kv=q8_0")));
}

TEST(ModelStartupTest, AModelThatIsNotThereIsNamed) {
  WorkerOptions options = DemoOptions();
  options.model_directory = RepositoryPath("deploy/no-such-model");
  const auto model = StartDemo(options);
  ASSERT_FALSE(model.ok());
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("no-such-model"));
}

TEST(ModelStartupTest, BlocksBeyondMemoryAreRefusedBeforeAllocation) {
  WorkerOptions options = DemoOptions();
  options.kv_blocks = 1 << 30;
  EXPECT_THAT(StartDemo(options),
              HasReason(Reason::kMemoryPlan, HasSubstr("bytes")));
}

struct Golden {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;
};

Golden ReadGolden(const std::string& name) {
  const auto file =
      ParseJson(ReadFile(RepositoryPath("deploy/demo-model/goldens.json")));
  for (const auto& prompt : file["prompts"]) {
    if (prompt["name"] != name) continue;
    return {prompt["input_ids"].get<std::vector<int32_t>>(),
            prompt["greedy_ids"].get<std::vector<int32_t>>()};
  }
  ADD_FAILURE() << "no golden " << name;
  return {};
}

// The whole worker but its process: model, engine, session.
TEST(ModelStartupTest, TheDemoModelServesItsGolden) {
  const WorkerOptions options = DemoOptions();
  ASSERT_OK_AND_ASSIGN(const auto model, StartDemo(options));
  MetricsRegistry registry;
  WorkerServerOptions server_options;
  server_options.engine = EngineOptionsOf(options, *model);
  WorkerFacts facts;
  facts.epoch = 1;
  facts.model = model->info;
  ASSERT_OK_AND_ASSIGN(
      const auto server,
      WorkerServer::Start(server_options, facts, model->runner.get(), &registry,
                          &SystemClock::Get(), [] {}));
  const auto stub = ConnectWorker(server->port());
  const Golden golden = ReadGolden("plain-once");
  TestSession session(*stub);
  ASSERT_TRUE(session.Open());
  v1::Submit submit = MakeSubmit(1, golden.prompt, /*epoch=*/1,
                                 static_cast<int32_t>(golden.greedy.size()));
  ASSERT_TRUE(session.Send(submit));
  ASSERT_TRUE(session.ReadUntilEnd(1));
  EXPECT_EQ(session.log(1).tokens.at(0), golden.greedy);
}

TEST(ModelIdentityTest, TheNameIsTheDirectorys) {
  EXPECT_EQ(DirectoryName("/models/llama"), "llama");
  EXPECT_EQ(DirectoryName("/models/llama/"), "llama");
  EXPECT_EQ(DirectoryName("/models/other/../llama/."), "llama");
  EXPECT_EQ(DirectoryName("llama"), "llama");
  EXPECT_NE(DirectoryName("."), ".");
}

TEST(ModelIdentityTest, HexIsBytes) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes, BytesFromHex("00ff1a"));
  EXPECT_EQ(bytes, std::string("\x00\xff\x1a", 3));
  EXPECT_FALSE(BytesFromHex("0").ok());
  EXPECT_FALSE(BytesFromHex("0g").ok());
}

}  // namespace
}  // namespace caravan::worker
