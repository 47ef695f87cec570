// A library of products for the emulated device: a plain loop in several
// algorithms, which differ in how many pieces of K they add last, as a real
// library's do, and in how long they pretend to take.
#ifndef CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_GEMM_LIBRARY_H_
#define CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_GEMM_LIBRARY_H_

#include <vector>

#include "tests/support/manual_clock.h"
#include "worker/ops/cuda/gemm_library.h"

namespace caravan::worker::cuda {

struct EmulatedLibraryOptions {
  GemmSite site = {"emulated 1", "none", "host"};
  // Of a product by each algorithm, in the order of the library's guesses;
  // algorithm i adds i + 1 pieces.
  std::vector<double> seconds = {3e-5, 1e-5, 2e-5};
  testing::ManualClock* clock = nullptr;  // advanced by them
  // Whether the first algorithm adds the halves of K too, unasked.
  bool splits_when_ordered = false;
};

// The first algorithm has the bits of MmaGemmKernel with one segment.
class EmulatedGemmLibrary final : public GemmLibrary {
 public:
  explicit EmulatedGemmLibrary(EmulatedLibraryOptions options)
      : options_(std::move(options)) {}

  static GemmAlgorithm Algorithm(int pieces);

  const GemmSite& site() const override { return options_.site; }
  absl::StatusOr<std::vector<GemmAlgorithm>> Candidates(
      const LibraryGemm& gemm, const GemmSearch& search) override;
  bool CanRun(const LibraryGemm& gemm) override;
  absl::Status Run(const LibraryGemm& gemm) override;

  // Runs of each algorithm so far.
  const std::vector<int>& runs() const { return runs_; }

 private:
  const EmulatedLibraryOptions options_;
  std::vector<int> runs_ = std::vector<int>(options_.seconds.size());
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_GEMM_LIBRARY_H_
