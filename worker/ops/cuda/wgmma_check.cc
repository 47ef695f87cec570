#include "worker/ops/cuda/wgmma_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker::cuda {
namespace {

// A block of groups with two tiles each, a part of another, and a part of a
// tile of 64 rows.
constexpr int32_t kRowTiles = 19;
constexpr int32_t kRows = kRowTiles * kMmaRows;

// Steps of fewer tokens wait for weights, for which mma.sync has the finer cut.
constexpr int64_t kWgmmaTokens = 65;

float SeededValue(std::mt19937& random) {
  const float mantissa = 1.0f + static_cast<float>(random() >> 9) * 0x1p-23f;
  const int exponent = static_cast<int>(random() % 17) - 8;
  return std::ldexp(random() % 2 == 0 ? mantissa : -mantissa, exponent);
}

std::vector<Bf16> SeededWeights(int64_t count) {
  std::mt19937 random(17);
  std::vector<Bf16> values(static_cast<size_t>(count));
  for (Bf16& value : values) value = ToBf16(SeededValue(random));
  return values;
}

std::vector<float> SeededTokens(int64_t tokens, int64_t columns) {
  std::mt19937 random(23);
  std::vector<float> values(static_cast<size_t>(tokens * columns));
  for (float& value : values) value = SeededValue(random);
  return values;
}

// The operands of one product, and both results.
class Trial {
 public:
  Trial(Device& device, const SegmentTable& segments, int64_t tokens)
      : device_(device), segments_(segments), tokens_(tokens) {}

  absl::StatusOr<WgmmaVerdict> Compare() {
    CARAVAN_RETURN_IF_ERROR(Prepare());
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<float> expected, RunMma());
    WgmmaVerdict verdict = WgmmaVerdict::kSame;
    if (tokens_ <= 8) {
      CARAVAN_RETURN_IF_ERROR((Try<8, 1>(expected, verdict)));
    }
    if (tokens_ <= 32) {
      CARAVAN_RETURN_IF_ERROR((Try<32, 1>(expected, verdict)));
    }
    CARAVAN_RETURN_IF_ERROR((Try<128, 1>(expected, verdict)));
    if (segments_.count == 1) {
      CARAVAN_RETURN_IF_ERROR((Try<128, 2>(expected, verdict)));
    }
    return verdict;
  }

 private:
  absl::Status Prepare() {
    const std::vector<Bf16> weights = SeededWeights(kRows * segments_.depth());
    const std::vector<float> x = SeededTokens(tokens_, segments_.columns());
    CARAVAN_ASSIGN_OR_RETURN(
        weights_, DeviceBuffer::Allocate(&device_, weights.size() * 2));
    CARAVAN_ASSIGN_OR_RETURN(x_,
                             DeviceBuffer::Allocate(&device_, x.size() * 4));
    const int64_t padded = RoundUp(tokens_, kMmaTokens) * segments_.depth();
    CARAVAN_ASSIGN_OR_RETURN(operand_,
                             DeviceBuffer::Allocate(&device_, padded * 2));
    CARAVAN_ASSIGN_OR_RETURN(
        out_, DeviceBuffer::Allocate(&device_, tokens_ * kRows * 4));
    CARAVAN_RETURN_IF_ERROR(
        device_.Upload(weights_.data(), weights.data(), weights.size() * 2));
    return device_.Upload(x_.data(), x.data(), x.size() * 4);
  }

  absl::Status PackTokens(ActivationOrder order) {
    return device_.Launch<PackActivationsKernel>(
        {.x = RoundUp(tokens_, kMmaTokens),
         .threads = PackActivationsKernel::kThreads},
        {.x = x_.As<float>(),
         .stride = segments_.columns(),
         .tokens = static_cast<int32_t>(tokens_),
         .segments = segments_,
         .target = operand_.As<uint32_t>(),
         .order = order});
  }

  Weights weights() const {
    Weights weights;
    weights.data = weights_.data();
    weights.dtype = DType::kBf16;
    weights.fragments = true;
    weights.rows = kRows;
    weights.segments = segments_;
    return weights;
  }
  Epilogue epilogue() const {
    Epilogue epilogue;
    epilogue.out = out_.As<float>();
    epilogue.stride = kRows;
    epilogue.columns = kRows;
    return epilogue;
  }
  absl::StatusOr<std::vector<float>> Result() {
    std::vector<float> result(static_cast<size_t>(tokens_ * kRows));
    CARAVAN_RETURN_IF_ERROR(
        device_.Download(result.data(), out_.data(), result.size() * 4));
    return result;
  }

