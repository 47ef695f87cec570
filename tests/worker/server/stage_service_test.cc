// Stages over gRPC on 127.0.0.1, each with a shard of its own.
#include "worker/server/stage_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>

#include "common/grpc/channel.h"
#include "common/grpc/server.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/shard/local_stages.h"
#include "tests/worker/shard/two_sequences.h"
#include "worker/server/stage_codec.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kEpoch = 1234;

std::string DemoModel() { return testing::RepositoryPath("deploy/demo-model"); }

ShardOptions SmallShard() {
  return {.block_count = 16, .max_step_tokens = 64, .max_logits_rows = 4};
}

// The stages of a model, all but the first behind servers.
class StageServiceTest : public ::testing::Test {
 protected:
  ~StageServiceTest() override { StopServers(); }

  void Load(int32_t count) {
    ASSERT_OK_AND_ASSIGN(stages_,
                         LocalStages::Load(DemoModel(), count, SmallShard()));
    for (int32_t i = 0; i < count; ++i) {
      const LoadedModel& model = *stages_.models[i];
      facts_.push_back({.worker_id = StrCat("stage-", i),
                        .config = model.description.config,
                        .model_digest = std::string(32, 'd'),
                        .numerics_class = "class",
                        .fingerprint = std::string(32, 'f'),
                        .tensor_listing = model.weights.listing.Listing(),
                        .block_count = 16 - i,
                        .max_step_tokens = 64});
    }
  }

  // From the last to the second.
  void Serve() {
    services_.resize(facts_.size());
    servers_.resize(facts_.size());
    ASSERT_LE(facts_.size(), ports_.size());
    for (size_t i = facts_.size() - 1; i > 0; --i) Serve(i);
  }

  void Serve(size_t i) {
    const auto next = [this, i](const StageLinkOptions& options) {
      return FormFrom(i, options);
    };
    services_[i] = std::make_unique<StageService>(
        facts_[i], stages_.shards[i].get(), next, &metrics_);
    ASSERT_OK_AND_ASSIGN(
        servers_[i], GrpcServer::Start(ServerOptions(), {services_[i].get()}));
    ports_[i] = servers_[i]->port();
  }

  void Stop(size_t i) {
    servers_[i].reset();
    services_[i].reset();
  }

  void StopServers() {
    for (size_t i = 0; i < servers_.size(); ++i) Stop(i);
  }

  absl::StatusOr<std::unique_ptr<StageLinkClient>> FormFrom(
      size_t i, const StageLinkOptions& options) {
    const std::string address = StrCat("127.0.0.1:", ports_[i + 1].load());
    CARAVAN_ASSIGN_OR_RETURN(auto channel,
                             MakeChannel(address, ChannelOptions()));
    return StageLinkClient::Form(std::move(channel), facts_[i], options,
                                 &metrics_);
  }

  absl::StatusOr<std::unique_ptr<StageLinkClient>> Form(uint64_t epoch) {
    return FormFrom(0, {.epoch = epoch, .depth = 2});
  }

  std::unique_ptr<PipelineRunner> MakeRunner(
      std::unique_ptr<StageLinkClient> link) {
    return std::make_unique<PipelineRunner>(
        stages_.shards[0].get(), std::move(link),
        PipelineOptions{.max_in_flight = 2},
        [this](const absl::Status& status) { lost_.set_value(status); });
  }

  std::vector<ScoredToken> Stream(ModelRunner& runner) {
    return RunTwoSequences(runner, facts_[0].config.vocab_size,
                           /*new_tokens=*/6);
  }

  static std::vector<ScoredToken> Whole() {
    auto backend = *MakeReferenceBackend(NumericsOptions());
    const auto model = *LoadModel(DemoModel(), ModelOptions(), backend.get());
    const auto runner = *ShardRunner::Create(model.get(), backend.get(),
                                             {.block_count = 16,
                                              .max_step_tokens = 64,
                                              .max_logits_rows = 4,
                                              .max_in_flight = 2});
    return RunTwoSequences(*runner, model->description.config.vocab_size,
                           /*new_tokens=*/6);
  }

  absl::Status AwaitLoss() { return lost_.get_future().get(); }

  MetricsRegistry registry_;
  StageMetrics metrics_{&registry_};
  LocalStages stages_;
  std::vector<StageFacts> facts_;
  std::vector<std::unique_ptr<StageService>> services_;
  std::vector<std::unique_ptr<GrpcServer>> servers_;
  std::array<std::atomic<int>, 4> ports_ = {};  // of later stages
  std::promise<absl::Status> lost_;
};

