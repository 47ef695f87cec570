#include "worker/ops/cuda/nccl.h"

#include <dlfcn.h>

#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker::cuda {
namespace {

constexpr int kSuccess = 0;
constexpr int kBytes = 1;  // ncclUint8

template <typename Function>
void Find(void* handle, const char* name, Function& function,
          std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) StrAppend(&missing, " ", name);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Nccl>> Nccl::Open(std::string_view name) {
  const std::shared_ptr<Nccl> library(new Nccl());
  library->handle_ = dlopen(std::string(name).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library->handle_ == nullptr) {
    return UnsupportedError(
        "--peers=nccl",
        StrCat("it needs ", name, " (", std::string(dlerror()),
               "); put its folder into LD_LIBRARY_PATH or use host"));
  }
  CARAVAN_RETURN_IF_ERROR(library->Resolve());
  return library;
}

Nccl::~Nccl() {
  if (handle_ != nullptr) dlclose(handle_);
}

absl::Status Nccl::Resolve() {
  std::string missing;
  Find(handle_, "ncclGetUniqueId", functions_.unique_id, missing);
  Find(handle_, "ncclCommInitRank", functions_.init_rank, missing);
  Find(handle_, "ncclAllGather", functions_.all_gather, missing);
  Find(handle_, "ncclCommDestroy", functions_.destroy, missing);
  Find(handle_, "ncclCommAbort", functions_.abort, missing);
  Find(handle_, "ncclGetErrorString", functions_.error_string, missing);
  if (missing.empty()) return absl::OkStatus();
  return UnsupportedError("--peers=nccl", StrCat("libnccl lacks", missing));
}

absl::Status Nccl::StatusOf(int result, std::string_view call) const {
  if (result == kSuccess) return absl::OkStatus();
  const std::string text = functions_.error_string(result);
  return MakeError(Reason::kInternal,
                   StrCat(call, ": ", text, " (", result, ")"),
                   {{"nccl_result", StrCat(result)}});
}

absl::StatusOr<NcclId> Nccl::MakeId() const {
  NcclId id = {};
  CARAVAN_RETURN_IF_ERROR(
      StatusOf(functions_.unique_id(&id), "ncclGetUniqueId"));
  return id;
}

absl::StatusOr<std::unique_ptr<NcclRank>> NcclRank::Join(
    std::shared_ptr<const Nccl> library, const NcclId& id, int rank,
    int ranks) {
  ncclComm* comm = nullptr;
  CARAVAN_RETURN_IF_ERROR(library->StatusOf(
      library->functions_.init_rank(&comm, ranks, id, rank),
      StrCat("ncclCommInitRank of rank ", rank, " of ", ranks)));
  return std::unique_ptr<NcclRank>(new NcclRank(std::move(library), comm));
}

NcclRank::~NcclRank() {
  ncclComm* const comm = comm_.exchange(nullptr);
  if (comm != nullptr) library_->functions_.destroy(comm);
}

absl::Status NcclRank::Gather(const PeerGather& gather, CUstream_st* stream) {
  ncclComm* const comm = comm_.load();
  if (comm == nullptr) {
    return MakeError(Reason::kInternal, "ncclAllGather: a rank has failed");
  }
  return library_->StatusOf(
      library_->functions_.all_gather(gather.part, gather.all,
                                      static_cast<size_t>(gather.bytes), kBytes,
                                      comm, stream),
      "ncclAllGather");
}

void NcclRank::Abort() {
  ncclComm* const comm = comm_.exchange(nullptr);
  if (comm != nullptr) library_->functions_.abort(comm);
}

}  // namespace caravan::worker::cuda
