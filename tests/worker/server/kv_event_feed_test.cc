#include "worker/server/kv_event_feed.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace caravan::worker {
namespace {

kv::BlockHash Hash(uint8_t value) {
  kv::BlockHash hash;
  hash.bytes[0] = value;
  return hash;
}

KvChanges Stored(std::initializer_list<uint8_t> values) {
  KvChanges changes;
  for (const uint8_t value : values) changes.stored.push_back(Hash(value));
  return changes;
}

KvChanges Removed(std::initializer_list<uint8_t> values) {
  KvChanges changes;
  for (const uint8_t value : values) changes.removed.push_back(Hash(value));
  return changes;
}

// What a router has after applying what the feed says.
class Follower {
 public:
  void Follow(const KvEventFeed& feed) {
    while (const auto events = feed.After(last_)) Apply(*events);
  }

  void Apply(const v1::KvEvents& events) {
    if (events.snapshot()) {
      content_.clear();
      ++snapshots_;
    } else {
      EXPECT_EQ(events.sequence_number(), last_ + 1);
    }
    last_ = events.sequence_number();
    for (const std::string& hash : events.stored()) {
      EXPECT_TRUE(content_.insert(hash).second);
    }
    for (const std::string& hash : events.removed()) {
      EXPECT_EQ(content_.erase(hash), 1u);
    }
  }

  const std::set<std::string>& content() const { return content_; }
  int snapshots() const { return snapshots_; }
  int64_t last() const { return last_; }

 private:
  std::set<std::string> content_;
  int64_t last_ = 0;
  int snapshots_ = 0;
};

TEST(KvEventFeedTest, ChangesGetOneNumberPerFlush) {
  KvEventFeed feed;
  EXPECT_TRUE(feed.Apply(Stored({1})));
  EXPECT_FALSE(feed.Apply(Stored({2})));
  EXPECT_FALSE(feed.After(0).has_value());
  feed.Flush();
  EXPECT_FALSE(feed.pending());
  const auto events = feed.After(0);
  ASSERT_TRUE(events.has_value());
  EXPECT_EQ(events->sequence_number(), 1);
  EXPECT_FALSE(events->snapshot());
  EXPECT_EQ(events->stored_size(), 2);
  EXPECT_FALSE(feed.After(1).has_value());
}

TEST(KvEventFeedTest, NothingChangedGetsNoNumber) {
  KvEventFeed feed;
  EXPECT_FALSE(feed.Apply({}));
  feed.Apply(Stored({1}));
  feed.Apply(Removed({1}));
  feed.Flush();
  EXPECT_FALSE(feed.After(0).has_value());
}

TEST(KvEventFeedTest, ABlockThatWentAndCameBackIsNoChange) {
  KvEventFeed feed;
  feed.Apply(Stored({1}));
  feed.Flush();
  KvChanges changes = Stored({1, 2});
  changes.removed = Removed({1}).removed;
  feed.Apply(changes);
  feed.Flush();
  const auto events = feed.After(1);
  ASSERT_TRUE(events.has_value());
  EXPECT_EQ(events->stored_size(), 1);
  EXPECT_EQ(events->removed_size(), 0);
}

TEST(KvEventFeedTest, AFollowerHasWhatTheCacheHas) {
  KvEventFeed feed;
  Follower follower;
  for (uint8_t i = 0; i < 100; ++i) {
    feed.Apply(Stored({i}));
    if (i >= 10) feed.Apply(Removed({static_cast<uint8_t>(i - 10)}));
    feed.Flush();
    if (i % 7 == 0) follower.Follow(feed);
  }
  follower.Follow(feed);
  EXPECT_EQ(follower.content().size(), 10u);
  EXPECT_EQ(follower.snapshots(), 0);
}

TEST(KvEventFeedTest, WhoLagsTooFarGetsASnapshot) {
  KvEventFeed feed(/*max_kept_hashes=*/4);
  Follower follower;
  for (uint8_t i = 0; i < 20; ++i) {
    feed.Apply(Stored({i}));
    feed.Flush();
  }
  follower.Follow(feed);
  EXPECT_EQ(follower.snapshots(), 1);
  EXPECT_EQ(follower.content().size(), 20u);
  EXPECT_EQ(follower.last(), 20);
  feed.Apply(Removed({3}));
  feed.Flush();
  follower.Follow(feed);
  EXPECT_EQ(follower.snapshots(), 1);
  EXPECT_EQ(follower.content().size(), 19u);
}

TEST(KvEventFeedTest, ASnapshotHasTheNewestNumberAndNothingPending) {
  KvEventFeed feed;
  feed.Apply(Stored({1, 2}));
  feed.Flush();
  feed.Apply(Stored({3}));
  const v1::KvEvents snapshot = feed.Snapshot();
  EXPECT_TRUE(snapshot.snapshot());
  EXPECT_EQ(snapshot.sequence_number(), 1);
  EXPECT_EQ(snapshot.stored_size(), 2);
}

}  // namespace
}  // namespace caravan::worker
