#include "worker/ops/cuda/nvidia_gemm_library.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker::cuda {
namespace {

// Descriptors that are kept; prompts of many lengths would fill memory.
constexpr size_t kMaxDescriptors = 1024;

// Of x and y (LibraryGemm); of w it is what the library takes for granted, 256.
constexpr uint32_t kAlignment = 16;

// The library's functions, as its header declares them.
struct Functions {
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtGetStatusName) status_name = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_matmul = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_matmul = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_matmul = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algorithm_config = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) check = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

// The shared library; open while this is.
class SharedLibrary {
 public:
  SharedLibrary() = default;
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;
  ~SharedLibrary() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  absl::Status Open() {
    const std::string name = StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) {
      return UnsupportedError(
          "--profile=fast",
          StrCat("it needs ", name, " (", std::string(dlerror()),
                 "); put its folder into LD_LIBRARY_PATH or use exact"));
    }
    return Resolve();
  }
  const Functions& functions() const { return functions_; }

 private:
  template <typename Function>
  void Find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    if (function == nullptr) StrAppend(&missing_, " ", name);
  }
  absl::Status Resolve() {
    Functions& f = functions_;
    Find("cublasLtGetVersion", f.version);
    Find("cublasLtGetStatusName", f.status_name);
    Find("cublasLtCreate", f.create);
    Find("cublasLtDestroy", f.destroy);
    Find("cublasLtMatmulDescCreate", f.create_matmul);
    Find("cublasLtMatmulDescDestroy", f.destroy_matmul);
    Find("cublasLtMatmulDescSetAttribute", f.set_matmul);
    Find("cublasLtMatrixLayoutCreate", f.create_layout);
    Find("cublasLtMatrixLayoutDestroy", f.destroy_layout);
    Find("cublasLtMatmulPreferenceCreate", f.create_preference);
    Find("cublasLtMatmulPreferenceDestroy", f.destroy_preference);
    Find("cublasLtMatmulPreferenceSetAttribute", f.set_preference);
    Find("cublasLtMatmulAlgoGetHeuristic", f.heuristic);
    Find("cublasLtMatmulAlgoConfigGetAttribute", f.algorithm_config);
    Find("cublasLtMatmulAlgoCheck", f.check);
    Find("cublasLtMatmul", f.matmul);
    if (missing_.empty()) return absl::OkStatus();
    return UnsupportedError("--profile=fast",
                            StrCat("libcublasLt lacks", missing_));
  }

  void* handle_ = nullptr;
  Functions functions_;
  std::string missing_;
};

absl::Status StatusOf(const Functions& functions, cublasStatus_t status,
                      std::string_view call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string name = functions.status_name(status);
  return MakeError(Reason::kInternal, StrCat(call, ": ", name),
                   {{"cublas_status", name}});
}

// Anything of the library that is made and destroyed.
template <typename Handle>
class Owned {
 public:
  using Destroy = cublasStatus_t (*)(Handle);
  Owned() = default;
  Owned(Handle handle, Destroy destroy) : handle_(handle), destroy_(destroy) {}
  Owned(Owned&& other) noexcept { *this = std::move(other); }
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(destroy_, other.destroy_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) destroy_(handle_);
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
  Destroy destroy_ = nullptr;
};

// A product's operation and matrices. Row-major Y = X W^T is column-major
// Y' = W'^T X': A is W as (columns, rows), transposed, B is X as (columns,
// tokens), C and D are Y as (rows, tokens).
struct Descriptors {
  Owned<cublasLtMatmulDesc_t> matmul;
  Owned<cublasLtMatrixLayout_t> w, x, y;
};

using ShapeKey = std::tuple<int32_t, int32_t, int32_t, int64_t>;

cublasLtMatmulAlgo_t OpaqueOf(const GemmAlgorithm& algorithm) {
  cublasLtMatmulAlgo_t opaque;
  static_assert(sizeof(opaque.data) == sizeof(algorithm.words));
  std::memcpy(opaque.data, algorithm.words.data(), sizeof(opaque.data));
  return opaque;
}

class NvidiaGemmLibrary final : public GemmLibrary {
 public:
  explicit NvidiaGemmLibrary(cudaStream_t stream) : stream_(stream) {}

  absl::Status Open(int32_t ordinal);

  const GemmSite& site() const override { return site_; }
  absl::StatusOr<std::vector<GemmAlgorithm>> Candidates(
      const LibraryGemm& gemm, const GemmSearch& search) override;
  bool CanRun(const LibraryGemm& gemm) override;
  absl::Status Run(const LibraryGemm& gemm) override;

