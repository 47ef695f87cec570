#include "worker/tensor/buffer_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

TEST(BufferArenaTest, SlicesOfAReservationLieOneBehindTheOther) {
  BufferArena arena;
  ASSERT_OK(arena.Reserve(BufferArena::SliceBytes(100) +
                          BufferArena::SliceBytes(3 << 20)));
  ASSERT_OK_AND_ASSIGN(BufferSlice first, arena.Take(100));
  ASSERT_OK_AND_ASSIGN(BufferSlice second, arena.Take(3 << 20));
  EXPECT_EQ(first.size(), 100u);
  EXPECT_EQ(second.data() - first.data(), 128);
  EXPECT_EQ(
      std::count(second.data(), second.data() + second.size(), std::byte{0}),
      3 << 20);
}

TEST(BufferArenaTest, WhatDoesNotFitHasMemoryOfItsOwn) {
  BufferArena arena;
  ASSERT_OK_AND_ASSIGN(const BufferSlice alone, arena.Take(64));
  ASSERT_OK(arena.Reserve(128));
  ASSERT_OK_AND_ASSIGN(const BufferSlice inside, arena.Take(64));
  ASSERT_OK_AND_ASSIGN(const BufferSlice large, arena.Take(65));
  ASSERT_OK_AND_ASSIGN(const BufferSlice last, arena.Take(64));
  EXPECT_EQ(last.data() - inside.data(), 64);
  EXPECT_TRUE(large.data() < inside.data() ||
              large.data() >= inside.data() + 128);
  ASSERT_OK_AND_ASSIGN(const BufferSlice empty, arena.Take(0));
  EXPECT_EQ(empty.size(), 0u);
}

TEST(BufferArenaTest, SlicesOutliveTheArena) {
  BufferSlice slice;
  {
    BufferArena arena;
    ASSERT_OK(arena.Reserve(4096));
    ASSERT_OK_AND_ASSIGN(slice, arena.Take(4096));
    ASSERT_OK(arena.Reserve(0));
  }
  std::memset(slice.data(), 1, slice.size());
  EXPECT_EQ(slice.data()[4095], std::byte{1});
}

}  // namespace
}  // namespace caravan::worker
