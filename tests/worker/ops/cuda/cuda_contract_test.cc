// The contract of backends, checked for the cuda backend: on the emulated
// device always, on the machine's where there is one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using testing::Bits;
using testing::OpTrial;
using testing::TrialResult;
using testing::TrialSequence;
using testing::TrialShape;

constexpr NumericsOptions kFp32 = {ActivationType::kFp32, DType::kFp32};
constexpr NumericsOptions kBf16 = {ActivationType::kBf16, DType::kBf16};

// Which device runs the suite.
enum class Where { kEmulated, kEmulatedDescending, kMachine };

std::string NameOf(Where where) {
  switch (where) {
    case Where::kEmulated:
      return "Emulated";
    case Where::kEmulatedDescending:
      return "EmulatedDescending";
    case Where::kMachine:
      return "Machine";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Backend>> Cuda(
    Where where, const NumericsOptions& numerics,
    CudaProfile profile = CudaProfile::kExact) {
  CudaOptions options;
  options.numerics = numerics;
  options.profile = profile;
  options.staging_bytes = 4096;  // so that matrices come in several pieces
  if (where == Where::kMachine) return MakeCudaBackend(options);
  cuda::EmulatedOptions emulated;
  emulated.descending = where == Where::kEmulatedDescending;
  emulated.library.emplace();
  return cuda::MakeBackendOn(std::make_unique<cuda::EmulatedDevice>(emulated),
                             options);
}

std::vector<TrialShape> Shapes(WeightType weights) {
  return {
      {.name = "Gqa", .weights = weights},
      {.name = "MhaHead100",
       .hidden = 100,
       .heads = 3,
       .kv_heads = 3,
       .head_dim = 100,
       .feed_forward = 172,
       .vocabulary = 97,
       .weights = weights,
       .seed = 4},
      {.name = "MqaHead8",
       .hidden = 56,
       .heads = 7,
       .kv_heads = 1,
       .head_dim = 8,
       .feed_forward = 33,
       .vocabulary = 65,
       .weights = weights,
       .bias = true,
       .seed = 5},
      {.name = "Head128Group20",
       .hidden = 160,
       .heads = 20,
       .kv_heads = 1,
       .head_dim = 128,
       .feed_forward = 300,
       .vocabulary = 200,
       .weights = weights,
       .bias = true,
       .seed = 6},
      {.name = "OddEverything",
       .hidden = 37,
       .heads = 5,
       .kv_heads = 5,
       .head_dim = 6,
       .feed_forward = 11,
       .vocabulary = 3,
       .weights = weights,
       .seed = 7},
      {.name = "Head256",
       .hidden = 64,
       .heads = 2,
       .kv_heads = 1,
       .head_dim = 256,
       .feed_forward = 96,
       .vocabulary = 40,
       .weights = weights,
       .bias = true,
       .seed = 8},
  };
}

void ExpectEqual(const TrialResult& expected, const TrialResult& actual) {
  for (const auto& [phase, bits] : expected) {
    ASSERT_EQ(bits.size(), actual.at(phase).size()) << phase;
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_EQ(bits[i], actual.at(phase)[i]) << phase << " element " << i;
    }
  }
}

// |actual - expected| relative to the largest magnitude of the phase.
void ExpectNear(const TrialResult& expected, const TrialResult& actual,
                float tolerance) {
  for (const auto& [phase, bits] : expected) {
    ASSERT_EQ(bits.size(), actual.at(phase).size()) << phase;
    float scale = 0;
    for (const uint32_t b : bits) {
      scale = std::max(scale, std::fabs(std::bit_cast<float>(b)));
    }
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_NEAR(std::bit_cast<float>(bits[i]),
                  std::bit_cast<float>(actual.at(phase)[i]), tolerance * scale)
          << phase << " element " << i;
    }
  }
}

// Row `row` of a phase's result of `rows` rows.
Bits RowOf(const Bits& bits, size_t rows, size_t row) {
  const size_t width = bits.size() / rows;
  return Bits(bits.begin() + row * width, bits.begin() + (row + 1) * width);
}