 private:
  const Functions& functions() const { return library_.functions(); }
  absl::Status Check(cublasStatus_t status, std::string_view call) const {
    return StatusOf(functions(), status, call);
  }
  absl::Status ReadSite(int32_t ordinal);
  absl::StatusOr<Owned<cublasLtMatrixLayout_t>> Layout(cudaDataType_t type,
                                                       int64_t rows,
                                                       int64_t columns,
                                                       int64_t stride) const;
  absl::StatusOr<Descriptors> Describe(const LibraryGemm& gemm) const;
  absl::StatusOr<const Descriptors*> DescriptorsOf(const LibraryGemm& gemm);
  absl::StatusOr<Owned<cublasLtMatmulPreference_t>> PreferenceOf(
      const GemmSearch& search) const;
  bool SplitsK(const cublasLtMatmulAlgo_t& algorithm) const;

  SharedLibrary library_;  // outlives what it made
  const cudaStream_t stream_;
  GemmSite site_;
  Owned<cublasLtHandle_t> handle_;
  std::map<ShapeKey, Descriptors> descriptors_;
};

absl::Status NvidiaGemmLibrary::Open(int32_t ordinal) {
  CARAVAN_RETURN_IF_ERROR(library_.Open());
  cublasLtHandle_t handle = nullptr;
  CARAVAN_RETURN_IF_ERROR(Check(functions().create(&handle), "cublasLtCreate"));
  handle_ = {handle, functions().destroy};
  return ReadSite(ordinal);
}

absl::Status NvidiaGemmLibrary::ReadSite(int32_t ordinal) {
  int driver = 0;
  cudaDeviceProp card;
  if (cudaDriverGetVersion(&driver) != cudaSuccess ||
      cudaGetDeviceProperties(&card, ordinal) != cudaSuccess) {
    return MakeError(Reason::kInternal, "the card's properties are not told");
  }
  site_.library = StrCat("cublasLt ", functions().version());
  site_.driver = StrCat(driver);
  site_.card = StrCat(std::string(card.name), ", sm", card.major, card.minor,
                      ", ", card.multiProcessorCount, " SMs");
  return absl::OkStatus();
}

absl::StatusOr<Owned<cublasLtMatrixLayout_t>> NvidiaGemmLibrary::Layout(
    cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride) const {
  cublasLtMatrixLayout_t layout = nullptr;
  CARAVAN_RETURN_IF_ERROR(Check(
      functions().create_layout(&layout, type, static_cast<uint64_t>(rows),
                                static_cast<uint64_t>(columns), stride),
      "cublasLtMatrixLayoutCreate"));
  return Owned<cublasLtMatrixLayout_t>(layout, functions().destroy_layout);
}

absl::StatusOr<Descriptors> NvidiaGemmLibrary::Describe(
    const LibraryGemm& gemm) const {
  Descriptors made;
  cublasLtMatmulDesc_t matmul = nullptr;
  CARAVAN_RETURN_IF_ERROR(
      Check(functions().create_matmul(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F),
            "cublasLtMatmulDescCreate"));
  made.matmul = {matmul, functions().destroy_matmul};
  const cublasOperation_t transposed = CUBLAS_OP_T;
  CARAVAN_RETURN_IF_ERROR(
      Check(functions().set_matmul(matmul, CUBLASLT_MATMUL_DESC_TRANSA,
                                   &transposed, sizeof(transposed)),
            "cublasLtMatmulDescSetAttribute"));
  CARAVAN_ASSIGN_OR_RETURN(
      made.w, Layout(CUDA_R_16BF, gemm.columns, gemm.rows, gemm.columns));
  CARAVAN_ASSIGN_OR_RETURN(
      made.x, Layout(CUDA_R_16BF, gemm.columns, gemm.tokens, gemm.columns));
  CARAVAN_ASSIGN_OR_RETURN(
      made.y, Layout(CUDA_R_32F, gemm.rows, gemm.tokens, gemm.stride));
  return made;
}

absl::StatusOr<const Descriptors*> NvidiaGemmLibrary::DescriptorsOf(
    const LibraryGemm& gemm) {
  const ShapeKey key = {gemm.rows, gemm.columns, gemm.tokens, gemm.stride};
  const auto found = descriptors_.find(key);
  if (found != descriptors_.end()) return &found->second;
  CARAVAN_ASSIGN_OR_RETURN(Descriptors made, Describe(gemm));
  if (descriptors_.size() >= kMaxDescriptors) descriptors_.clear();
  return &descriptors_.emplace(key, std::move(made)).first->second;
}

