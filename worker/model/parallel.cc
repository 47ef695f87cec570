#include "worker/model/parallel.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace caravan::worker {
namespace {

class Loop {
 public:
  Loop(size_t count, const std::function<absl::Status(size_t)>& work)
      : count_(count), work_(work) {}

  void Run() {
    for (size_t i = next_++; i < count_; i = next_++) {
      const absl::Status status = work_(i);
      if (status.ok()) continue;
      absl::MutexLock lock(&mutex_);
      failure_.Update(status);
      next_ = count_;
    }
  }

  absl::Status failure() {
    absl::MutexLock lock(&mutex_);
    return failure_;
  }

 private:
  const size_t count_;
  const std::function<absl::Status(size_t)>& work_;
  std::atomic<size_t> next_ = 0;
  absl::Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status ForEachParallel(size_t count, int threads,
                             const std::function<absl::Status(size_t)>& work) {
  Loop loop(count, work);
  {
    std::vector<std::jthread> team;
    for (int i = 1; i < threads; ++i) team.emplace_back([&] { loop.Run(); });
    loop.Run();
  }
  return loop.failure();
}

}  // namespace caravan::worker
