// From a block's hash to its holders, small: see block_index.h, which alone
// uses it.
//
// Not thread-safe.
#ifndef CARAVAN_SERVICES_ROUTER_HOLDER_TABLE_H_
#define CARAVAN_SERVICES_ROUTER_HOLDER_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/kv/block_hash.h"

namespace caravan::router {

// A replica in one of its lives.
using HolderId = uint16_t;

// Lists of holders by size class, in chunks: a list of class c has room for
// kLeastCapacity << c.
class HolderLists {
 public:
  static constexpr size_t kLeastCapacity = 8;
  static constexpr size_t kClassCount = 14;  // up to 65,536 holders

  static size_t CapacityOf(size_t size_class) {
    return kLeastCapacity << size_class;
  }
  uint32_t Allocate(size_t size_class);
  void Free(size_t size_class, uint32_t list);
  HolderId* At(size_t size_class, uint32_t list) const;
  int64_t memory_bytes() const { return memory_bytes_; }

 private:
  // A power of two: about 16 KB a chunk, at least one list.
  static size_t ListsPerChunk(size_t size_class);

  struct SizeClass {
    std::vector<std::unique_ptr<HolderId[]>> chunks;
    uint32_t used = 0;           // lists ever handed out
    std::vector<uint32_t> free;  // handed back
  };
  std::array<SizeClass, kClassCount> classes_;
  int64_t memory_bytes_ = 0;
};

class HolderTable {
 public:
  static constexpr int kShardCount = 4096;

  HolderTable() : shards_(kShardCount) {}

  // Its holders, in no order; none where the block is not known. Valid until
  // the next change.
  std::span<const HolderId> Find(const kv::BlockHash& hash) const;

  // Asks memory for what Find, Add and Remove read first.
  void Prefetch(const kv::BlockHash& hash) const;

  // Whether something changed.
  bool Add(const kv::BlockHash& hash, HolderId holder);
  bool Remove(const kv::BlockHash& hash, HolderId holder);

  // Removes from all blocks of a shard the holders for which `gone` is true,
  // indexed by holder.
  void Clear(int shard, const std::vector<bool>& gone);

  // Blocks with a holder.
  int64_t size() const { return size_; }
  int64_t memory_bytes() const;

 private:
  // Up to kInline holders stand in it; more in a list of class `slots[2]`
  // whose number is slots[0] and slots[1]. Empty: no holders.
  struct Entry {
    uint64_t key = 0;
    uint16_t count = 0;
    std::array<HolderId, 3> slots = {};
  };
  static_assert(sizeof(Entry) == 16);
  static constexpr size_t kInline = 3;

  // Linear probing; the next free place ends every run.
  struct Shard {
    std::vector<Entry> entries;  // a power of two
    size_t used = 0;
  };

  static uint64_t KeyOf(const kv::BlockHash& hash);
  static uint32_t ListOf(const Entry& entry) {
    return entry.slots[0] | uint32_t{entry.slots[1]} << 16;
  }
  static void SetList(Entry& entry, size_t size_class, uint32_t list);
  static Entry* Locate(Shard& shard, uint64_t key);
  static void Grow(Shard& shard);
  void Erase(Shard& shard, Entry* entry);
  HolderId* HoldersOf(Entry& entry);
  void Append(Entry& entry, HolderId holder);
  void RemoveAt(Entry& entry, size_t index);
  void Resize(Entry& entry, size_t size_class, size_t new_class);
  Shard& ShardOf(uint64_t key) { return shards_[key >> 52]; }

  std::vector<Shard> shards_;
  HolderLists lists_;
  int64_t size_ = 0;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_HOLDER_TABLE_H_