absl::StatusOr<Owned<cublasLtMatmulPreference_t>>
NvidiaGemmLibrary::PreferenceOf(const GemmSearch& search) const {
  cublasLtMatmulPreference_t made = nullptr;
  CARAVAN_RETURN_IF_ERROR(Check(functions().create_preference(&made),
                                "cublasLtMatmulPreferenceCreate"));
  Owned<cublasLtMatmulPreference_t> preference(made,
                                               functions().destroy_preference);
  const uint64_t workspace = static_cast<uint64_t>(search.workspace_bytes);
  CARAVAN_RETURN_IF_ERROR(Check(
      functions().set_preference(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                 &workspace, sizeof(workspace)),
      "cublasLtMatmulPreferenceSetAttribute"));
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    CARAVAN_RETURN_IF_ERROR(
        Check(functions().set_preference(made, attribute, &kAlignment,
                                         sizeof(kAlignment)),
              "cublasLtMatmulPreferenceSetAttribute"));
  }
  if (search.ordered) {
    const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
    CARAVAN_RETURN_IF_ERROR(Check(
        functions().set_preference(made,
                                   CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                   &none, sizeof(none)),
        "cublasLtMatmulPreferenceSetAttribute"));
  }
  return preference;
}

bool NvidiaGemmLibrary::SplitsK(const cublasLtMatmulAlgo_t& algorithm) const {
  int32_t pieces = 0;
  size_t written = 0;
  const cublasStatus_t status =
      functions().algorithm_config(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                   &pieces, sizeof(pieces), &written);
  return status != CUBLAS_STATUS_SUCCESS || pieces > 1 || pieces < 0;
}

absl::StatusOr<std::vector<GemmAlgorithm>> NvidiaGemmLibrary::Candidates(
    const LibraryGemm& gemm, const GemmSearch& search) {
  CARAVAN_ASSIGN_OR_RETURN(const Descriptors* const shape, DescriptorsOf(gemm));
  CARAVAN_ASSIGN_OR_RETURN(const auto preference, PreferenceOf(search));
  std::vector<cublasLtMatmulHeuristicResult_t> results(search.count);
  int count = 0;
  const cublasStatus_t status = functions().heuristic(
      handle_.get(), shape->matmul.get(), shape->w.get(), shape->x.get(),
      shape->y.get(), shape->y.get(), preference.get(), search.count,
      results.data(), &count);
  std::vector<GemmAlgorithm> found;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = results[i];
    if (result.state != CUBLAS_STATUS_SUCCESS) continue;
    if (search.ordered && SplitsK(result.algo)) continue;
    GemmAlgorithm& algorithm = found.emplace_back();
    std::memcpy(algorithm.words.data(), result.algo.data,
                sizeof(result.algo.data));
    algorithm.workspace_bytes = static_cast<int64_t>(result.workspaceSize);
  }
  if (!found.empty()) return found;
  return UnsupportedError(
      StrCat("a product of ", gemm.tokens, " x ", gemm.columns, " x ",
             gemm.rows, " in cuBLASLt"),
      std::string(functions().status_name(status)));
}

bool NvidiaGemmLibrary::CanRun(const LibraryGemm& gemm) {
  const auto shape = DescriptorsOf(gemm);
  if (!shape.ok()) return false;
  const cublasLtMatmulAlgo_t algorithm = OpaqueOf(gemm.algorithm);
  cublasLtMatmulHeuristicResult_t result;
  const cublasStatus_t status =
      functions().check(handle_.get(), (*shape)->matmul.get(),
                        (*shape)->w.get(), (*shape)->x.get(), (*shape)->y.get(),
                        (*shape)->y.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS &&
         static_cast<int64_t>(result.workspaceSize) <=
             gemm.algorithm.workspace_bytes;
}

absl::Status NvidiaGemmLibrary::Run(const LibraryGemm& gemm) {
  CARAVAN_ASSIGN_OR_RETURN(const Descriptors* const shape, DescriptorsOf(gemm));
  const cublasLtMatmulAlgo_t algorithm = OpaqueOf(gemm.algorithm);
  const float alpha = 1;
  const float beta = gemm.adds != 0 ? 1 : 0;
  return Check(
      functions().matmul(
          handle_.get(), shape->matmul.get(), &alpha, gemm.w, shape->w.get(),
          gemm.x, shape->x.get(), &beta, gemm.y, shape->y.get(), gemm.y,
          shape->y.get(), &algorithm, gemm.workspace,
          static_cast<size_t>(gemm.algorithm.workspace_bytes), stream_),
      "cublasLtMatmul");
}

}  // namespace

absl::StatusOr<std::unique_ptr<GemmLibrary>> OpenNvidiaGemmLibrary(
    int32_t ordinal, CUstream_st* stream) {
  auto library = std::make_unique<NvidiaGemmLibrary>(stream);
  CARAVAN_RETURN_IF_ERROR(library->Open(ordinal));
  return library;
}

}  // namespace caravan::worker::cuda
