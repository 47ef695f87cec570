#include "tests/worker/ops/cuda/emulated_gemm_library.h"

#include <algorithm>
#include <cstddef>

#include "common/status/errors.h"
#include "common/strings.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker::cuda {
namespace {

constexpr int kDepth = 16;  // of the tensor cores' instruction

// Columns [begin, end) of one element, rounded after every 16.
float Piece(const LibraryGemm& gemm, int64_t token, int64_t row, int64_t begin,
            int64_t end) {
  const uint16_t* const x = gemm.x + token * gemm.columns;
  const uint16_t* const w = gemm.w + row * gemm.columns;
  float sum = 0;
  for (int64_t k = begin; k < end; k += kDepth) {
    double step = sum;
    for (int64_t i = k; i < std::min(end, k + kDepth); ++i) {
      step += static_cast<double>(ToFloat(Bf16{x[i]})) * ToFloat(Bf16{w[i]});
    }
    sum = static_cast<float>(step);
  }
  return sum;
}

bool Aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace

GemmAlgorithm EmulatedGemmLibrary::Algorithm(int pieces) {
  GemmAlgorithm algorithm;
  algorithm.words[0] = static_cast<uint64_t>(pieces);
  algorithm.workspace_bytes = pieces > 1 ? 1024 * pieces : 0;
  return algorithm;
}

absl::StatusOr<std::vector<GemmAlgorithm>> EmulatedGemmLibrary::Candidates(
    const LibraryGemm& gemm, const GemmSearch& search) {
  if (gemm.rows % kLibraryUnit != 0 || gemm.columns % kLibraryUnit != 0) {
    return UnsupportedError(
        StrCat("product of ", gemm.rows, " x ", gemm.columns));
  }
  std::vector<GemmAlgorithm> found;
  for (int i = 0; i < static_cast<int>(options_.seconds.size()); ++i) {
    const GemmAlgorithm algorithm = Algorithm(i + 1);
    if (static_cast<int>(found.size()) < search.count &&
        (i == 0 || !search.ordered) &&
        algorithm.workspace_bytes <= search.workspace_bytes) {
      found.push_back(algorithm);
    }
  }
  return found;
}

bool EmulatedGemmLibrary::CanRun(const LibraryGemm& gemm) {
  const uint64_t pieces = gemm.algorithm.words[0];
  return pieces >= 1 && pieces <= options_.seconds.size() &&
         gemm.algorithm == Algorithm(static_cast<int>(pieces));
}

absl::Status EmulatedGemmLibrary::Run(const LibraryGemm& gemm) {
  if (!CanRun(gemm) || !Aligned(gemm.w) || !Aligned(gemm.x) ||
      !Aligned(gemm.y) || gemm.tokens < 1 ||
      (gemm.algorithm.workspace_bytes > 0 && gemm.workspace == nullptr)) {
    return MakeError(Reason::kInternal, "a product that the library refuses");
  }
  const int64_t algorithm = static_cast<int64_t>(gemm.algorithm.words[0]);
  const int64_t pieces =
      options_.splits_when_ordered && algorithm == 1 ? 2 : algorithm;
  for (int64_t t = 0; t < gemm.tokens; ++t) {
    for (int64_t n = 0; n < gemm.rows; ++n) {
      float sum = 0;
      for (int64_t p = 0; p < pieces; ++p) {
        sum += Piece(gemm, t, n, gemm.columns * p / pieces,
                     gemm.columns * (p + 1) / pieces);
      }
      float& y = gemm.y[t * gemm.stride + n];
      y = gemm.adds != 0 ? y + sum : sum;
    }
  }
  ++runs_[algorithm - 1];
  if (options_.clock != nullptr) {
    options_.clock->Advance(absl::Seconds(options_.seconds[algorithm - 1]));
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker::cuda
