#include "worker/bench/ceilings.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status/status_macros.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker::bench {
namespace {

constexpr int64_t kInterleaveBytes = int64_t{1} << 20;
constexpr int64_t kPrefetchBytes = 2048;

const cpu::KernelTable& BestKernels() {
  if (const cpu::KernelTable* kernels = cpu::Avx512Kernels()) return *kernels;
  if (const cpu::KernelTable* kernels = cpu::Avx2Kernels()) return *kernels;
  return *cpu::PortableKernels();
}

template <typename Body>
double Seconds(const Body& body) {
  const absl::Time start = absl::Now();
  body();
  return absl::ToDoubleSeconds(absl::Now() - start);
}

}  // namespace

Ceilings::Ceilings(std::unique_ptr<cpu::ThreadTeam> team, Buffer memory)
    : kernels_(BestKernels()),
      team_(std::move(team)),
      memory_(std::move(memory)) {
  std::memset(memory_.data(), 1, memory_.size());  // real pages, not the zero
}

absl::StatusOr<std::unique_ptr<Ceilings>> Ceilings::Create(int threads,
                                                           size_t bytes) {
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<cpu::ThreadTeam> team,
                           cpu::ThreadTeam::Create(threads, /*pin=*/false));
  const size_t unit = kInterleaveBytes * static_cast<size_t>(threads);
  CARAVAN_ASSIGN_OR_RETURN(
      Buffer memory,
      Buffer::Allocate(std::max<size_t>(1, bytes / unit) * unit));
  return std::unique_ptr<Ceilings>(
      new Ceilings(std::move(team), std::move(memory)));
}

double Ceilings::TimeRead(int64_t share_bytes, int64_t prefetch_bytes) {
  const int64_t total = static_cast<int64_t>(memory_.size());
  std::vector<float> sums(team_->size());
  const double seconds = Seconds([&] {
    team_->Run([&](int member) {
      for (int64_t at = member * share_bytes; at < total;
           at += share_bytes * team_->size()) {
        sums[member] += kernels_.probe_read(memory_.data() + at, share_bytes,
                                            prefetch_bytes);
      }
    });
  });
  return seconds;
}

ReadCeiling Ceilings::Read(int repeats) {
  const int64_t total = static_cast<int64_t>(memory_.size());
  const struct {
    const char* name;
    int64_t share;
    int64_t prefetch;
  } patterns[] = {
      {"contiguous", total / team_->size(), 0},
      {"contiguous+prefetch", total / team_->size(), kPrefetchBytes},
      {"interleaved 1 MiB", kInterleaveBytes, 0}};
  ReadCeiling best;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (const auto& pattern : patterns) {
      const double rate = static_cast<double>(total) /
                          TimeRead(pattern.share, pattern.prefetch);
      if (rate > best.bytes_per_second) best = {rate, pattern.name};
    }
  }
  return best;
}

double Ceilings::FmaPerSecond() {
  constexpr int64_t kRounds = 2'000'000;
  std::vector<double> operations(team_->size());
  std::vector<float> sums(team_->size(), 1.0f);
  const double seconds = Seconds([&] {
    team_->Run([&](int member) {
      operations[member] = kernels_.probe_fma(kRounds, &sums[member]);
    });
  });
  double total = 0;
  for (const double count : operations) total += count;
  return total / seconds;
}

}  // namespace caravan::worker::bench