TEST_F(StageServiceTest, FourStagesOverTheWireGiveTheBitsOfOne) {
  Load(4);
  Serve();
  ASSERT_OK_AND_ASSIGN(auto link, Form(kEpoch));
  ASSERT_OK_AND_ASSIGN(const ReplicaFacts replica,
                       JoinStages(facts_[0], link->formed()));
  EXPECT_EQ(replica.block_count, 13);  // the least
  auto backend = *MakeReferenceBackend(NumericsOptions());
  const auto whole = *LoadModel(DemoModel(), ModelOptions(), backend.get());
  EXPECT_EQ(replica.weights_id, whole->weights.id);
  const auto runner = MakeRunner(std::move(link));
  EXPECT_TRUE(std::ranges::equal(Stream(*runner), Whole(), SameBits));
  // 2 sequences of 40 + 6 tokens, 256 fp32 each, over three hops.
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_worker_stage_sent_tokens_total 276"));
}

TEST_F(StageServiceTest, NewEpochTakesThePlaceOfTheOneBefore) {
  Load(2);
  Serve();
  ASSERT_OK_AND_ASSIGN(auto old_link, Form(kEpoch));
  const auto old_runner = MakeRunner(std::move(old_link));
  ASSERT_OK_AND_ASSIGN(auto link, Form(kEpoch + 1));
  EXPECT_THAT(AwaitLoss(),
              testing::HasReason(Reason::kStaleEpoch, HasSubstr("new epoch")));
  lost_ = std::promise<absl::Status>();
  const auto runner = MakeRunner(std::move(link));
  EXPECT_TRUE(std::ranges::equal(Stream(*runner), Whole(), SameBits));
}

TEST_F(StageServiceTest, LostStageIsToldToTheFirst) {
  Load(4);
  Serve();
  ASSERT_OK_AND_ASSIGN(auto link, Form(kEpoch));
  const auto runner = MakeRunner(std::move(link));
  Stop(3);  // behind two others
  EXPECT_THAT(AwaitLoss(), testing::HasReason(Reason::kWorkerLost));
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_worker_chains_lost_total"));
}

TEST_F(StageServiceTest, ChainFormsAgainAfterAStageWasRestarted) {
  Load(4);
  Serve();
  {
    ASSERT_OK_AND_ASSIGN(auto link, Form(kEpoch));
    const auto runner = MakeRunner(std::move(link));
    Stop(2);
    EXPECT_THAT(AwaitLoss(), testing::HasReason(Reason::kWorkerLost));
  }
  lost_ = std::promise<absl::Status>();
  Serve(2);
  ASSERT_OK_AND_ASSIGN(auto link, Form(kEpoch + 1));
  const auto runner = MakeRunner(std::move(link));
  EXPECT_TRUE(std::ranges::equal(Stream(*runner), Whole(), SameBits));
}

TEST_F(StageServiceTest, ChainWithoutItsLastStageIsNotFormed) {
  Load(4);
  Serve();
  Stop(3);
  EXPECT_FALSE(
      FormFrom(0, {.epoch = kEpoch, .depth = 2, .timeout = absl::Seconds(5)})
          .ok());
}

TEST_F(StageServiceTest, StageOfAnotherModelIsRefusedByName) {
  Load(2);
  facts_[1].model_digest = std::string(32, 'e');
  Serve();
  EXPECT_THAT(Form(kEpoch), testing::HasReason(Reason::kIdentityMismatch,
                                               HasSubstr("the model")));
}

TEST_F(StageServiceTest, StageOfAnotherClassIsRefusedByName) {
  Load(2);
  facts_[1].numerics_class = "another";
  Serve();
  EXPECT_THAT(Form(kEpoch), testing::HasReason(Reason::kIdentityMismatch,
                                               HasSubstr("another")));
}

TEST_F(StageServiceTest, StageInTheWrongPlaceIsRefusedByName) {
  Load(4);
  Serve();
  ports_[1] = ports_[2].load();
  EXPECT_THAT(Form(kEpoch), testing::HasReason(Reason::kIdentityMismatch,
                                               HasSubstr("the index")));
}

