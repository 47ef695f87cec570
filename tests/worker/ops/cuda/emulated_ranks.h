// Ranks that are emulated devices, which meet in host memory.
#ifndef CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_RANKS_H_
#define CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_RANKS_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/host_exchange.h"
#include "worker/shard/rank_backend.h"

namespace caravan::worker::testing {

class EmulatedRanks {
 public:
  explicit EmulatedRanks(int count)
      : memory_(cuda::HostExchange::MemoryBytes(count)),
        exchange_(count, memory_.data()),
        count_(count) {}

  // One backend of all ranks; this must outlive it.
  std::unique_ptr<RankBackend> Make(const CudaOptions& cuda,
                                    bool gathers_in_graphs = true) {
    RankOptions options;
    options.ranks = count_;
    options.threads = count_;
    options.numerics = cuda.numerics;
    options.nodes = {AllowedCores()};
    options.make_rank = [&](int, bool) {
      return MakeRank(cuda, gathers_in_graphs);
    };
    options.give_up = [this](const absl::Status& status) {
      exchange_.Break(status);
    };
    auto ranks = RankBackend::Create(options);
    EXPECT_OK(ranks.status());
    return *std::move(ranks);
  }

  cuda::EmulatedDevice& device(size_t rank) { return *devices_[rank]; }
  cuda::HostExchange& exchange() { return exchange_; }

 private:
  absl::StatusOr<std::unique_ptr<Backend>> MakeRank(CudaOptions cuda,
                                                    bool gathers_in_graphs) {
    cuda.rank = static_cast<int32_t>(devices_.size());
    cuda.ranks = count_;
    cuda::EmulatedOptions options;
    options.exchange = &exchange_;
    options.rank = cuda.rank;
    options.gathers_in_graphs = gathers_in_graphs;
    auto device = std::make_unique<cuda::EmulatedDevice>(options);
    devices_.push_back(device.get());
    return cuda::MakeBackendOn(std::move(device), cuda);
  }

  std::vector<std::byte> memory_;
  cuda::HostExchange exchange_;
  const int count_;
  std::vector<cuda::EmulatedDevice*> devices_;
};

}  // namespace caravan::worker::testing

#endif  // CARAVAN_TESTS_WORKER_OPS_CUDA_EMULATED_RANKS_H_
