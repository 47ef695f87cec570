// Independent pieces of work on several threads.
#ifndef CARAVAN_WORKER_MODEL_PARALLEL_H_
#define CARAVAN_WORKER_MODEL_PARALLEL_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace caravan::worker {

// Calls work(i) for each i in [0, count), in about that order, on `threads`
// threads (at least 1), the caller's included. After an error no more are
// started; gives the first error of those that ran.
absl::Status ForEachParallel(size_t count, int threads,
                             const std::function<absl::Status(size_t)>& work);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_PARALLEL_H_
