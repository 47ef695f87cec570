// NCCL, opened at run time: what gathering between devices needs of it. The
// declarations are ours, of its documented C interface, so neither its header
// nor the library is needed to build.
#ifndef CARAVAN_WORKER_OPS_CUDA_NCCL_H_
#define CARAVAN_WORKER_OPS_CUDA_NCCL_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/device.h"

struct CUstream_st;
struct ncclComm;

namespace caravan::worker::cuda {

// By which ranks find each other.
struct NcclId {
  char internal[128];
};

// The library; open while this is. Thread-safe.
class Nccl {
 public:
  static constexpr std::string_view kName = "libnccl.so.2";

  // kUnsupportedParameter, naming what is missing, where there is no such
  // library or it lacks a function.
  static absl::StatusOr<std::shared_ptr<const Nccl>> Open(
      std::string_view name = kName);
  ~Nccl();
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  absl::StatusOr<NcclId> MakeId() const;

 private:
  friend class NcclRank;
  // As its header declares them; results and types are ints there too.
  struct Functions {
    int (*unique_id)(NcclId* id) = nullptr;
    int (*init_rank)(ncclComm** comm, int ranks, NcclId id, int rank) = nullptr;
    int (*all_gather)(const void* part, void* all, size_t count, int type,
                      ncclComm* comm, CUstream_st* stream) = nullptr;
    int (*destroy)(ncclComm* comm) = nullptr;
    int (*abort)(ncclComm* comm) = nullptr;
    const char* (*error_string)(int result) = nullptr;
  };

  Nccl() = default;
  absl::Status Resolve();
  absl::Status StatusOf(int result, std::string_view call) const;

  void* handle_ = nullptr;
  Functions functions_;
};

// One rank of a group. One caller at a time, but for Abort.
class NcclRank {
 public:
  // On the device that is the calling thread's; waits until every rank of the
  // group calls it, each on a thread of its own.
  static absl::StatusOr<std::unique_ptr<NcclRank>> Join(
      std::shared_ptr<const Nccl> library, const NcclId& id, int rank,
      int ranks);
  // Waits for the others as Join does, unless the rank was aborted.
  ~NcclRank();
  NcclRank(const NcclRank&) = delete;
  NcclRank& operator=(const NcclRank&) = delete;

  // In the order of `stream`; may be captured.
  absl::Status Gather(const PeerGather& gather, CUstream_st* stream);
  // Ends what this rank waits for, now and later. From any thread.
  void Abort();

 private:
  NcclRank(std::shared_ptr<const Nccl> library, ncclComm* comm)
      : library_(std::move(library)), comm_(comm) {}

  const std::shared_ptr<const Nccl> library_;
  std::atomic<ncclComm*> comm_;  // null: aborted
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_NCCL_H_
