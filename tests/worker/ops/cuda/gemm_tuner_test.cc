#include "worker/ops/cuda/gemm_tuner.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "common/status/errors.h"
#include "common/strings.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/worker/ops/cuda/emulated_device.h"

namespace caravan::worker::cuda {
namespace {

// A device with a library, and operands of products of 16 rows by 8 columns.
class GemmTunerTest : public ::testing::Test {
 protected:
  explicit GemmTunerTest() {
    EmulatedOptions options;
    library_.clock = &clock_;
    options.library = library_;
    device_ = std::make_unique<EmulatedDevice>(options);
    memory_ = *DeviceBuffer::Allocate(device_.get(), 1 << 16);
  }
  absl::StatusOr<std::unique_ptr<GemmTuner>> Create(
      const TunerOptions& options) {
    return GemmTuner::Create(device_.get(), &clock_, options);
  }
  LibraryGemm Gemm(int32_t tokens, bool adds = false) {
    LibraryGemm gemm;
    gemm.w = memory_.As<uint16_t>();
    gemm.x = memory_.As<uint16_t>();
    gemm.y = memory_.As<float>() + (1 << 12);
    gemm.stride = gemm.rows = 16;
    gemm.columns = 8;
    gemm.tokens = tokens;
    gemm.adds = adds;
    return gemm;
  }
  absl::Status Measure(GemmTuner& tuner, const LibraryGemm& gemm) {
    return tuner.Measure(gemm, std::array{gemm.w});
  }
  const std::vector<int>& runs() { return device_->library()->runs(); }

  testing::ManualClock clock_;
  EmulatedLibraryOptions library_;
  std::unique_ptr<EmulatedDevice> device_;
  DeviceBuffer memory_;
  const testing::TemporaryDirectory directory_;
  const std::string file_ = StrCat(directory_.path(), "/algorithms");
};

TEST_F(GemmTunerTest, TheFastestAlgorithmServesItsBucket) {
  ASSERT_OK_AND_ASSIGN(const auto tuner, Create({}));
  ASSERT_OK(Measure(*tuner, Gemm(16)));
  for (const int32_t tokens : {9, 12, 16}) {
    ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, tuner->Plan(Gemm(tokens)));
    EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(2)) << tokens;
    EXPECT_NE(plan.workspace, nullptr);
    EXPECT_EQ(plan.tokens, tokens);
  }
}

TEST_F(GemmTunerTest, WhatWasNotMeasuredIsTheLibrarysGuess) {
  ASSERT_OK_AND_ASSIGN(const auto tuner, Create({}));
  ASSERT_OK(Measure(*tuner, Gemm(16)));
  for (const LibraryGemm& gemm : {Gemm(17), Gemm(8), Gemm(16, true)}) {
    ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, tuner->Plan(gemm));
    EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(1));
  }
}

TEST_F(GemmTunerTest, MeasuringReplacesAGuess) {
  ASSERT_OK_AND_ASSIGN(const auto tuner, Create({}));
  ASSERT_OK(tuner->Plan(Gemm(4)).status());
  ASSERT_OK(Measure(*tuner, Gemm(4)));
  ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, tuner->Plan(Gemm(4)));
  EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(2));
}

TEST_F(GemmTunerTest, WhatAFileSaysIsNotMeasuredAgain) {
  ASSERT_OK_AND_ASSIGN(const auto first, Create({.file = file_}));
  ASSERT_OK(Measure(*first, Gemm(1)));
  ASSERT_OK(first->Save());
  const std::vector<int> before = runs();
  ASSERT_OK_AND_ASSIGN(const auto second, Create({.file = file_}));
  ASSERT_OK(Measure(*second, Gemm(1)));
  EXPECT_EQ(runs(), before);
  EXPECT_EQ(second->measured(), 0);
  ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, second->Plan(Gemm(1)));
  EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(2));
}

TEST_F(GemmTunerTest, AnAlgorithmThatCannotRunIsNotRun) {
  GemmAlgorithms forged(library_.site);
  forged.Put({.rows = 16, .columns = 8, .tokens = 1}, {{{99}, 0}, 1e-6});
  ASSERT_OK(forged.Save(file_));
  ASSERT_OK_AND_ASSIGN(const auto tuner, Create({.file = file_}));
  ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, tuner->Plan(Gemm(1)));
  EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(1));
}

TEST_F(GemmTunerTest, FilesOfAnotherMachineAreRefusedByTheirFlag) {
  ASSERT_OK(GemmAlgorithms({"other", "none", "host"}).Save(file_));
  const absl::Status status = Create({.file = file_}).status();
  EXPECT_EQ(ReasonOf(status), Reason::kIdentityMismatch);
  EXPECT_TRUE(status.message().find("--gemm-algorithms: ") == 0) << status;
}

TEST_F(GemmTunerTest, OrderedProductsSplitNothing) {
  ASSERT_OK_AND_ASSIGN(const auto tuner, Create({.ordered = true}));
  ASSERT_OK(Measure(*tuner, Gemm(64)));
  ASSERT_OK_AND_ASSIGN(const LibraryGemm plan, tuner->Plan(Gemm(64)));
  EXPECT_EQ(plan.algorithm, EmulatedGemmLibrary::Algorithm(1));
  EXPECT_EQ(plan.workspace, nullptr);
}

TEST_F(GemmTunerTest, ADeviceWithoutALibrarySaysSo) {
  EmulatedDevice without{EmulatedOptions()};
  EXPECT_EQ(ReasonOf(GemmTuner::Create(&without, &clock_, {}).status()),
            Reason::kUnsupportedParameter);
}

}  // namespace
}  // namespace caravan::worker::cuda
