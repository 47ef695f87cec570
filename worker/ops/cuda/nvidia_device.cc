#include "worker/ops/cuda/nvidia_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/ops/cuda/kernels.h"
#include "worker/ops/cuda/nvidia_gemm_library.h"
#include "worker/ops/cuda/upload_ring.h"

namespace caravan::worker {
namespace cuda {
namespace {

// Uploads go through a ring of pinned buffers: the copy engine reads some while
// others are filled. One thread copies 8 to 12 GB/s, a link takes 50.
constexpr size_t kPinnedBytes = size_t{4} << 20;
constexpr size_t kPinnedCount = 16;
constexpr int kReaders = 4;

// An error of the runtime as a status: what was called and what it said.
absl::Status StatusOf(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string name = cudaGetErrorName(error);
  const std::string text =
      StrCat(call, ": ", name, ": ", std::string(cudaGetErrorString(error)));
  const Reason reason = error == cudaErrorMemoryAllocation ? Reason::kMemoryPlan
                                                           : Reason::kInternal;
  return MakeError(reason, text, {{"cuda_error", name}});
}

#define CARAVAN_RETURN_IF_CUDA_ERROR(call) \
  CARAVAN_RETURN_IF_ERROR(StatusOf((call), #call))

class Stream {
 public:
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  absl::Status Create() {
    CARAVAN_RETURN_IF_CUDA_ERROR(
        cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    return absl::OkStatus();
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Page-locked host memory, and when the device has read it.
class PinnedBuffer {
 public:
  ~PinnedBuffer() {
    if (read_ != nullptr) cudaEventDestroy(read_);
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  absl::Status Create() {
    CARAVAN_RETURN_IF_CUDA_ERROR(
        cudaHostAlloc(&data_, kPinnedBytes, cudaHostAllocDefault));
    CARAVAN_RETURN_IF_CUDA_ERROR(
        cudaEventCreateWithFlags(&read_, cudaEventDisableTiming));
    return absl::OkStatus();
  }
  absl::Status WaitUntilRead() const {
    CARAVAN_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(read_));
    return absl::OkStatus();
  }
  absl::Status Upload(void* target, size_t bytes, const Stream& stream) const {
    CARAVAN_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(
        target, data_, bytes, cudaMemcpyHostToDevice, stream.get()));
    CARAVAN_RETURN_IF_CUDA_ERROR(cudaEventRecord(read_, stream.get()));
    return absl::OkStatus();
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaEvent_t read_ = nullptr;
};

// Buffers that send to one stream.
class PinnedRing final : public RingBuffers {
 public:
  explicit PinnedRing(const Stream* stream) : stream_(*stream) {}
  absl::Status Create() {
    for (PinnedBuffer& buffer : buffers_) {
      CARAVAN_RETURN_IF_ERROR(buffer.Create());
    }
    return absl::OkStatus();
  }
  std::byte* data(size_t buffer) override {
    return static_cast<std::byte*>(buffers_[buffer].data());
  }
  absl::Status WaitUntilRead(size_t buffer) override {
    return buffers_[buffer].WaitUntilRead();
  }
  absl::Status Send(size_t buffer, void* target, size_t bytes) override {
    return buffers_[buffer].Upload(target, bytes, stream_);
  }

 private:
  const Stream& stream_;
  std::array<PinnedBuffer, kPinnedCount> buffers_;
};

class NvidiaGraph final : public DeviceGraph {
 public:
  ~NvidiaGraph() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  }
  // Of what `stream` captured; takes the capture.
  absl::Status Create(cudaGraph_t captured) {
    const absl::Status status = StatusOf(
        cudaGraphInstantiate(&graph_, captured, 0), "cudaGraphInstantiate");
    cudaGraphDestroy(captured);
    return status;
  }
  cudaGraphExec_t get() const { return graph_; }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

class NvidiaDevice final : public Device {
 public:
  explicit NvidiaDevice(const NvidiaOptions& options)
      : ordinal_(options.ordinal),
        peers_(options.peers),
        early_starts_(options.early_starts) {}
  ~NvidiaDevice() override { cudaStreamSynchronize(stream_.get()); }

  absl::Status Open();

  std::string architecture() const override { return architecture_; }
  int multiprocessors() const override { return multiprocessors_; }
  bool wgmma() const override { return architecture_ == "sm90"; }
  bool fp8() const override { return fp8_; }
  absl::StatusOr<size_t> FreeBytes() override;
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
  bool gathers_in_graphs() const override {
    return peers_ != nullptr && peers_->in_graphs();
  }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> Instantiate(
      const LaunchList& launches) override;
  absl::Status Replay(const DeviceGraph& graph) override;
  absl::Status Synchronize() override;

 private:
  // The first failure, which every later call gives again.
  absl::Status Sticky(absl::Status status);
  // The calling thread may be another than the one before.
  absl::Status Select();
  absl::Status AllowSharedBytes();

  const int32_t ordinal_;
  const std::shared_ptr<NvidiaPeers> peers_;
  const bool early_starts_;
  int major_ = 0;  // of the compute capability
  std::string architecture_;
  bool fp8_ = false;
  int multiprocessors_ = 0;
  int64_t most_shared_bytes_ = 0;  // of a block
  Stream stream_;
  std::unique_ptr<GemmLibrary> library_;  // opened when it is asked for
  PinnedRing pinned_{&stream_};
  UploadRing ring_{
      {.count = kPinnedCount, .bytes = kPinnedBytes, .readers = kReaders},
      &pinned_};
  std::map<const std::byte*, size_t> memory_;  // by end
  absl::Status failure_;
};

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int32_t ordinal) {
  int value = 0;
  CARAVAN_RETURN_IF_CUDA_ERROR(
      cudaDeviceGetAttribute(&value, attribute, ordinal));
  return value;
}

absl::Status NvidiaDevice::Open() {
  CARAVAN_RETURN_IF_ERROR(Select());
  CARAVAN_ASSIGN_OR_RETURN(
      major_, Attribute(cudaDevAttrComputeCapabilityMajor, ordinal_));
  CARAVAN_ASSIGN_OR_RETURN(
      const int minor, Attribute(cudaDevAttrComputeCapabilityMinor, ordinal_));
  architecture_ = StrCat("sm", major_, minor);
  fp8_ = 10 * major_ + minor >= 89;
  CARAVAN_ASSIGN_OR_RETURN(multiprocessors_,
                           Attribute(cudaDevAttrMultiProcessorCount, ordinal_));
  CARAVAN_ASSIGN_OR_RETURN(
      most_shared_bytes_,
      Attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal_));
  CARAVAN_RETURN_IF_ERROR(stream_.Create());
  CARAVAN_RETURN_IF_ERROR(pinned_.Create());
  return AllowSharedBytes();
}

// Also finds kernels that this build does not have for the device.
absl::Status NvidiaDevice::AllowSharedBytes() {
  for (int i = 0; i < AllKernels::kCount; ++i) {
    cudaFuncAttributes attributes;
    const cudaError_t error =
        cudaFuncGetAttributes(&attributes, KernelFunction(i));
    if (error != cudaSuccess) {
      return UnsupportedError(
          "--device=cuda",
          StrCat("this build has no kernels for ", architecture_, " (",
                 std::string(cudaGetErrorName(error)), ")"));
    }
    const int64_t dynamic =
        most_shared_bytes_ - static_cast<int64_t>(attributes.sharedSizeBytes);
    CARAVAN_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(
        KernelFunction(i), cudaFuncAttributeMaxDynamicSharedMemorySize,
        static_cast<int>(dynamic)));
  }
  return absl::OkStatus();
}

absl::Status NvidiaDevice::Sticky(absl::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
  return failure_;
}

absl::Status NvidiaDevice::Select() {
  CARAVAN_RETURN_IF_ERROR(failure_);
  return Sticky(StatusOf(cudaSetDevice(ordinal_), "cudaSetDevice"));
}

absl::StatusOr<size_t> NvidiaDevice::FreeBytes() {
  CARAVAN_RETURN_IF_ERROR(Select());
  size_t free = 0;
  size_t total = 0;
  CARAVAN_RETURN_IF_ERROR(
      Sticky(StatusOf(cudaMemGetInfo(&free, &total), "cudaMemGetInfo")));
  return free;
}

absl::StatusOr<void*> NvidiaDevice::Allocate(size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Select());
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {  // not sticky: it can be handled
    cudaGetLastError();
    return StatusOf(error, StrCat("cudaMalloc of ", bytes, " bytes"));
  }
  CARAVAN_RETURN_IF_ERROR(Sticky(StatusOf(error, "cudaMalloc")));
  CARAVAN_RETURN_IF_ERROR(Sticky(StatusOf(
      cudaMemsetAsync(memory, 0, bytes, stream_.get()), "cudaMemsetAsync")));
  memory_.emplace(static_cast<const std::byte*>(memory) + bytes, bytes);
  return memory;
}

void NvidiaDevice::Free(void* memory) {
  const auto found = memory_.upper_bound(static_cast<const std::byte*>(memory));
  if (found != memory_.end()) memory_.erase(found);
  cudaStreamSynchronize(stream_.get());  // kernels may still read it
  cudaFree(memory);
}

bool NvidiaDevice::Owns(const void* address) const {
  const auto* const byte = static_cast<const std::byte*>(address);
  const auto found = memory_.upper_bound(byte);
  return found != memory_.end() && byte >= found->first - found->second;
}

absl::Status NvidiaDevice::Upload(void* target, const void* source,
                                  size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Select());
  return Sticky(ring_.Upload(target, source, bytes));
}

absl::Status NvidiaDevice::Download(void* target, const void* source,
                                    size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Select());
  CARAVAN_RETURN_IF_ERROR(
      Sticky(StatusOf(cudaMemcpyAsync(target, source, bytes,
                                      cudaMemcpyDeviceToHost, stream_.get()),
                      "cudaMemcpyAsync to the host")));
  return Synchronize();
}

absl::Status NvidiaDevice::LaunchIndex(int index, const LaunchShape& shape,
                                       const void* args) {
  CARAVAN_RETURN_IF_ERROR(Select());
  if (shape.shared_bytes > most_shared_bytes_) {
    return MakeError(
        Reason::kInternal,
        StrCat("shared memory of kernel ", index, " must be at most ",
               most_shared_bytes_, " bytes; got ", shape.shared_bytes));
  }
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim =
      dim3(static_cast<unsigned>(shape.x), static_cast<unsigned>(shape.y),
           static_cast<unsigned>(shape.z));
  launch.blockDim = dim3(static_cast<unsigned>(shape.threads));
  launch.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  launch.stream = stream_.get();
  launch.attrs = &early;
  launch.numAttrs =
      early_starts_ && StartsEarly(shape, major_, multiprocessors_) ? 1 : 0;
  void* parameters[] = {const_cast<void*>(args)};
  const cudaError_t error =
      cudaLaunchKernelExC(&launch, KernelFunction(index), parameters);
  return Sticky(StatusOf(error, StrCat("launch of kernel ", index)));
}

absl::StatusOr<GemmLibrary*> NvidiaDevice::gemm_library() {
  CARAVAN_RETURN_IF_ERROR(Select());
  if (library_ == nullptr) {
    CARAVAN_ASSIGN_OR_RETURN(library_,
                             OpenNvidiaGemmLibrary(ordinal_, stream_.get()));
  }
  return library_.get();
}

absl::Status NvidiaDevice::Multiply(const LibraryGemm& gemm) {
  CARAVAN_ASSIGN_OR_RETURN(GemmLibrary* const library, gemm_library());
  return Sticky(library->Run(gemm));
}

absl::Status NvidiaDevice::Gather(const PeerGather& gather) {
  CARAVAN_RETURN_IF_ERROR(Select());
  if (peers_ == nullptr) return Device::Gather(gather);
  return Sticky(peers_->Gather(ordinal_, gather, stream_.get()));
}

// The stream records instead of running; it must be left recording nothing.
absl::StatusOr<std::unique_ptr<DeviceGraph>> NvidiaDevice::Instantiate(
    const LaunchList& launches) {
  CARAVAN_RETURN_IF_ERROR(Select());
  CARAVAN_RETURN_IF_ERROR(Sticky(StatusOf(
      cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
      "cudaStreamBeginCapture")));
  const absl::Status launched = launches.LaunchOn(*this);
  cudaGraph_t captured = nullptr;
  const absl::Status ended = StatusOf(
      cudaStreamEndCapture(stream_.get(), &captured), "cudaStreamEndCapture");
  CARAVAN_RETURN_IF_ERROR(launched);
  CARAVAN_RETURN_IF_ERROR(Sticky(ended));
  auto graph = std::make_unique<NvidiaGraph>();
  CARAVAN_RETURN_IF_ERROR(Sticky(graph->Create(captured)));
  return graph;
}

absl::Status NvidiaDevice::Replay(const DeviceGraph& graph) {
  CARAVAN_RETURN_IF_ERROR(Select());
  const auto& own = static_cast<const NvidiaGraph&>(graph);
  return Sticky(
      StatusOf(cudaGraphLaunch(own.get(), stream_.get()), "cudaGraphLaunch"));
}

absl::Status NvidiaDevice::Synchronize() {
  CARAVAN_RETURN_IF_ERROR(Select());
  return Sticky(
      StatusOf(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenNvidiaDevice(
    const NvidiaOptions& options) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || options.ordinal < 0 || options.ordinal >= count) {
    return UnsupportedError(
        "--device=cuda",
        StrCat("this machine has ", count, " CUDA devices",
               error == cudaSuccess
                   ? std::string()
                   : StrCat(" (", std::string(cudaGetErrorString(error)), ")"),
               "; use cpu"));
  }
  auto device = std::make_unique<NvidiaDevice>(options);
  CARAVAN_RETURN_IF_ERROR(device->Open());
  return device;
}

}  // namespace cuda

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(
    const CudaOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<cuda::Device> device,
      cuda::OpenNvidiaDevice(
          {.ordinal = options.device, .early_starts = options.early_starts}));
  return cuda::MakeBackendOn(std::move(device), options);
}

absl::StatusOr<CudaRanks> MakeCudaRanks(const CudaOptions& options,
                                        CudaPeers by) {
  CARAVAN_ASSIGN_OR_RETURN(
      const std::shared_ptr<cuda::NvidiaPeers> peers,
      cuda::LinkNvidiaDevices(static_cast<int>(options.ranks), by));
  CudaRanks made;
  for (int32_t rank = 0; rank < options.ranks; ++rank) {
    CARAVAN_ASSIGN_OR_RETURN(
        std::unique_ptr<cuda::Device> device,
        cuda::OpenNvidiaDevice({.ordinal = rank,
                                .peers = peers,
                                .early_starts = options.early_starts}));
    CudaOptions own = options;
    own.device = rank;
    own.rank = rank;
    CARAVAN_ASSIGN_OR_RETURN(made.backends.emplace_back(),
                             cuda::MakeBackendOn(std::move(device), own));
  }
  made.give_up = [peers](const absl::Status& status) { peers->Break(status); };
  return made;
}

absl::StatusOr<cuda::DeviceCeilings> MeasureCudaCeilings(int32_t device) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Device> opened,
                           cuda::OpenNvidiaDevice({.ordinal = device}));
  return cuda::MeasureCeilings(opened.get(), SystemClock::Get(),
                               cuda::CeilingOptions());
}

}  // namespace caravan::worker
