// A fixed team of compute threads that runs one body at a time on all of them.
// The caller is member 0, so that a team of one costs nothing.
//
// Waiting spins for some microseconds, then sleeps in the kernel. It does not
// spin at all while this process has more team members than cores, and spins
// less and less while spinning turns out to be in vain (other processes have
// the cores). An idle team sleeps.
//
// Who waits fetches what it will read next into its cache, where it has been
// told what that is.
//
// Not thread-safe: one caller at a time.
#ifndef CARAVAN_WORKER_OPS_CPU_THREAD_TEAM_H_
#define CARAVAN_WORKER_OPS_CPU_THREAD_TEAM_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker::cpu {

inline constexpr int kMaxThreads = 256;

class ThreadTeam {
 public:
  // `threads` in [1, kMaxThreads], the caller included. `pin` binds members 1
  // and up to a core each, in the order of the process's affinity mask. Members
  // that `lead` are the callers of teams of their own, which count them among
  // the process's. Errors: kInvalidField.
  static absl::StatusOr<std::unique_ptr<ThreadTeam>> Create(int threads,
                                                            bool pin,
                                                            bool lead = false);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }
  // How often all members have waited for one another so far: barriers, and the
  // end of each Run. None where there is one member.
  int32_t rounds() const { return round_.load(std::memory_order_relaxed); }

  // Calls body(member) on every member, with the default floating-point
  // environment (rounding to nearest, subnormals kept); returns when all have
  // returned.
  template <typename Body>
  void Run(const Body& body) {
    RunErased([](const void* erased,
                 int member) { (*static_cast<const Body*>(erased))(member); },
              &body);
  }

  // Inside a body: waits until every member has called it.
  void Barrier(int member);

  // Inside a body: while this member waits, from now on, it may fetch these
  // bytes; they need not stay valid.
  void FetchWhileWaiting(int member, const void* data, size_t bytes) {
    ahead_[member] = {static_cast<const char*>(data),
                      static_cast<const char*>(data) + bytes};
  }

 private:
  using Function = void (*)(const void* body, int member);

  ThreadTeam(int threads, bool pin, bool lead);
  void RunErased(Function function, const void* body);
  void Loop(int member);
  // Waits until `value` differs from `old`.
  void WaitForChange(int member, const std::atomic<int32_t>& value,
                     int32_t old);
  // Part of what the member was told, or a pause.
  void FetchOrPause(int member);
  int32_t SpinLimit() const;

  const int size_;
  const int counted_;  // members, among the process's
  // What runs; written by the caller before `epoch_` moves on.
  Function function_ = nullptr;
  const void* body_ = nullptr;

  alignas(64) std::atomic<int32_t> epoch_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int32_t> arrived_{0};
  alignas(64) std::atomic<int32_t> round_{0};
  alignas(64) std::atomic<int32_t> spin_budget_;

  struct alignas(64) Ahead {
    const char* next = nullptr;
    const char* end = nullptr;
  };
  std::array<Ahead, kMaxThreads> ahead_;  // each its member's own

  std::vector<std::jthread> members_;
};

// Deals out the integers [0, count) to members: each has a contiguous share
// and takes from its front; who is done takes from the end of the fullest.
//
// Thread-safe but for Reset, which must come before the members start.
class WorkShares {
 public:
  void Reset(int64_t count, int members);
  // The next integer for `member`, or -1 when there is none left.
  int64_t Next(int member);
  // Where the share of `member` of `members` begins.
  static int64_t FirstOf(int member, int64_t count, int members) {
    return member * count / members;
  }

 private:
  struct alignas(64) Share {
    std::atomic<uint64_t> range{0};  // begin in the high half, end in the low
  };
  int64_t TakeFront(Share& share);
  int64_t TakeBack(Share& share);

  int members_ = 0;
  std::array<Share, kMaxThreads> shares_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_THREAD_TEAM_H_
