#include "worker/ops/cuda/upload_ring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "common/status/errors.h"
#include "tests/support/status_matchers.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

// A device that reads what it was sent as late as it may.
class LateBuffers final : public RingBuffers {
 public:
  explicit LateBuffers(const RingShape& shape)
      : memory_(shape.count, std::vector<std::byte>(shape.bytes)),
        sent_(shape.count) {}
  ~LateBuffers() override { ReadAll(); }

  std::byte* data(size_t buffer) override { return memory_[buffer].data(); }
  absl::Status WaitUntilRead(size_t buffer) override {
    if (sent_[buffer]) {
      std::memcpy(sent_[buffer]->target, memory_[buffer].data(),
                  sent_[buffer]->bytes);
    }
    sent_[buffer].reset();
    return absl::OkStatus();
  }
  absl::Status Send(size_t buffer, void* target, size_t bytes) override {
    if (targets_.size() == fails_at) {
      return MakeError(Reason::kInternal, "the device is lost");
    }
    EXPECT_FALSE(sent_[buffer]) << "sent twice and read once";
    sent_[buffer] = {target, bytes};
    targets_.push_back(static_cast<std::byte*>(target));
    return absl::OkStatus();
  }
  void ReadAll() {
    for (size_t i = 0; i < sent_.size(); ++i) WaitUntilRead(i).IgnoreError();
  }
  const std::vector<std::byte*>& targets() const { return targets_; }
  size_t fails_at = 1000;

 private:
  struct Sent {
    void* target;
    size_t bytes;
  };
  std::vector<std::vector<std::byte>> memory_;
  std::vector<std::optional<Sent>> sent_;
  std::vector<std::byte*> targets_;
};

std::vector<std::byte> Source(size_t bytes) {
  std::vector<std::byte> source(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    source[i] = static_cast<std::byte>(i * 31 % 251);
  }
  return source;
}

TEST(UploadRingTest, PiecesArriveWholeAndAreSentInOrder) {
  for (const int readers : {1, 2, 4}) {
    const RingShape shape = {.count = 3, .bytes = 1000, .readers = readers};
    LateBuffers buffers(shape);
    UploadRing ring(shape, &buffers);
    for (const size_t bytes : {1, 999, 1000, 1001, 2500, 17001}) {
      SCOPED_TRACE(bytes);
      const std::vector<std::byte> source = Source(bytes);
      std::vector<std::byte> target(bytes);
      const size_t before = buffers.targets().size();
      EXPECT_OK(ring.Upload(target.data(), source.data(), bytes));
      buffers.ReadAll();
      EXPECT_EQ(target, source);
      for (size_t i = before; i < buffers.targets().size(); ++i) {
        EXPECT_EQ(buffers.targets()[i], target.data() + (i - before) * 1000);
      }
    }
  }
}

TEST(UploadRingTest, ADeviceThatFailsEndsTheUpload) {
  for (const int readers : {1, 4}) {
    const RingShape shape = {.count = 2, .bytes = 100, .readers = readers};
    LateBuffers buffers(shape);
    buffers.fails_at = 3;
    UploadRing ring(shape, &buffers);
    const std::vector<std::byte> source = Source(5000);
    std::vector<std::byte> target(source.size());
    EXPECT_THAT(ring.Upload(target.data(), source.data(), source.size()),
                HasReason(Reason::kInternal, HasSubstr("is lost")));
    EXPECT_EQ(buffers.targets().size(), 3U);
    buffers.ReadAll();
  }
}

}  // namespace
}  // namespace caravan::worker::cuda
