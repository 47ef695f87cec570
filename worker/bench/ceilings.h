// What this machine can do at best, measured now: other tenants share its
// memory, so a figure means something only beside a measurement of the same
// minute.
#ifndef CARAVAN_WORKER_BENCH_CEILINGS_H_
#define CARAVAN_WORKER_BENCH_CEILINGS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker::bench {

struct ReadCeiling {
  double bytes_per_second = 0;
  std::string pattern;  // the best of the three
};

// Holds the memory that is read (default 256 MiB, in 2 MiB pages) and a team.
//
// Not thread-safe: one caller at a time; measures badly beside other load.
class Ceilings {
 public:
  // Errors: kInvalidField (threads), kMemoryPlan.
  static absl::StatusOr<std::unique_ptr<Ceilings>> Create(
      int threads, size_t bytes = size_t{256} << 20);

  // Reads all of the memory with all threads, `repeats` times in each of three
  // patterns (one contiguous share per thread, the same with prefetching, and
  // threads interleaved by 1 MiB), and gives the fastest.
  ReadCeiling Read(int repeats = 2);

  // fp32 operations per second (a fused multiply-add is two) of all threads.
  double FmaPerSecond();

  int threads() const { return team_->size(); }

 private:
  Ceilings(std::unique_ptr<cpu::ThreadTeam> team, Buffer memory);

  // Seconds to read everything once. Shares are of `share_bytes`, dealt round
  // robin.
  double TimeRead(int64_t share_bytes, int64_t prefetch_bytes);

  const cpu::KernelTable& kernels_;
  const std::unique_ptr<cpu::ThreadTeam> team_;
  Buffer memory_;
};

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_CEILINGS_H_
