#include "worker/ops/cuda/gemm_tuner.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"

namespace caravan::worker::cuda {
namespace {

constexpr int kCandidates = 16;
// A candidate is timed for about as long, between these numbers of runs.
constexpr double kSecondsOfCandidate = 2e-3;
constexpr int kFewestRuns = 3;
constexpr int kMostRuns = 20;

GemmKey KeyOf(const LibraryGemm& gemm, int32_t tokens) {
  return {.rows = gemm.rows,
          .columns = gemm.columns,
          .tokens = tokens,
          .adds = gemm.adds != 0};
}

}  // namespace

absl::StatusOr<std::unique_ptr<GemmTuner>> GemmTuner::Create(
    Device* device, const Clock* clock, const TunerOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(GemmLibrary* const library, device->gemm_library());
  std::unique_ptr<GemmTuner> tuner(
      new GemmTuner(device, clock, options, library));
  if (!options.ordered) {
    CARAVAN_ASSIGN_OR_RETURN(
        tuner->workspace_, DeviceBuffer::Allocate(device, kGemmWorkspaceBytes));
  }
  if (options.file.empty()) return tuner;
  absl::StatusOr<GemmAlgorithms> read =
      GemmAlgorithms::Load(options.file, library->site());
  if (read.ok()) {
    tuner->algorithms_ = *std::move(read);
  } else if (ReasonOf(read.status()) != Reason::kNotFound) {
    return Annotate(read.status(), "--gemm-algorithms");
  }
  return tuner;
}

GemmSearch GemmTuner::Search(int count) const {
  return {.count = count,
          .workspace_bytes = options_.ordered ? 0 : kGemmWorkspaceBytes,
          .ordered = options_.ordered};
}

absl::StatusOr<GemmAlgorithm> GemmTuner::Guess(const LibraryGemm& gemm) {
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<GemmAlgorithm> candidates,
                           library_.Candidates(gemm, Search(1)));
  return candidates.front();
}

absl::StatusOr<LibraryGemm> GemmTuner::Plan(const LibraryGemm& gemm) {
  LibraryGemm planned = gemm;
  planned.workspace = workspace_.data();
  const GemmKey exact = KeyOf(gemm, gemm.tokens);
  if (const auto known = planned_.find(exact); known != planned_.end()) {
    planned.algorithm = known->second;
    return planned;
  }
  const GemmAlgorithms::Entry* const measured =
      algorithms_.Find(KeyOf(gemm, GemmTokenBucket(gemm.tokens)));
  if (measured != nullptr) planned.algorithm = measured->algorithm;
  if (measured == nullptr || !library_.CanRun(planned)) {
    CARAVAN_ASSIGN_OR_RETURN(planned.algorithm, Guess(gemm));
  }
  planned_.emplace(exact, planned.algorithm);
  return planned;
}

absl::StatusOr<double> GemmTuner::Time(LibraryGemm gemm,
                                       std::span<const uint16_t* const> weights,
                                       int count) {
  CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
  const absl::Time begin = clock_.Now();
  for (int i = 0; i < count; ++i) {
    gemm.w = weights[i % weights.size()];
    CARAVAN_RETURN_IF_ERROR(device_.Multiply(gemm));
  }
  CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
  return absl::ToDoubleSeconds(clock_.Now() - begin) / count;
}

absl::Status GemmTuner::Measure(const LibraryGemm& gemm,
                                std::span<const uint16_t* const> weights) {
  const GemmKey key = KeyOf(gemm, GemmTokenBucket(gemm.tokens));
  if (algorithms_.Find(key) != nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<GemmAlgorithm> candidates,
                           library_.Candidates(gemm, Search(kCandidates)));
  std::vector<double> seconds;
  for (const GemmAlgorithm& candidate : candidates) {
    LibraryGemm run = gemm;
    run.algorithm = candidate;
    run.workspace = workspace_.data();
    // The first run also loads the kernel.
    CARAVAN_RETURN_IF_ERROR(Time(run, weights, 1).status());
    CARAVAN_ASSIGN_OR_RETURN(const double once, Time(run, weights, 1));
    const double runs = once > 0 ? kSecondsOfCandidate / once : kMostRuns;
    const int count =
        static_cast<int>(std::clamp<double>(runs, kFewestRuns, kMostRuns));
    CARAVAN_ASSIGN_OR_RETURN(const double time, Time(run, weights, count));
    seconds.push_back(time);
  }
  const size_t best = FastestOf(seconds);
  // A clock that stood still has said nothing, but the order of guesses has.
  algorithms_.Put(key, {candidates[best], std::max(seconds[best], 1e-9)});
  planned_.clear();
  ++measured_;
  return absl::OkStatus();
}

absl::Status GemmTuner::Save() {
  if (options_.file.empty() || measured_ == 0) return absl::OkStatus();
  measured_ = 0;
  return Annotate(algorithms_.Save(options_.file), "--gemm-algorithms");
}

}  // namespace caravan::worker::cuda