TEST_F(StageServiceTest, DrainingStageIsToldToTheFirst) {
  Load(4);
  Serve();
  std::promise<void> told;
  auto formed =
      FormFrom(0, {.epoch = kEpoch, .depth = 2, .on_draining = [&told] {
                     told.set_value();
                   }});
  ASSERT_OK(formed);
  auto runner = MakeRunner(*std::move(formed));
  auto drained = std::async(std::launch::async, [this] {
    return services_[3]->Drain(absl::Seconds(20));
  });
  told.get_future().wait();
  runner.reset();  // the first stage lets go
  EXPECT_TRUE(drained.get());
}

// A bit that the wire changes: the stage says so and computes nothing.
TEST_F(StageServiceTest, ChangedHiddenStatesEndTheEpoch) {
  Load(2);
  Serve();
  ASSERT_OK_AND_ASSIGN(
      auto channel,
      MakeChannel(StrCat("127.0.0.1:", servers_[1]->port()), ChannelOptions()));
  const auto stub = v1::StageService::NewStub(channel);
  grpc::ClientContext call;
  const auto stream = stub->Run(&call);
  v1::StageRequest hello;
  *hello.mutable_hello() = MakeStageHello(facts_[0], kEpoch);
  Seal(&hello);
  v1::StageRequest offer;
  *offer.mutable_offer() = MakeOffer(facts_[0], /*depth=*/1);
  Seal(&offer);
  v1::StageResponse response;
  ASSERT_TRUE(stream->Write(hello) && stream->Write(offer));
  ASSERT_TRUE(stream->Read(&response) && stream->Read(&response));
  const SequenceSpec spec = SpecOf(0, 64);
  v1::StageRequest add;
  *add.mutable_add_sequence() = ToProto(spec);
  Seal(&add);
  BatchPlan plan;
  plan.step = 1;
  plan.rows.push_back(RowOf(spec, {}, 0, 2));
  v1::StageRequest run;
  const std::vector<float> hidden(2 * facts_[0].config.hidden_size, 0.5f);
  *run.mutable_plan() = ToProto(plan, hidden, kEpoch);
  Seal(&run);
  std::string bytes(reinterpret_cast<const char*>(hidden.data()),
                    sizeof(float) * hidden.size());
  bytes[100] ^= 1;
  run.mutable_plan()->set_hidden(bytes);
  ASSERT_TRUE(stream->Write(add) && stream->Write(run));
  EXPECT_FALSE(stream->Read(&response)) << response.ShortDebugString();
  EXPECT_THAT(FromGrpcStatus(stream->Finish()),
              testing::HasReason(Reason::kWorkerLost, HasSubstr("step 1")));
}

TEST_F(StageServiceTest, PlanOfAnotherEpochEndsTheStream) {
  Load(2);
  Serve();
  ASSERT_OK_AND_ASSIGN(
      auto channel,
      MakeChannel(StrCat("127.0.0.1:", servers_[1]->port()), ChannelOptions()));
  const auto stub = v1::StageService::NewStub(channel);
  grpc::ClientContext call;
  const auto stream = stub->Run(&call);
  v1::StageRequest request;
  *request.mutable_hello() = MakeStageHello(facts_[0], kEpoch);
  Seal(&request);
  ASSERT_TRUE(stream->Write(request));
  *request.mutable_offer() = MakeOffer(facts_[0], /*depth=*/1);
  Seal(&request);
  ASSERT_TRUE(stream->Write(request));
  v1::StageResponse response;
  ASSERT_TRUE(stream->Read(&response) && stream->Read(&response));
  *request.mutable_plan() = ToProto(BatchPlan(), {}, kEpoch - 1);
  Seal(&request);
  ASSERT_TRUE(stream->Write(request));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_THAT(FromGrpcStatus(stream->Finish()),
              testing::HasReason(Reason::kStaleEpoch));
}

TEST_F(StageServiceTest, CommandsBeforeTheOfferAreRefused) {
  Load(2);
  Serve();
  ASSERT_OK_AND_ASSIGN(
      auto channel,
      MakeChannel(StrCat("127.0.0.1:", servers_[1]->port()), ChannelOptions()));
  const auto stub = v1::StageService::NewStub(channel);
  grpc::ClientContext call;
  const auto stream = stub->Run(&call);
  v1::StageRequest request;
  request.set_drop_sequence_id(1);
  Seal(&request);
  ASSERT_TRUE(stream->Write(request));
  v1::StageResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_THAT(FromGrpcStatus(stream->Finish()),
              testing::HasReason(Reason::kInvalidField, HasSubstr("offer")));
}

}  // namespace
}  // namespace caravan::worker
