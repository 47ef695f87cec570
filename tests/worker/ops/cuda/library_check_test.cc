// The exact profile with a library: used for shapes whose bits are equal, and
// without a change of any bit.
#include "worker/ops/cuda/library_check.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/status/errors.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/cuda/cuda_backend.h"

namespace caravan::worker {
namespace {

using testing::OpTrial;
using testing::TrialResult;
using testing::TrialShape;

constexpr NumericsOptions kBf16 = {ActivationType::kBf16, DType::kBf16};

// A backend on a device with a library, of equal bits or not.
struct Checked {
  Checked(int32_t check_tokens, bool equal_bits) {
    cuda::EmulatedOptions emulated;
    emulated.library.emplace();
    emulated.library->splits_when_ordered = !equal_bits;
    auto owned = std::make_unique<cuda::EmulatedDevice>(emulated);
    device = owned.get();
    CudaOptions options;
    options.numerics = kBf16;
    options.library_check_tokens = check_tokens;
    backend = *cuda::MakeBackendOn(std::move(owned), options);
  }
  int runs() const {
    int sum = 0;
    for (const int runs : device->library()->runs()) sum += runs;
    return sum;
  }
  TrialResult Step() {
    TrialShape shape = {.name = "Gqa", .weights = WeightType::kBf16};
    OpTrial trial(*backend, shape);
    packed_runs = runs();
    return trial.Run({{0, 1}, {9, 1}, {3, 7}});
  }

  const cuda::EmulatedDevice* device;
  std::unique_ptr<Backend> backend;
  int packed_runs = 0;
};

TEST(LibraryCheckTest, EqualBitsAreUsedAndChangeNothing) {
  Checked without(0, true);
  Checked with(16, true);
  EXPECT_EQ(without.Step(), with.Step());
  EXPECT_EQ(without.runs(), 0);
  EXPECT_GT(with.runs(), with.packed_runs);
  EXPECT_EQ(without.backend->NumericsClass({WeightType::kBf16}),
            with.backend->NumericsClass({WeightType::kBf16}));
}

TEST(LibraryCheckTest, OtherBitsAreNotUsed) {
  Checked without(0, true);
  Checked with(16, false);
  EXPECT_EQ(without.Step(), with.Step());
  EXPECT_GT(with.packed_runs, 0);
  EXPECT_EQ(with.runs(), with.packed_runs);
}

TEST(LibraryCheckTest, MoreTokensThanWereCheckedAreSeveralCalls) {
  Checked without(0, true);
  Checked with(4, true);
  EXPECT_EQ(without.Step(), with.Step());
}

TEST(LibraryCheckTest, ALibraryThatIsMissingIsNamed) {
  CudaOptions options;
  options.numerics = kBf16;
  options.library_check_tokens = 1;
  const auto on = [&](int32_t tokens) {
    options.library_check_tokens = tokens;
    return cuda::MakeBackendOn(
               std::make_unique<cuda::EmulatedDevice>(cuda::EmulatedOptions()),
               options)
        .status();
  };
  EXPECT_EQ(ReasonOf(on(1)), Reason::kUnsupportedParameter);
  EXPECT_EQ(ReasonOf(on(4097)), Reason::kInvalidField);
  EXPECT_EQ(ReasonOf(on(-1)), Reason::kInvalidField);
}

}  // namespace
}  // namespace caravan::worker
