#include "worker/server/memory_budget.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/support/status_matchers.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

class MemoryBudgetTest : public ::testing::Test {
 protected:
  MemoryBudgetTest() {
    config_.vocab_size = 100;
    config_.hidden_size = 64;
    config_.intermediate_size = 128;
    config_.layers = 2;
    config_.heads = 4;
    config_.kv_heads = 4;
    config_.head_dim = 16;
    config_.max_position_embeddings = 100;  // 7 blocks
    backend_ = *MakeReferenceBackend({});
    plan_ = MakeMemoryPlan(config_, DType::kFp32, *backend_, {});
    fixed_ = static_cast<int64_t>(plan_.fixed_bytes());
    block_ = KvBytes(2) - KvBytes(1);
  }

  int64_t KvBytes(int32_t blocks) const {
    return static_cast<int64_t>(backend_->KvBytes(KvSpecOf(config_, blocks)));
  }
  absl::StatusOr<int32_t> Decide(const KvRequest& request) {
    return DecideKvBlocks(request, config_, plan_, *backend_);
  }

  ModelConfig config_;
  std::unique_ptr<Backend> backend_;
  MemoryPlan plan_;
  int64_t fixed_ = 0;
  int64_t block_ = 0;
};

TEST_F(MemoryBudgetTest, WithRoomItIsWhatFullContextsNeed) {
  ASSERT_OK_AND_ASSIGN(
      const int32_t blocks,
      Decide({.max_running = 5, .available_bytes = fixed_ + 1000 * block_}));
  EXPECT_EQ(blocks, 7 * 5);
}

TEST_F(MemoryBudgetTest, WithoutRoomItIsHalfOfWhatIsLeft) {
  ASSERT_OK_AND_ASSIGN(
      const int32_t blocks,
      Decide({.max_running = 5, .available_bytes = fixed_ + 40 * block_}));
  EXPECT_LE(KvBytes(blocks), 20 * block_);
  EXPECT_GE(KvBytes(blocks + 1), 20 * block_);
}

TEST_F(MemoryBudgetTest, AGivenCountIsTaken) {
  ASSERT_OK_AND_ASSIGN(const int32_t blocks,
                       Decide({.blocks = 100,
                               .max_running = 1,
                               .available_bytes = fixed_ + 1000 * block_}));
  EXPECT_EQ(blocks, 100);
}

TEST_F(MemoryBudgetTest, AGivenSizeIsFilled) {
  ASSERT_OK_AND_ASSIGN(const int32_t blocks,
                       Decide({.memory_bytes = KvBytes(50),
                               .max_running = 1,
                               .available_bytes = fixed_ + 1000 * block_}));
  EXPECT_EQ(blocks, 50);
}

TEST_F(MemoryBudgetTest, WhatDoesNotFitIsRefusedWithNumbers) {
  EXPECT_THAT(Decide({.blocks = 100,
                      .max_running = 1,
                      .available_bytes = fixed_ + 50 * block_}),
              HasReason(Reason::kMemoryPlan,
                        HasSubstr(std::to_string(fixed_ + 50 * block_))));
  EXPECT_THAT(Decide({.max_running = 1, .available_bytes = fixed_}),
              HasReason(Reason::kMemoryPlan, HasSubstr("weights")));
  EXPECT_THAT(Decide({.memory_bytes = 1,
                      .max_running = 1,
                      .available_bytes = fixed_ + 50 * block_}),
              HasReason(Reason::kMemoryPlan));
}

TEST_F(MemoryBudgetTest, ThisMachineHasMemory) {
  EXPECT_GT(AvailableMemoryBytes(), int64_t{64} << 20);
}

}  // namespace
}  // namespace caravan::worker
