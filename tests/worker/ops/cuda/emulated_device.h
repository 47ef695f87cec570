// A device that runs the CUDA backend's kernels on the host, thread by thread:
// every index, barrier and layout is exercised without a GPU. Threads of a
// block are fibers that yield where they wait for each other. The tensor
// cores' instruction is written here from the tables of the PTX ISA, apart
// from the maps that the kernels use.
#ifndef CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_DEVICE_H_
#define CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/worker/ops/cuda/emulated_gemm_library.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/host_exchange.h"

namespace caravan::worker::cuda {

struct EmulatedOptions {
  // Threads run in descending order between barriers: a result that depends on
  // the order misses a barrier.
  bool descending = false;
  int multiprocessors = 2;
  std::optional<EmulatedLibraryOptions> library = {};  // none: as it says
  bool wgmma = false;
  bool fp8 = true;
  // Peers, which this device meets as `rank`; must outlive it.
  HostExchange* exchange = nullptr;
  int rank = 0;
  bool gathers_in_graphs = true;
};

// Errors name kernels by their place in AllKernels: barriers that some threads
// do not reach, blocks with too many threads.
class EmulatedDevice final : public Device {
 public:
  explicit EmulatedDevice(const EmulatedOptions& options) : options_(options) {
    if (options.library) {
      library_ = std::make_unique<EmulatedGemmLibrary>(*options.library);
    }
  }

  std::string architecture() const override { return "emulated"; }
  int multiprocessors() const override { return options_.multiprocessors; }
  bool wgmma() const override { return options_.wgmma; }
  bool fp8() const override { return options_.fp8; }
  absl::StatusOr<size_t> FreeBytes() override { return size_t{1} << 30; }

  absl::StatusOr<void*> Allocate(size_t bytes) override;
  void Free(void* memory) override;
  bool Owns(const void* address) const override;
  absl::Status Upload(void* target, const void* source, size_t bytes) override;
  absl::Status Download(void* target, const void* source,
                        size_t bytes) override;
  absl::Status LaunchIndex(int index, const LaunchShape& shape,
                           const void* args) override;
  absl::StatusOr<GemmLibrary*> gemm_library() override;
  absl::Status Multiply(const LibraryGemm& gemm) override;
  absl::Status Gather(const PeerGather& gather) override;
  bool gathers_in_graphs() const override { return options_.gathers_in_graphs; }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> Instantiate(
      const LaunchList& launches) override;
  absl::Status Replay(const DeviceGraph& graph) override;
  absl::Status Synchronize() override { return Health(); }

  // What happened so far; those of a graph are no launches.
  struct Counts {
    int launches = 0;
    int attempts = 0;  // launches, and those of graphs
    int graphs = 0;
    int replays = 0;
  };
  const Counts& counts() const { return counts_; }
  // Null without one.
  const EmulatedGemmLibrary* library() const { return library_.get(); }

  // After `launches` more, whatever is asked of the device fails, as after a
  // fault of a kernel. Call it while nothing runs.
  void FailAfterLaunches(int launches) {
    last_attempt_ = counts_.attempts + launches;
  }

 private:
  absl::Status Health() const;
  absl::Status Run(int index, const LaunchShape& shape, const void* args);

  const EmulatedOptions options_;
  std::unique_ptr<EmulatedGemmLibrary> library_;
  std::map<const std::byte*, std::vector<std::byte>> memory_;  // by end
  Counts counts_;
  bool replaying_ = false;
  int last_attempt_ = std::numeric_limits<int>::max();
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_DEVICE_H_
