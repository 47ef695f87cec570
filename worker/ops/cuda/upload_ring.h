// Uploads through a ring of buffers: threads read pieces of the source into
// them, whoever uploads sends them off in their order. What a mapped file has
// not read yet is read by several threads at once.
#ifndef CARAVAN_WORKER_OPS_CUDA_UPLOAD_RING_H_
#define CARAVAN_WORKER_OPS_CUDA_UPLOAD_RING_H_

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace caravan::worker::cuda {

// The buffers, and the device behind them.
class RingBuffers {
 public:
  virtual ~RingBuffers() = default;
  virtual std::byte* data(size_t buffer) = 0;
  // Until the device has read what was sent from it. By any thread.
  virtual absl::Status WaitUntilRead(size_t buffer) = 0;
  // Sends `bytes` of it to `target`; may return before they are read.
  virtual absl::Status Send(size_t buffer, void* target, size_t bytes) = 0;
};

struct RingShape {
  size_t count = 0;  // buffers
  size_t bytes = 0;  // of each
  int readers = 1;   // threads that read, at most
};

// One upload at a time.
class UploadRing {
 public:
  // `buffers` must outlive this.
  UploadRing(const RingShape& shape, RingBuffers* buffers)
      : shape_(shape), buffers_(*buffers) {}

  // Everything is sent, in order, and `source` may be reused, on return. The
  // first error of the buffers. Uploads of one piece read on the caller's
  // thread.
  absl::Status Upload(void* target, const void* source, size_t bytes);

 private:
  // One upload.
  class Job;

  const RingShape shape_;
  RingBuffers& buffers_;
  size_t next_ = 0;  // buffer of the next piece
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_UPLOAD_RING_H_
