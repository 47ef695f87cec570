#include "worker/ops/cpu/thread_team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cfenv>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker::cpu {
namespace {

// About 20 microseconds, several times the pause between two phases.
constexpr int32_t kMaxSpins = 600;
constexpr int32_t kMinSpins = 8;

// Members of all teams of this process that may compute at the same time.
std::atomic<int> process_members{0};

cpu_set_t AllowedCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) CPU_SET(0, &cores);
  return cores;
}

int CoreCount() {
  static const int count = [] {
    const cpu_set_t cores = AllowedCores();
    return std::max(1, CPU_COUNT(&cores));
  }();
  return count;
}

// Binds the calling thread to the member-th allowed core, round robin.
void PinTo(int member) {
  const cpu_set_t cores = AllowedCores();
  int wanted = member % std::max(1, CPU_COUNT(&cores));
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &cores) || wanted-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    return;
  }
}

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The default floating-point environment while it lives.
class DefaultFloatingPoint {
 public:
#if defined(__x86_64__)
  DefaultFloatingPoint() : saved_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~DefaultFloatingPoint() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all masked, nearest, no FTZ
  const unsigned saved_;
#else
  DefaultFloatingPoint() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
#endif
};

}  // namespace

absl::StatusOr<std::unique_ptr<ThreadTeam>> ThreadTeam::Create(int threads,
                                                               bool pin,
                                                               bool lead) {
  if (threads < 1 || threads > kMaxThreads) {
    return FieldError("threads", StrCat("in [1, ", kMaxThreads, "]"),
                      StrCat(threads));
  }
  return std::unique_ptr<ThreadTeam>(new ThreadTeam(threads, pin, lead));
}

ThreadTeam::ThreadTeam(int threads, bool pin, bool lead)
    : size_(threads), counted_(lead ? 0 : threads), spin_budget_(kMaxSpins) {
  process_members.fetch_add(counted_, std::memory_order_relaxed);
  members_.reserve(size_ - 1);
  for (int member = 1; member < size_; ++member) {
    members_.emplace_back([this, member, pin] {
      if (pin) PinTo(member);
      Loop(member);
    });
  }
}

ThreadTeam::~ThreadTeam() {
  stopping_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  members_.clear();  // joins
  process_members.fetch_sub(counted_, std::memory_order_relaxed);
}

void ThreadTeam::RunErased(Function function, const void* body) {
  const DefaultFloatingPoint scope;
  if (size_ > 1) {
    function_ = function;
    body_ = body;
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }
  function(body, 0);
  Barrier(0);
}

void ThreadTeam::Loop(int member) {
  const DefaultFloatingPoint scope;
  for (int32_t seen = 0;;) {
    WaitForChange(member, epoch_, seen);
    if (stopping_.load(std::memory_order_relaxed)) return;
    ++seen;  // the caller waits for every member, so none is ever skipped
    function_(body_, member);
    Barrier(member);
  }
}

void ThreadTeam::Barrier(int member) {
  if (size_ == 1) return;
  const int32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    return;
  }
  WaitForChange(member, round_, round);
}

int32_t ThreadTeam::SpinLimit() const {
  if (process_members.load(std::memory_order_relaxed) > CoreCount()) return 0;
  return spin_budget_.load(std::memory_order_relaxed);
}

void ThreadTeam::FetchOrPause(int member) {
  constexpr int kLine = 64;
  constexpr int kLines = 4;  // at once, so that the end of the wait is seen
  Ahead& ahead = ahead_[member];
  if (ahead.next >= ahead.end) return Pause();
  for (int i = 0; i < kLines; ++i, ahead.next += kLine) {
    __builtin_prefetch(ahead.next, /*rw=*/0, /*locality=*/2);
  }
}

void ThreadTeam::WaitForChange(int member, const std::atomic<int32_t>& value,
                               int32_t old) {
  const int32_t limit = SpinLimit();
  for (int32_t spin = 0; spin < limit; ++spin) {
    if (value.load(std::memory_order_acquire) != old) {
      spin_budget_.store(std::min(kMaxSpins, limit + limit / 4 + 1),
                         std::memory_order_relaxed);
      return;
    }
    FetchOrPause(member);
  }
  if (limit > 0) {
    spin_budget_.store(std::max(kMinSpins, limit - limit / 8),
                       std::memory_order_relaxed);
  }
  value.wait(old, std::memory_order_acquire);
}

void WorkShares::Reset(int64_t count, int members) {
  members_ = members;
  for (int m = 0; m < members; ++m) {
    const auto begin = static_cast<uint64_t>(FirstOf(m, count, members));
    const auto end = static_cast<uint64_t>(FirstOf(m + 1, count, members));
    shares_[m].range.store(begin << 32 | end, std::memory_order_relaxed);
  }
}

int64_t WorkShares::Next(int member) {
  const int64_t own = TakeFront(shares_[member]);
  if (own >= 0) return own;
  for (;;) {
    int fullest = -1;
    uint64_t most = 0;
    for (int m = 0; m < members_; ++m) {
      const uint64_t range = shares_[m].range.load(std::memory_order_relaxed);
      const uint64_t begin = range >> 32;
      const uint64_t end = range & 0xffffffff;
      if (begin < end && end - begin > most) {
        fullest = m;
        most = end - begin;
      }
    }
    if (fullest < 0) return -1;
    const int64_t stolen = TakeBack(shares_[fullest]);
    if (stolen >= 0) return stolen;
  }
}

int64_t WorkShares::TakeFront(Share& share) {
  uint64_t range = share.range.load(std::memory_order_relaxed);
  while (range >> 32 < (range & 0xffffffff)) {
    if (share.range.compare_exchange_weak(range, range + (uint64_t{1} << 32),
                                          std::memory_order_relaxed)) {
      return static_cast<int64_t>(range >> 32);
    }
  }
  return -1;
}

int64_t WorkShares::TakeBack(Share& share) {
  uint64_t range = share.range.load(std::memory_order_relaxed);
  while (range >> 32 < (range & 0xffffffff)) {
    if (share.range.compare_exchange_weak(range, range - 1,
                                          std::memory_order_relaxed)) {
      return static_cast<int64_t>((range & 0xffffffff) - 1);
    }
  }
  return -1;
}

}  // namespace caravan::worker::cpu
