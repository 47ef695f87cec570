// What this machine can do at best, measured now: other tenants share its
// memory, so a figure means something only beside a measurement of the same
// minute.
#ifndef CARAVAN_WORKER_BENCH_CEILINGS_H_
#define CARAVAN_WORKER_BENCH_CEILINGS_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker::bench {

// Which of the machine's multipliers a class of numerics is bound by.
enum class Arithmetic { kFp32, kBf16, kInt8 };

// "fp32", "bf16", "int8".
std::string_view Name(Arithmetic arithmetic);

// By the activations that a numerics class such as
// "cpu-avx512/w:q8_0/a:int8/kv:bf16/v1" names; kFp32 where it names none.
Arithmetic ArithmeticOf(std::string_view numerics_class);

struct ReadCeiling {
  double bytes_per_second = 0;
  std::string pattern;  // the best of the three
};

// Holds the memory that is read (in 2 MiB pages) and a team.
//
// Not thread-safe: one caller at a time; measures badly beside other load.
class Ceilings {
 public:
  // Many times the size of a last-level cache.
  static constexpr size_t kDefaultBytes = size_t{512} << 20;

  // Errors: kInvalidField (threads), kMemoryPlan.
  static absl::StatusOr<std::unique_ptr<Ceilings>> Create(
      int threads, bool pin = false, size_t bytes = kDefaultBytes);

  // Reads all of the memory with all threads, for about `seconds` and at least
  // once in each of three patterns in turn (one contiguous share per thread,
  // the same with prefetching, and threads interleaved by 1 MiB), and gives
  // the pattern that read the most per second.
  ReadCeiling Read(double seconds = 0.3);

  // Operations per second of all threads, a multiplication and its addition
  // being two, measured for about `seconds`.
  double OperationsPerSecond(Arithmetic arithmetic, double seconds = 0.1);

  // Bytes per second that all threads copy into fresh memory: what loading
  // cannot beat. kMemoryPlan where there is none.
  absl::StatusOr<double> CopyPerSecond();

  int threads() const { return team_->size(); }

 private:
  Ceilings(std::unique_ptr<cpu::ThreadTeam> team, Buffer memory);

  // Seconds to read everything once. Shares are of `share_bytes`, dealt round
  // robin.
  double TimeRead(int64_t share_bytes, int64_t prefetch_bytes);
  // Runs some rounds on one thread; returns operations.
  double Compute(Arithmetic arithmetic, int64_t rounds, int member) const;

  const cpu::KernelTable& kernels_;
  const std::unique_ptr<cpu::ThreadTeam> team_;
  Buffer memory_;
};

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_CEILINGS_H_
