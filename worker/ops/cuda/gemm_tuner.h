// Chooses algorithms of a device's library: measured ones where there are, the
// library's guess elsewhere.
#ifndef CARAVAN_WORKER_OPS_CUDA_GEMM_TUNER_H_
#define CARAVAN_WORKER_OPS_CUDA_GEMM_TUNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/gemm_algorithms.h"
#include "worker/ops/cuda/gemm_library.h"

namespace caravan::worker::cuda {

struct TunerOptions {
  // Algorithms that were measured before; what is measured is added to it. "":
  // none.
  std::string file = {};
  // Only algorithms that split no K, without a workspace.
  bool ordered = false;
};

// One caller at a time.
class GemmTuner {
 public:
  // kUnsupportedParameter where the device has no library. A file of another
  // site, or a damaged one, is refused; one that is missing is made by Save.
  static absl::StatusOr<std::unique_ptr<GemmTuner>> Create(
      Device* device, const Clock* clock, const TunerOptions& options);

  // The gemm with an algorithm: of the file or of Measure where it can run,
  // else the library's best guess, which is the same in every process.
  // kUnsupportedParameter where the library has none for the shape.
  absl::StatusOr<LibraryGemm> Plan(const LibraryGemm& gemm);

  // Times the library's algorithms for that product, over `weights` in turn so
  // that caches do not keep them, and keeps the fastest; nothing where it is
  // known. y's contents are lost.
  absl::Status Measure(const LibraryGemm& gemm,
                       std::span<const uint16_t* const> weights);

  // Writes the file if Measure added to it.
  absl::Status Save();

  int measured() const { return measured_; }
  // Of what Plan would choose from (GemmAlgorithms::Digest).
  std::string Digest() const { return algorithms_.Digest(); }

 private:
  GemmTuner(Device* device, const Clock* clock, const TunerOptions& options,
            GemmLibrary* library)
      : device_(*device),
        clock_(*clock),
        options_(options),
        library_(*library),
        algorithms_(library->site()) {}

  GemmSearch Search(int count) const;
  absl::StatusOr<GemmAlgorithm> Guess(const LibraryGemm& gemm);
  // Seconds of one product of `count`; the device is idle at both ends.
  absl::StatusOr<double> Time(LibraryGemm gemm,
                              std::span<const uint16_t* const> weights,
                              int count);

  Device& device_;
  const Clock& clock_;
  const TunerOptions options_;
  GemmLibrary& library_;
  GemmAlgorithms algorithms_;
  DeviceBuffer workspace_;
  // What Plan decided, by the exact number of tokens.
  std::map<GemmKey, GemmAlgorithm> planned_;
  int measured_ = 0;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_GEMM_TUNER_H_
