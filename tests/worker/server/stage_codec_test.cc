#include "worker/server/stage_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kEpoch = 77;
const std::vector<float> kHidden = {1.5f, -2, 3e-40f, 4};

// Hidden states as they came.
class TestBytes final : public WireBytes {
 public:
  explicit TestBytes(std::span<const float> hidden)
      : bytes_(std::as_bytes(hidden).begin(), std::as_bytes(hidden).end()) {}
  size_t size() const override { return bytes_.size(); }
  void CopyTo(std::byte* target) const override {
    std::ranges::copy(bytes_, target);
  }
  void Flip(size_t bit) {
    bytes_[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  }

 private:
  std::vector<std::byte> bytes_;
};

absl::StatusOr<StageStep> Received(const v1::StagePlan& plan, uint64_t epoch) {
  return FromProto(plan, std::make_unique<TestBytes>(kHidden), epoch);
}

BatchPlan SmallPlan() {
  BatchPlan plan;
  plan.step = 9;
  plan.copies = {{3, 4}};
  PlanRow& row = plan.rows.emplace_back();
  row.sequence = 5;
  row.first_position = 30;
  row.tokens = {11, 12};
  row.blocks = {4, 1};
  row.first_stored_position = 31;
  row.sample = true;
  row.output_position = 2;
  row.score_prompt = true;
  return plan;
}

TEST(StageCodecTest, PlanArrivesWithCountsForIdsAndEveryBitOfTheHiddenStates) {
  ASSERT_OK_AND_ASSIGN(const StageStep step,
                       Received(ToProto(SmallPlan(), kHidden, kEpoch), kEpoch));
  EXPECT_EQ(step.plan.step, 9);
  ASSERT_EQ(step.plan.copies.size(), 1u);
  EXPECT_EQ(step.plan.copies[0].target, 4);
  ASSERT_EQ(step.plan.rows.size(), 1u);
  const PlanRow& row = step.plan.rows[0];
  EXPECT_EQ(row.sequence, 5);
  EXPECT_EQ(row.first_position, 30);
  EXPECT_THAT(row.tokens, ElementsAre(0, 0));
  EXPECT_THAT(row.blocks, ElementsAre(4, 1));
  EXPECT_EQ(row.first_stored_position, 31);
  EXPECT_TRUE(row.sample);
  EXPECT_EQ(row.output_position, 2);
  EXPECT_TRUE(row.score_prompt);
  std::vector<float> hidden(kHidden.size());
  ASSERT_EQ(step.hidden->size_bytes(), sizeof(float) * hidden.size());
  ASSERT_OK(step.hidden->CopyTo(
      std::as_writable_bytes(std::span<float>(hidden)).data()));
  EXPECT_EQ(std::memcmp(hidden.data(), kHidden.data(), 16), 0);
}

TEST(StageCodecTest, PlanOfAnotherEpochIsRefused) {
  EXPECT_THAT(Received(ToProto(SmallPlan(), kHidden, kEpoch), kEpoch + 1),
              testing::HasReason(Reason::kStaleEpoch, HasSubstr("78")));
}

TEST(StageCodecTest, AnyChangedBitOfTheHiddenStatesIsSeen) {
  const v1::StagePlan plan = ToProto(SmallPlan(), kHidden, kEpoch);
  std::vector<std::byte> target(sizeof(float) * kHidden.size());
  for (size_t bit = 0; bit < 8 * target.size(); ++bit) {
    auto changed = std::make_unique<TestBytes>(kHidden);
    changed->Flip(bit);
    ASSERT_OK_AND_ASSIGN(const StageStep step,
                         FromProto(plan, std::move(changed), kEpoch));
    EXPECT_THAT(step.hidden->CopyTo(target.data()),
                testing::HasReason(Reason::kWorkerLost, HasSubstr("step 9")));
  }
}

// Whatever a wire does to the rest of a message ends the link too.
template <typename Message>
void ExpectEveryChangedBitIsSeen(Message message) {
  Seal(&message);
  ASSERT_OK(CheckSeal(message));
  const std::string bytes = message.SerializeAsString();
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string changed = bytes;
    changed[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    Message parsed;
    if (!parsed.ParseFromString(changed)) continue;  // gRPC ends the stream
    // The empty value of a map says the same when its tag is lost.
    if (parsed.DebugString() == message.DebugString()) continue;
    EXPECT_THAT(CheckSeal(parsed), testing::HasReason(Reason::kWorkerLost))
        << "bit " << bit;
  }
}

TEST(StageCodecTest, AnyChangedBitOfAPlanIsSeen) {
  v1::StageRequest request;
  *request.mutable_plan() = ToProto(SmallPlan(), {}, kEpoch);
  ExpectEveryChangedBitIsSeen(request);
}

StepResult SmallResult() {
  StepResult result;
  result.step = 9;
  RowResult& row = result.rows.emplace_back();
  row.sequence = 5;
  row.first_scored_position = 3;
  row.token = ScoredToken{.token_id = 0,
                          .logprob = -0.1f,
                          .rank = 2,
                          .candidates = {{7, -0.05f}, {0, -0.1f}}};
  row.prompt_scores.push_back(
      {.token_id = 8, .logprob = -3.f, .rank = 4, .candidates = {}});
  RowResult& failed = result.rows.emplace_back();
  failed.sequence = 6;
  failed.status =
      MakeError(Reason::kNumericFault, "not finite", {{"why", "a"}, {"b", ""}});
  return result;
}

TEST(StageCodecTest, AnyChangedBitOfAResultIsSeen) {
  v1::StageResponse response;
  *response.mutable_result() = ToProto(SmallResult(), kEpoch);
  ExpectEveryChangedBitIsSeen(response);
}

TEST(StageCodecTest, ResultArrivesAsItWas) {
  const StepResult sent = SmallResult();
  ASSERT_OK_AND_ASSIGN(const StepResult got,
                       FromProto(ToProto(sent, kEpoch), kEpoch));
  EXPECT_EQ(got.step, sent.step);
  ASSERT_EQ(got.rows.size(), 2u);
  EXPECT_EQ(got.rows[0].sequence, 5);
  EXPECT_EQ(got.rows[0].token, sent.rows[0].token);
  EXPECT_EQ(got.rows[0].prompt_scores, sent.rows[0].prompt_scores);
  EXPECT_EQ(got.rows[0].first_scored_position, 3);
  EXPECT_THAT(got.rows[1].status, testing::HasReason(Reason::kNumericFault));
  EXPECT_FALSE(got.rows[1].token.has_value());
  EXPECT_THAT(FromProto(ToProto(sent, kEpoch), kEpoch - 1),
              testing::HasReason(Reason::kStaleEpoch));
}

TEST(StageCodecTest, SequenceArrivesAsItWas) {
  SequenceSpec spec;
  spec.id = 3;
  spec.choice = 1;
  spec.prompt = std::make_shared<const std::vector<TokenId>>(
      std::vector<TokenId>{4, 5, 6});
  spec.output = {7, 8};
  spec.sampling.seed = uint64_t{1} << 63;
  spec.sampling.temperature = 0.7f;
  spec.sampling.logit_bias = {{2, -1.5f}};
  spec.sampling.logprob_count = 0;
  spec.min_tokens = 4;
  spec.end_ids = {9};
  ASSERT_OK_AND_ASSIGN(const SequenceSpec got,
                       FromProto(ToProto(spec), /*vocab_size=*/16));
  EXPECT_EQ(got.id, 3);
  EXPECT_EQ(got.choice, 1);
  EXPECT_EQ(*got.prompt, *spec.prompt);
  EXPECT_EQ(got.output, spec.output);
  EXPECT_EQ(got.sampling, spec.sampling);
  EXPECT_EQ(got.min_tokens, 4);
  EXPECT_EQ(got.end_ids, spec.end_ids);
}

TEST(StageCodecTest, PlansThatAskForTheImpossibleAreRefusedByField) {
  v1::StagePlan plan = ToProto(SmallPlan(), kHidden, kEpoch);
  plan.mutable_rows(0)->set_token_count(-1);
  EXPECT_THAT(Received(plan, kEpoch),
              testing::HasReason(Reason::kInvalidField, HasSubstr("-1")));
  plan.mutable_rows(0)->set_token_count(2000000000);
  EXPECT_THAT(Received(plan, kEpoch),
              testing::HasReason(Reason::kInvalidField,
                                 HasSubstr("plan.rows.token_count")));
  plan = ToProto(SmallPlan(), kHidden, kEpoch);
  plan.set_dtype("bf16");
  EXPECT_THAT(Received(plan, kEpoch),
              testing::HasReason(Reason::kInvalidField, HasSubstr("fp32")));
}

}  // namespace
}  // namespace caravan::worker
