#include "worker/bench/ceilings.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "worker/ops/cpu/int8_probe.h"

namespace caravan::worker::bench {
namespace {

constexpr int64_t kInterleaveBytes = int64_t{1} << 20;
constexpr int64_t kPrefetchBytes = 2048;

const cpu::KernelTable& BestKernels() {
  for (const cpu::KernelTable* kernels :
       {cpu::Avx512Bf16Kernels(), cpu::Avx512Kernels(), cpu::Avx2Kernels()}) {
    if (kernels != nullptr) return *kernels;
  }
  return *cpu::PortableKernels();
}

template <typename Body>
double Seconds(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

std::string_view Name(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return "fp32";
    case Arithmetic::kBf16:
      return "bf16";
    case Arithmetic::kInt8:
      return "int8";
  }
  return "unknown";
}

Arithmetic ArithmeticOf(std::string_view numerics_class) {
  const auto names = [numerics_class](std::string_view part) {
    return numerics_class.find(part) != std::string_view::npos;
  };
  if (names("/a:int8")) return Arithmetic::kInt8;
  if (names("/a:bf16")) return Arithmetic::kBf16;
  return Arithmetic::kFp32;
}

Ceilings::Ceilings(std::unique_ptr<cpu::ThreadTeam> team, Buffer memory)
    : kernels_(BestKernels()),
      team_(std::move(team)),
      memory_(std::move(memory)) {
  std::memset(memory_.data(), 1, memory_.size());  // real pages, not the zero
}

absl::StatusOr<std::unique_ptr<Ceilings>> Ceilings::Create(int threads,
                                                           bool pin,
                                                           size_t bytes) {
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<cpu::ThreadTeam> team,
                           cpu::ThreadTeam::Create(threads, pin));
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
  return Seconds([&] {
    team_->Run([&](int member) {
      for (int64_t at = member * share_bytes; at < total;
           at += share_bytes * team_->size()) {
        sums[member] += kernels_.probe_read(memory_.data() + at, share_bytes,
                                            prefetch_bytes);
      }
    });
  });
}

ReadCeiling Ceilings::Read(double seconds) {
  const int64_t total = static_cast<int64_t>(memory_.size());
  struct Pattern {
    const char* name;
    int64_t share;
    int64_t prefetch;
    double seconds;
  };
  std::array<Pattern, 3> patterns = {
      {{"contiguous", total / team_->size(), 0, 0},
       {"contiguous+prefetch", total / team_->size(), kPrefetchBytes, 0},
       {"interleaved 1 MiB", kInterleaveBytes, 0, 0}}};
  double spent = 0;
  int rounds = 0;
  for (; rounds == 0 || spent < seconds; ++rounds) {
    for (Pattern& pattern : patterns) {
      const double took = TimeRead(pattern.share, pattern.prefetch);
      pattern.seconds += took;
      spent += took;
    }
  }
  const Pattern& best = *std::min_element(
      patterns.begin(), patterns.end(),
      [](const Pattern& a, const Pattern& b) { return a.seconds < b.seconds; });
  return {static_cast<double>(total) * rounds / best.seconds, best.name};
}

absl::StatusOr<double> Ceilings::CopyPerSecond() {
  CARAVAN_ASSIGN_OR_RETURN(Buffer target, Buffer::Allocate(memory_.size()));
  const size_t share = memory_.size() / static_cast<size_t>(team_->size());
  const double seconds = Seconds([&] {
    team_->Run([&](int member) {
      const size_t begin = static_cast<size_t>(member) * share;
      std::memcpy(target.data() + begin, memory_.data() + begin, share);
    });
  });
  return static_cast<double>(share) * team_->size() / seconds;
}

double Ceilings::Compute(Arithmetic arithmetic, int64_t rounds,
                         int member) const {
  float sum = static_cast<float>(1 + member);
  int32_t total = 1 + member;
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return kernels_.probe_fma(rounds, &sum);
    case Arithmetic::kBf16:
      return kernels_.probe_bf16_dot(rounds, &sum);
    case Arithmetic::kInt8:
      return cpu::BestInt8Probe().dot(rounds, &total);
  }
  return 0;
}

double Ceilings::OperationsPerSecond(Arithmetic arithmetic, double seconds) {
  constexpr int64_t kRounds = 100'000;
  std::vector<double> operations(team_->size());
  double spent = 0;
  while (spent == 0 || spent < seconds) {
    spent += Seconds([&] {
      team_->Run([&](int member) {
        operations[member] += Compute(arithmetic, kRounds, member);
      });
    });
  }
  double total = 0;
  for (const double count : operations) total += count;
  return total / spent;
}

}  // namespace caravan::worker::bench
