#include "worker/tensor/buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

uintptr_t Address(const Buffer& buffer) {
  return reinterpret_cast<uintptr_t>(buffer.data());
}

TEST(BufferTest, ZeroBytesGiveAnEmptyBuffer) {
  ASSERT_OK_AND_ASSIGN(const Buffer buffer, Buffer::Allocate(0));
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size(), 0u);
}

TEST(BufferTest, SmallBuffersAreAlignedAndZero) {
  ASSERT_OK_AND_ASSIGN(const Buffer buffer, Buffer::Allocate(100));
  EXPECT_EQ(buffer.size(), 100u);
  EXPECT_EQ(Address(buffer) % Buffer::kAlignment, 0u);
  for (size_t i = 0; i < buffer.size(); ++i) {
    EXPECT_EQ(buffer.data()[i], std::byte{0});
  }
}

TEST(BufferTest, LargeBuffersAreAlignedToHugePages) {
  ASSERT_OK_AND_ASSIGN(Buffer buffer,
                       Buffer::Allocate(Buffer::kHugePageBytes + 1));
  EXPECT_EQ(Address(buffer) % Buffer::kHugePageBytes, 0u);
  buffer.data()[buffer.size() - 1] = std::byte{7};
  EXPECT_EQ(buffer.data()[0], std::byte{0});
}

TEST(BufferTest, MovedFromBufferIsEmptyAndTheDataStays) {
  ASSERT_OK_AND_ASSIGN(Buffer source, Buffer::Allocate(64));
  source.As<float>()[3] = 1.5f;
  Buffer target = std::move(source);
  EXPECT_EQ(source.data(), nullptr);  // NOLINT: that is what is tested
  EXPECT_EQ(target.As<float>()[3], 1.5f);
  ASSERT_OK_AND_ASSIGN(target, Buffer::Allocate(Buffer::kHugePageBytes));
  EXPECT_EQ(target.As<float>()[3], 0.0f);
}

TEST(BufferTest, ImpossibleSizesAreRefusedWithTheNumber) {
  EXPECT_THAT(Buffer::Allocate(size_t{1} << 62),
              testing::HasReason(Reason::kMemoryPlan,
                                 ::testing::HasSubstr("4611686018427387904")));
  EXPECT_THAT(Buffer::Allocate(SIZE_MAX),
              testing::HasReason(Reason::kMemoryPlan));
}

TEST(BufferTest, AllocatedBytesAreWholeLinesOrPages) {
  EXPECT_EQ(Buffer::AllocatedBytes(0), 0u);
  EXPECT_EQ(Buffer::AllocatedBytes(1), 64u);
  EXPECT_EQ(Buffer::AllocatedBytes(Buffer::kHugePageBytes + 1),
            2 * Buffer::kHugePageBytes);
}

}  // namespace
}  // namespace caravan::worker
