#include "worker/ops/cuda/nvidia_peers.h"

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/cuda/host_exchange.h"
#include "worker/ops/cuda/nccl.h"

namespace caravan::worker::cuda {
namespace {

absl::Status StatusOf(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  return MakeError(Reason::kInternal,
                   StrCat(call, ": ", std::string(cudaGetErrorName(error)),
                          ": ", std::string(cudaGetErrorString(error))),
                   {{"cuda_error", cudaGetErrorName(error)}});
}

// Calls body(rank) on a thread for each rank, with its device.
template <typename Body>
absl::Status OnDevices(int ranks, const Body& body) {
  std::vector<absl::Status> statuses(static_cast<size_t>(ranks));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        absl::Status& status = statuses[static_cast<size_t>(rank)];
        status = StatusOf(cudaSetDevice(rank), "cudaSetDevice");
        if (status.ok()) status = body(rank);
      });
    }
  }
  for (absl::Status& status : statuses) {
    CARAVAN_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

class NcclPeers final : public NvidiaPeers {
 public:
  explicit NcclPeers(int ranks) : ranks_(static_cast<size_t>(ranks)) {}
  ~NcclPeers() override {
    OnDevices(static_cast<int>(ranks_.size()), [this](int rank) {
      ranks_[static_cast<size_t>(rank)].reset();
      return absl::OkStatus();
    }).IgnoreError();
  }

  absl::Status Join() {
    CARAVAN_ASSIGN_OR_RETURN(const std::shared_ptr<const Nccl> library,
                             Nccl::Open());
    CARAVAN_ASSIGN_OR_RETURN(const NcclId id, library->MakeId());
    const int count = static_cast<int>(ranks_.size());
    return OnDevices(count, [&](int rank) -> absl::Status {
      CARAVAN_ASSIGN_OR_RETURN(ranks_[static_cast<size_t>(rank)],
                               NcclRank::Join(library, id, rank, count));
      return absl::OkStatus();
    });
  }

  absl::Status Gather(int rank, const PeerGather& gather,
                      CUstream_st* stream) override {
    return ranks_[static_cast<size_t>(rank)]->Gather(gather, stream);
  }
  bool in_graphs() const override { return true; }
  void Break(const absl::Status&) override {
    for (const auto& rank : ranks_) rank->Abort();
  }

 private:
  std::vector<std::unique_ptr<NcclRank>> ranks_;
};

// Between a device and page-locked memory.
class PinnedCopies final : public ExchangeCopies {
 public:
  explicit PinnedCopies(CUstream_st* stream) : stream_(stream) {}
  absl::Status ToHost(void* target, const void* source, size_t n) override {
    CARAVAN_RETURN_IF_ERROR(StatusOf(
        cudaMemcpyAsync(target, source, n, cudaMemcpyDeviceToHost, stream_),
        "cudaMemcpyAsync to a peer"));
    return StatusOf(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  absl::Status FromHost(void* target, const void* source, size_t n) override {
    return StatusOf(
        cudaMemcpyAsync(target, source, n, cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync from a peer");
  }

 private:
  CUstream_st* const stream_;
};

// A host thread cannot wait inside of a graph: launches are direct.
class HostPeers final : public NvidiaPeers {
 public:
  HostPeers(int ranks, std::byte* pinned)
      : pinned_(pinned), exchange_(ranks, pinned) {}
  ~HostPeers() override { cudaFreeHost(pinned_); }

  absl::Status Gather(int rank, const PeerGather& gather,
                      CUstream_st* stream) override {
    PinnedCopies copies(stream);
    return exchange_.Gather(rank, gather, copies);
  }
  bool in_graphs() const override { return false; }
  void Break(const absl::Status& status) override { exchange_.Break(status); }

 private:
  std::byte* const pinned_;
  HostExchange exchange_;
};

absl::StatusOr<std::shared_ptr<NvidiaPeers>> LinkByHost(int ranks) {
  void* pinned = nullptr;
  CARAVAN_RETURN_IF_ERROR(
      StatusOf(cudaHostAlloc(&pinned, HostExchange::MemoryBytes(ranks),
                             cudaHostAllocPortable),
               "cudaHostAlloc"));
  return std::make_shared<HostPeers>(ranks, static_cast<std::byte*>(pinned));
}

absl::StatusOr<std::shared_ptr<NvidiaPeers>> LinkByNccl(int ranks) {
  auto peers = std::make_shared<NcclPeers>(ranks);
  CARAVAN_RETURN_IF_ERROR(peers->Join());
  return peers;
}

}  // namespace

absl::StatusOr<std::shared_ptr<NvidiaPeers>> LinkNvidiaDevices(int ranks,
                                                               CudaPeers by) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count < ranks) {
    return UnsupportedError(
        StrCat("--ranks=", ranks),
        StrCat("each rank needs a CUDA device; this machine has ",
               error == cudaSuccess ? count : 0));
  }
  return by == CudaPeers::kHost ? LinkByHost(ranks) : LinkByNccl(ranks);
}

}  // namespace caravan::worker::cuda
