#include "worker/ops/cuda/nccl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "common/status/errors.h"
#include "tests/support/status_matchers.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::testing::HasReason;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(CARAVAN_FAKE_NCCL)) {
      GTEST_SKIP() << "the library that stands for NCCL is not here";
    }
    library_ = *Nccl::Open(CARAVAN_FAKE_NCCL);
    id_ = *library_->MakeId();
  }
  std::shared_ptr<const Nccl> library_;
  NcclId id_;
};

TEST(NcclOpenTest, ALibraryThatIsNotThereIsRefusedByName) {
  EXPECT_THAT(
      Nccl::Open("libnccl-none.so.2"),
      HasReason(Reason::kUnsupportedParameter,
                AllOf(HasSubstr("--peers=nccl"), HasSubstr("libnccl-none"),
                      HasSubstr("LD_LIBRARY_PATH"))));
}

TEST(NcclOpenTest, FunctionsThatALibraryLacksAreNamed) {
  EXPECT_THAT(Nccl::Open("libm.so.6"),
              HasReason(Reason::kUnsupportedParameter,
                        AllOf(HasSubstr("ncclGetUniqueId"),
                              HasSubstr("ncclAllGather"))));
}

TEST_F(NcclTest, RanksThatJoinGatherFromAll) {
  constexpr int kRanks = 3;
  const auto run = [this](int rank) {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<NcclRank> joined,
                         NcclRank::Join(library_, id_, rank, kRanks));
    for (int turn = 0; turn < 3; ++turn) {
      const int part = 10 * turn + rank;
      std::array<int, kRanks> all = {};
      EXPECT_OK(joined->Gather({&part, all.data(), sizeof(part)}, nullptr));
      EXPECT_THAT(all, ElementsAre(10 * turn, 10 * turn + 1, 10 * turn + 2));
    }
  };
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < kRanks; ++rank) threads.emplace_back(run, rank);
}

TEST_F(NcclTest, ErrorsAreNamed) {
  EXPECT_THAT(
      NcclRank::Join(library_, id_, 7, 8),
      HasReason(Reason::kInternal,
                HasSubstr("ncclCommInitRank of rank 7 of 8: invalid argument "
                          "(4)")));
}

TEST_F(NcclTest, AnAbortEndsWhatARankWaitsFor) {
  std::unique_ptr<NcclRank> first, second;
  {
    const std::jthread other(
        [&] { second = *NcclRank::Join(library_, id_, 1, 2); });
    first = *NcclRank::Join(library_, id_, 0, 2);
  }
  const int part = 1;
  std::array<int, 2> all = {};
  const PeerGather gather = {&part, all.data(), sizeof(part)};
  absl::Status waited;
  {
    const std::jthread waiting(
        [&] { waited = first->Gather(gather, nullptr); });
    second->Abort();
  }
  EXPECT_FALSE(waited.ok());
  EXPECT_FALSE(second->Gather(gather, nullptr).ok());
}

}  // namespace
}  // namespace caravan::worker::cuda