class CudaContract
    : public ::testing::TestWithParam<std::tuple<Where, TrialShape>> {
 protected:
  void SetUp() override {
    const absl::Status status = Cuda(where(), kFp32).status();
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
  Where where() const { return std::get<0>(GetParam()); }
  // Contexts of several splits take the emulated device seconds.
  bool SkipsLongContexts() const {
    const std::string name = std::get<1>(GetParam()).name;
    return where() != Where::kMachine && name != "MqaHead8" &&
           name != "OddEverything";
  }
  TrialShape shape(WeightType weights) const {
    TrialShape shape = std::get<1>(GetParam());
    shape.weights = weights;
    return shape;
  }

  TrialResult Reference(const NumericsOptions& numerics, WeightType weights,
                        const std::vector<TrialSequence>& sequences) {
    const std::unique_ptr<Backend> backend = *MakeReferenceBackend(numerics);
    return OpTrial(*backend, shape(weights)).Run(sequences);
  }
  TrialResult Actual(const NumericsOptions& numerics, WeightType weights,
                     const std::vector<TrialSequence>& sequences) {
    const std::unique_ptr<Backend> backend = *Cuda(where(), numerics);
    return OpTrial(*backend, shape(weights)).Run(sequences);
  }

  void ExpectReferenceBits(const NumericsOptions& numerics, WeightType weights,
                           const std::vector<TrialSequence>& sequences) {
    ExpectEqual(Reference(numerics, weights, sequences),
                Actual(numerics, weights, sequences));
  }
};

TEST_P(CudaContract, TheFp32ClassHasTheReferenceBits) {
  ExpectReferenceBits(kFp32, WeightType::kFp32,
                      {{0, 1}, {15, 1}, {16, 3}, {0, 20}});
}

TEST_P(CudaContract, SplitBordersHaveTheReferenceBits) {
  if (SkipsLongContexts()) GTEST_SKIP() << "too slow without a GPU";
  ExpectReferenceBits(kFp32, WeightType::kFp16, {{254, 5}, {300, 1}});
}

TEST_P(CudaContract, RoundedCachesHaveTheReferenceBits) {
  ExpectReferenceBits({ActivationType::kFp32, DType::kBf16}, WeightType::kBf16,
                      {{9, 9}});
  ExpectReferenceBits({ActivationType::kFp32, DType::kFp16}, WeightType::kFp32,
                      {{9, 9}});
}

TEST_P(CudaContract, TensorCoresAreNearTheReference) {
  const std::vector<TrialSequence> sequences = {{0, 1}, {20, 1}, {15, 9}};
  ExpectNear(Reference(kBf16, WeightType::kBf16, sequences),
             Actual(kBf16, WeightType::kBf16, sequences), 2e-2f);
}

TEST_P(CudaContract, ProductsOfTheLibraryAreNearTheReference) {
  const absl::StatusOr<std::unique_ptr<Backend>> fast =
      Cuda(where(), kBf16, CudaProfile::kFast);
  if (!fast.ok()) GTEST_SKIP() << fast.status().message();
  const std::vector<TrialSequence> sequences = {{0, 1}, {20, 1}, {15, 9}};
  ExpectNear(Reference(kBf16, WeightType::kBf16, sequences),
             OpTrial(**fast, shape(WeightType::kBf16)).Run(sequences), 2e-2f);
}

TEST_P(CudaContract, LongContextsAreNearTheReference) {
  if (SkipsLongContexts()) GTEST_SKIP() << "too slow without a GPU";
  const std::vector<TrialSequence> sequences = {{510, 4}, {600, 1}};
  ExpectNear(Reference(kBf16, WeightType::kBf16, sequences),
             Actual(kBf16, WeightType::kBf16, sequences), 2e-2f);
}

TEST_P(CudaContract, ATokensBitsDoNotDependOnTheBatch) {
  const std::unique_ptr<Backend> backend = *Cuda(where(), kBf16);
  OpTrial alone(*backend, shape(WeightType::kBf16));
  const TrialResult expected = alone.Run({{33, 1}});
  OpTrial together(*backend, shape(WeightType::kBf16));
  std::vector<TrialSequence> sequences = {{33, 1}};
  for (int i = 0; i < 63; ++i) sequences.push_back({i % 5, 1});
  const TrialResult actual = together.Run(sequences);
  for (const auto& [phase, bits] : expected) {
    EXPECT_EQ(bits, RowOf(actual.at(phase), phase == "head" ? 32 : 64, 0))
        << phase;
  }
}

TEST_P(CudaContract, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  const std::unique_ptr<Backend> backend = *Cuda(where(), kBf16);
  OpTrial whole(*backend, shape(WeightType::kBf16));
  const TrialResult expected = whole.Step({{0, 70}});
  OpTrial cut(*backend, shape(WeightType::kBf16));
  cut.Step({{0, 1}});
  cut.Step({{1, 7}});
  const TrialResult actual = cut.Step({{8, 62}});
  const Bits& all = expected.at("down");
  const size_t width = all.size() / 70;
  EXPECT_EQ(Bits(all.begin() + 8 * width, all.end()), actual.at("down"));
}

TEST_P(CudaContract, ChunksAcrossSplitBordersGiveTheBitsOfTheWhole) {
  if (SkipsLongContexts()) GTEST_SKIP() << "too slow without a GPU";
  const std::unique_ptr<Backend> backend = *Cuda(where(), kBf16);
  OpTrial whole(*backend, shape(WeightType::kBf16));
  whole.Step({{0, 505}});
  const TrialResult expected = whole.Step({{505, 30}});  // merged in place
  OpTrial cut(*backend, shape(WeightType::kBf16));
  cut.Step({{0, 505}});
  cut.Step({{505, 29}});
  const TrialResult actual = cut.Step({{534, 1}});  // splits side by side
  EXPECT_EQ(RowOf(expected.at("attend"), 30, 29), actual.at("attend"));
  EXPECT_EQ(RowOf(expected.at("down"), 30, 29), actual.at("down"));
}

TEST_P(CudaContract, AnEmptyStepIsNothing) {
  const std::unique_ptr<Backend> backend = *Cuda(where(), kBf16);
  OpTrial trial(*backend, shape(WeightType::kBf16));
  for (const auto& [phase, bits] : trial.Step({})) EXPECT_TRUE(bits.empty());
}

std::string ParameterName(
    const ::testing::TestParamInfo<std::tuple<Where, TrialShape>>& info) {
  return StrCat(NameOf(std::get<0>(info.param)), "_",
                std::get<1>(info.param).name);
}

INSTANTIATE_TEST_SUITE_P(
    Emulated, CudaContract,
    ::testing::Combine(::testing::Values(Where::kEmulated),
                       ::testing::ValuesIn(Shapes(WeightType::kBf16))),
    ParameterName);
INSTANTIATE_TEST_SUITE_P(
    EmulatedDescending, CudaContract,
    ::testing::Combine(::testing::Values(Where::kEmulatedDescending),
                       ::testing::Values(Shapes(WeightType::kBf16)[2])),
    ParameterName);
INSTANTIATE_TEST_SUITE_P(
    Machine, CudaContract,
    ::testing::Combine(::testing::Values(Where::kMachine),
                       ::testing::ValuesIn(Shapes(WeightType::kBf16))),
    ParameterName);

}  // namespace
}  // namespace caravan::worker
