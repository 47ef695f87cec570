// wgmma on the emulated device: where its operands lie, the bits of mma.sync,
// and what becomes of a device that has other bits or none.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/ops/cuda/kernels/swizzled.h"
#include "worker/ops/cuda/wgmma_check.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::worker::testing::OpTrial;
using ::caravan::worker::testing::TrialResult;
using ::caravan::worker::testing::TrialSequence;
using ::caravan::worker::testing::TrialShape;

constexpr NumericsOptions kBf16 = {ActivationType::kBf16, DType::kBf16};

TrialShape Shape() {
  return {.name = "Bias",
          .hidden = 56,
          .heads = 7,
          .kv_heads = 1,
          .head_dim = 8,
          .feed_forward = 83,
          .vocabulary = 65,
          .weights = WeightType::kBf16,
          .bias = true,
          .seed = 5};
}

absl::StatusOr<std::unique_ptr<Backend>> On(TensorCores cores, bool has_wgmma,
                                            bool descending = false) {
  CudaOptions options;
  options.numerics = kBf16;
  options.tensor_cores = cores;
  options.check_columns = 48;
  return MakeBackendOn(
      std::make_unique<EmulatedDevice>(EmulatedOptions{
          .descending = descending, .multiprocessors = 2, .wgmma = has_wgmma}),
      options);
}

TrialResult RunTrial(Backend& backend,
                     const std::vector<TrialSequence>& sequences) {
  return OpTrial(backend, Shape()).Run(sequences);
}

// The ISA's rule: an atom's rows of 64 bytes one after the other, address bits
// 4 and 5 changed by bits 7 and 8.
TEST(WgmmaTest, ActivationsLieInSwizzledAtoms) {
  constexpr int kGroups = 3;
  for (int token = 0; token < 8 * kGroups; ++token) {
    for (int k = 0; k < 96; ++k) {
      const int64_t atom = int64_t{k / 32} * kGroups + token / 8;
      int64_t byte = atom * 512 + token % 8 * 64 + k % 32 * 2;
      byte ^= (byte >> 7 & 3) << 4;
      EXPECT_EQ(SwizzledOffset(token, k, kGroups) * 2, byte);
    }
  }
}

TEST(WgmmaTest, EightRowsOfACoreMatrixLieInAllBanks) {
  for (int chunk = 0; chunk < 4; ++chunk) {
    std::set<int64_t> banks;
    for (int row = 0; row < 8; ++row) {
      banks.insert(SwizzledOffset(row, chunk * 8, 1) * 2 % 128 / 16);
    }
    EXPECT_EQ(banks.size(), 8u);
  }
}

TEST(WgmmaTest, DescriptorsSayWhereAndHow) {
  const uint64_t descriptor = SwizzledDescriptor(0x2a420);
  EXPECT_EQ(descriptor & 0x3fff, 0x2a42u);
  EXPECT_EQ(descriptor >> 32 & 0x3fff, 512u / 16);
  EXPECT_EQ(descriptor >> 62, 2u);
}

TEST(WgmmaTest, ShapesCoverRowsAndTokensAndFitABlock) {
  for (const int64_t row_tiles : {1, 7, 8, 9, 256, 8016}) {
    for (const int segments : {1, 8}) {
      for (const int64_t tokens : {1, 8, 9, 32, 33, 128, 129, 2048}) {
        const WgmmaShape shape = ShapeOfWgmma(row_tiles, segments, tokens, 132);
        EXPECT_GE(shape.launch.x * 8 * shape.tiles, row_tiles);
        EXPECT_GE(shape.launch.y * shape.tokens, tokens);
        EXPECT_LT((shape.launch.y - 1) * shape.tokens, tokens);
        EXPECT_LE(shape.launch.shared_bytes, 232448 - 1024);
        if (shape.tiles == 2) {
          EXPECT_EQ(segments, 1);
          EXPECT_GE(shape.launch.x * shape.launch.y, 132);
        }
      }
    }
  }
}

TEST(WgmmaTest, EveryKernelHasTheBitsOfMma) {
  for (const bool descending : {false, true}) {
    EmulatedDevice device({.descending = descending});
    const auto verdict = CompareWgmma(device, 48);
    ASSERT_OK(verdict.status());
    EXPECT_EQ(*verdict, WgmmaVerdict::kSame);
  }
}

TEST(WgmmaTest, ClassOfItsOwnServesEveryNumberOfTokens) {
  const auto mma = *On(TensorCores::kMma, true);
  for (const bool descending : {false, true}) {
    const auto wgmma = *On(TensorCores::kWgmma, true, descending);
    for (const std::vector<TrialSequence>& sequences :
         {std::vector<TrialSequence>{{3, 1}},
          std::vector<TrialSequence>{{0, 20}, {2, 1}}}) {
      EXPECT_EQ(RunTrial(*mma, sequences), RunTrial(*wgmma, sequences));
    }
    EXPECT_NE(wgmma->NumericsClass({}), mma->NumericsClass({}));
  }
}

TEST(WgmmaTest, LargeStepsKeepTheirClassWhereBitsAreTheSame) {
  const auto mma = *On(TensorCores::kMma, true);
  const auto automatic = *On(TensorCores::kAuto, true);
  EXPECT_EQ(mma->NumericsClass({}), automatic->NumericsClass({}));
  EXPECT_EQ(RunTrial(*mma, {{0, 70}}), RunTrial(*automatic, {{0, 70}}));
}

TEST(WgmmaTest, DevicesWithoutItTakeMmaOrRefuse) {
  const auto mma = *On(TensorCores::kMma, false);
  const auto automatic = *On(TensorCores::kAuto, false);
  EXPECT_EQ(RunTrial(*mma, {{0, 70}}), RunTrial(*automatic, {{0, 70}}));
  EXPECT_FALSE(On(TensorCores::kWgmma, false).ok());
}

// What the emulated device cannot say: the bits of the machine's own.
TEST(WgmmaTest, TheMachineKeepsAClassThroughLargeSteps) {
  CudaOptions options;
  options.numerics = kBf16;
  const auto automatic = MakeCudaBackend(options);
  if (!automatic.ok()) GTEST_SKIP() << automatic.status().message();
  options.tensor_cores = TensorCores::kMma;
  const auto mma = MakeCudaBackend(options);
  ASSERT_OK(mma.status());
  EXPECT_EQ(RunTrial(**mma, {{0, 70}}), RunTrial(**automatic, {{0, 70}}));
}

TEST(WgmmaTest, NamesOfInstructionsAreParsed) {
  EXPECT_EQ(*ParseTensorCores("wgmma"), TensorCores::kWgmma);
  EXPECT_EQ(*ParseTensorCores("auto"), TensorCores::kAuto);
  EXPECT_FALSE(ParseTensorCores("fast").ok());
}

}  // namespace
}  // namespace caravan::worker::cuda