  absl::StatusOr<std::vector<float>> RunMma() {
    CARAVAN_RETURN_IF_ERROR(PackTokens(ActivationOrder::kRegisters));
    MmaShape shape = ShapeOfMma(kRowTiles, segments_.count, tokens_,
                                device_.multiprocessors());
    using Kernel = MmaGemmKernel<1>;
    shape.launch.y = CeilDiv(tokens_, kMmaTokens);
    shape.launch.shared_bytes = Kernel::kSharedBytes;
    CARAVAN_RETURN_IF_ERROR(device_.Launch<Kernel>(
        shape.launch, {.w = weights(),
                       .x = operand_.As<Words4>(),
                       .tokens = static_cast<int32_t>(tokens_),
                       .row_tiles = kRowTiles,
                       .warps = shape.warps,
                       .epilogue = epilogue()}));
    return Result();
  }

  // The worse of `verdict` and this kernel's.
  template <int kTokens, int kTiles>
  absl::Status Try(const std::vector<float>& expected, WgmmaVerdict& verdict) {
    using Kernel = WgmmaGemmKernel<kTokens, kTiles>;
    // What a kernel does not write must not look like a result.
    const std::vector<float> nothing(static_cast<size_t>(tokens_ * kRows), NAN);
    CARAVAN_RETURN_IF_ERROR(
        device_.Upload(out_.data(), nothing.data(), nothing.size() * 4));
    CARAVAN_RETURN_IF_ERROR(PackTokens(ActivationOrder::kSwizzled));
    CARAVAN_RETURN_IF_ERROR(
        device_.Launch<Kernel>({.x = CeilDiv(kRowTiles, Kernel::kRowTiles),
                                .y = CeilDiv(tokens_, kTokens),
                                .threads = Kernel::kThreads,
                                .shared_bytes = Kernel::kSharedBytes},
                               {.w = weights(),
                                .x = operand_.data(),
                                .tokens = static_cast<int32_t>(tokens_),
                                .row_tiles = kRowTiles,
                                .epilogue = epilogue()}));
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<float> actual, Result());
    verdict = std::max(verdict, Judge(expected, actual));
    return absl::OkStatus();
  }

  static WgmmaVerdict Judge(const std::vector<float>& expected,
                            const std::vector<float>& actual) {
    if (std::memcmp(expected.data(), actual.data(), expected.size() * 4) == 0) {
      return WgmmaVerdict::kSame;
    }
    float largest = 0;
    float difference = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::isnan(actual[i])) return WgmmaVerdict::kWrong;
      largest = std::max(largest, std::fabs(expected[i]));
      difference = std::max(difference, std::fabs(expected[i] - actual[i]));
    }
    return difference <= 1e-4f * largest ? WgmmaVerdict::kNear
                                         : WgmmaVerdict::kWrong;
  }

  Device& device_;
  const SegmentTable segments_;
  const int64_t tokens_;
  DeviceBuffer weights_, x_, operand_, out_;
};

}  // namespace

const char* Name(WgmmaVerdict verdict) {
  switch (verdict) {
    case WgmmaVerdict::kSame:
      return "same";
    case WgmmaVerdict::kNear:
      return "near";
    case WgmmaVerdict::kWrong:
      return "wrong";
  }
  return "";
}

absl::StatusOr<WgmmaVerdict> CompareWgmma(Device& device, int64_t columns) {
  WgmmaVerdict verdict = WgmmaVerdict::kSame;
  // Borders of 24 columns: segments that are not whole steps.
  for (const SegmentTable& segments :
       {OneSegment(columns - 1), EightSegments(columns / 24 * 24, 24)}) {
    for (const int64_t tokens : {8, 32, 130}) {
      CARAVAN_ASSIGN_OR_RETURN(const WgmmaVerdict one,
                               Trial(device, segments, tokens).Compare());
      verdict = std::max(verdict, one);
    }
  }
  return verdict;
}

absl::StatusOr<int64_t> WgmmaTokens(Device& device,
                                    const CudaOptions& options) {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  const bool asked = options.tensor_cores == TensorCores::kWgmma;
  if (options.tensor_cores == TensorCores::kMma ||
      options.numerics.activations != ActivationType::kBf16 ||
      (!asked && !device.wgmma())) {
    return kNever;
  }
  WgmmaVerdict verdict = WgmmaVerdict::kWrong;
  if (device.wgmma()) {
    CARAVAN_ASSIGN_OR_RETURN(verdict,
                             CompareWgmma(device, options.check_columns));
  }
  const bool usable =
      asked ? verdict != WgmmaVerdict::kWrong : verdict == WgmmaVerdict::kSame;
  if (usable) {
    LogInfo("wgmma_check", {{"bits", Name(verdict)}});
    return asked ? 1 : kWgmmaTokens;
  }
  if (asked) {
    return UnsupportedError("--tensor-cores=wgmma",
                            StrCat("this build on ", device.architecture(),
                                   " has no wgmma that computes"));
  }
  LogWarning("wgmma_check",
             {{"bits", Name(verdict)}, {"large_steps", "mma.sync"}});
  return kNever;
}

}  // namespace caravan::worker::cuda
