#include "worker/ops/cuda/device_ceilings.h"

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/cuda/gemm_tuner.h"
#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {
namespace {

class Measurement {
 public:
  Measurement(Device* device, const Clock& clock, const CeilingOptions& options)
      : device_(*device), clock_(clock), options_(options) {}

  absl::StatusOr<DeviceCeilings> Run() {
    CARAVAN_ASSIGN_OR_RETURN(memory_,
                             DeviceBuffer::Allocate(&device_, options_.bytes));
    CARAVAN_RETURN_IF_ERROR(Fill());
    DeviceCeilings found;
    found.card = device_.architecture();
    CARAVAN_ASSIGN_OR_RETURN(found.read_bytes_per_second, Read());
    CARAVAN_ASSIGN_OR_RETURN(found.copy_bytes_per_second, Copy());
    CARAVAN_ASSIGN_OR_RETURN(found.mma_flops, Mma());
    const absl::StatusOr<GemmLibrary*> library = device_.gemm_library();
    if (!library.ok()) return found;
    const GemmSite& site = (*library)->site();
    found.card =
        StrCat(site.card, ", driver ", site.driver, ", ", site.library);
    CARAVAN_ASSIGN_OR_RETURN(found.gemm_flops, Gemm());
    return found;
  }

 private:
  // Median seconds of a call that starts work, after one that is not counted.
  absl::StatusOr<double> Time(const std::function<absl::Status()>& start) {
    std::vector<double> times;
    for (int i = 0; i <= options_.repeats; ++i) {
      CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
      const absl::Time begin = clock_.Now();
      CARAVAN_RETURN_IF_ERROR(start());
      CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
      const double time = absl::ToDoubleSeconds(clock_.Now() - begin);
      if (i > 0) times.push_back(std::max(time, 1e-9));
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2,
                     times.end());
    return times[times.size() / 2];
  }

  // Random bf16 values: zeros would run faster than anything real.
  absl::Status Fill() {
    std::mt19937 random(1);
    std::vector<uint16_t> values(size_t{1} << 20);
    for (uint16_t& value : values) {  // magnitudes of 2^-7 to 2^-6
      value = static_cast<uint16_t>((random() & 0x807f) | 0x3c00);
    }
    const size_t piece = values.size() * sizeof(uint16_t);
    for (size_t at = 0; at < options_.bytes; at += piece) {
      CARAVAN_RETURN_IF_ERROR(
          device_.Upload(memory_.As<std::byte>() + at, values.data(),
                         std::min(piece, options_.bytes - at)));
    }
    return absl::OkStatus();
  }

  int32_t Blocks() const { return 4 * device_.multiprocessors(); }

  absl::StatusOr<double> Read() {
    CARAVAN_ASSIGN_OR_RETURN(const DeviceBuffer sums, Sums());
    CARAVAN_ASSIGN_OR_RETURN(
        const double seconds, Time([&] {
          return device_.Launch<ReadCeilingKernel>(
              {.x = Blocks(), .threads = ReadCeilingKernel::kThreads},
              {.data = memory_.As<Words4>(),
               .count = static_cast<int64_t>(options_.bytes / sizeof(Words4)),
               .blocks = Blocks(),
               .sums = sums.As<uint32_t>()});
        }));
    return static_cast<double>(options_.bytes) / seconds;
  }

  // Two of four pieces of memory, each in layers of a launch's size.
  absl::StatusOr<double> Copy() {
    constexpr int64_t kMostChunks = 32768;  // of a launch's y
    const int64_t words = static_cast<int64_t>(options_.bytes / 16);
    const int64_t chunks =
        std::clamp<int64_t>(words / CopyBlockKernel::kWords, 1, kMostChunks);
    const int64_t block = std::min(words, chunks * CopyBlockKernel::kWords);
    const int64_t layers = words / block;
    CARAVAN_ASSIGN_OR_RETURN(
        const double seconds, Time([&] {
          return device_.Launch<CopyBlockKernel>(
              {.x = layers, .y = chunks, .threads = CopyBlockKernel::kThreads},
              {.data = memory_.As<uint32_t>(),
               .layer_words = 2 * block,
               .block_words = block,
               .source = 0,
               .target = 1});
        }));
    return 2.0 * 4.0 * static_cast<double>(layers * block) / seconds;
  }

  absl::StatusOr<double> Mma() {
    CARAVAN_ASSIGN_OR_RETURN(const DeviceBuffer sums, Sums());
    CARAVAN_ASSIGN_OR_RETURN(
        const double seconds, Time([&] {
          return device_.Launch<MmaCeilingKernel>(
              {.x = Blocks(), .threads = MmaCeilingKernel::kThreads},
              {.rounds = options_.mma_rounds, .sums = sums.As<float>()});
        }));
    const double warps =
        static_cast<double>(Blocks()) * (MmaCeilingKernel::kThreads / 32);
    return 2.0 * 16 * 8 * 16 * options_.mma_rounds * MmaCeilingKernel::kChains *
           warps / seconds;
  }

  // The best of the library's algorithms for one large product.
  absl::StatusOr<double> Gemm() {
    LibraryGemm gemm;
    gemm.rows = gemm.columns = options_.gemm_size;
    gemm.tokens = std::min(options_.gemm_size, kMaxGemmTokens);
    gemm.stride = gemm.rows;
    gemm.w = memory_.As<uint16_t>();
    const int64_t w = int64_t{gemm.rows} * gemm.columns;
    const int64_t x = int64_t{gemm.tokens} * gemm.columns;
    const int64_t y = int64_t{gemm.tokens} * gemm.rows;
    const size_t needed = static_cast<size_t>((w + x) * 2 + y * 4);
    if (needed > options_.bytes) {
      return FieldError("bytes of the ceilings", StrCat("at least ", needed),
                        StrCat(options_.bytes));
    }
    gemm.x = gemm.w + w;
    gemm.y = reinterpret_cast<float*>(memory_.As<uint16_t>() + w + x);
    CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<GemmTuner> tuner,
                             GemmTuner::Create(&device_, &clock_, {}));
    CARAVAN_RETURN_IF_ERROR(
        tuner->Measure(gemm, std::span<const uint16_t* const>(&gemm.w, 1)));
    CARAVAN_ASSIGN_OR_RETURN(const LibraryGemm planned, tuner->Plan(gemm));
    CARAVAN_ASSIGN_OR_RETURN(const double seconds,
                             Time([&] { return device_.Multiply(planned); }));
    return 2.0 * static_cast<double>(w) * gemm.tokens / seconds;
  }

  absl::StatusOr<DeviceBuffer> Sums() {
    return DeviceBuffer::Allocate(
        &device_, sizeof(float) * Blocks() * ReadCeilingKernel::kThreads);
  }

  Device& device_;
  const Clock& clock_;
  const CeilingOptions options_;
  DeviceBuffer memory_;
};

}  // namespace

absl::StatusOr<DeviceCeilings> MeasureCeilings(Device* device,
                                               const Clock& clock,
                                               const CeilingOptions& options) {
  return Measurement(device, clock, options).Run();
}

}  // namespace caravan::worker::cuda
