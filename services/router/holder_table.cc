#include "services/router/holder_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace caravan::router {
namespace {

constexpr size_t kFirstEntries = 8;
constexpr size_t kChunkHolders = 8192;

}  // namespace

// --- Lists -----------------------------------------------------------------

size_t HolderLists::ListsPerChunk(size_t size_class) {
  return std::max<size_t>(1, kChunkHolders / CapacityOf(size_class));
}

uint32_t HolderLists::Allocate(size_t size_class) {
  SizeClass& c = classes_[size_class];
  if (!c.free.empty()) {
    const uint32_t list = c.free.back();
    c.free.pop_back();
    return list;
  }
  const size_t per_chunk = ListsPerChunk(size_class);
  if (c.used == c.chunks.size() * per_chunk) {
    const size_t holders = per_chunk * CapacityOf(size_class);
    c.chunks.push_back(std::make_unique<HolderId[]>(holders));
    memory_bytes_ += static_cast<int64_t>(holders * sizeof(HolderId));
  }
  return c.used++;
}

void HolderLists::Free(size_t size_class, uint32_t list) {
  classes_[size_class].free.push_back(list);
}

HolderId* HolderLists::At(size_t size_class, uint32_t list) const {
  const size_t per_chunk = ListsPerChunk(size_class);
  return classes_[size_class].chunks[list / per_chunk].get() +
         list % per_chunk * CapacityOf(size_class);
}

// --- Table -----------------------------------------------------------------

uint64_t HolderTable::KeyOf(const kv::BlockHash& hash) {
  uint64_t key = 0;
  std::memcpy(&key, hash.bytes.data(), sizeof(key));
  return key;
}

void HolderTable::SetList(Entry& entry, size_t size_class, uint32_t list) {
  entry.slots[0] = static_cast<HolderId>(list & 0xFFFF);
  entry.slots[1] = static_cast<HolderId>(list >> 16);
  entry.slots[2] = static_cast<HolderId>(size_class);
}

// The entry of that key, else the free place where it belongs; the shard has
// one.
HolderTable::Entry* HolderTable::Locate(Shard& shard, uint64_t key) {
  const size_t mask = shard.entries.size() - 1;
  for (size_t i = key & mask;; i = (i + 1) & mask) {
    Entry& entry = shard.entries[i];
    if (entry.count == 0 || entry.key == key) return &entry;
  }
}

std::span<const HolderId> HolderTable::Find(const kv::BlockHash& hash) const {
  const uint64_t key = KeyOf(hash);
  const Shard& shard = shards_[key >> 52];
  if (shard.used == 0) return {};
  // Locate changes nothing.
  const Entry& entry = *Locate(const_cast<Shard&>(shard), key);
  if (entry.count <= kInline) return {entry.slots.data(), entry.count};
  return {lists_.At(entry.slots[2], ListOf(entry)), entry.count};
}

void HolderTable::Prefetch(const kv::BlockHash& hash) const {
  const uint64_t key = KeyOf(hash);
  const std::vector<Entry>& entries = shards_[key >> 52].entries;
  if (entries.empty()) return;
  __builtin_prefetch(&entries[key & (entries.size() - 1)]);
}

HolderId* HolderTable::HoldersOf(Entry& entry) {
  return entry.count <= kInline ? entry.slots.data()
                                : lists_.At(entry.slots[2], ListOf(entry));
}

void HolderTable::Grow(Shard& shard) {
  std::vector<Entry> old = std::move(shard.entries);
  shard.entries.assign(std::max(kFirstEntries, old.size() * 2), Entry());
  for (const Entry& entry : old) {
    if (entry.count > 0) *Locate(shard, entry.key) = entry;
  }
}

bool HolderTable::Add(const kv::BlockHash& hash, HolderId holder) {
  const uint64_t key = KeyOf(hash);
  Shard& shard = ShardOf(key);
  if ((shard.used + 1) * 8 > shard.entries.size() * 7) Grow(shard);
  Entry& entry = *Locate(shard, key);
  if (entry.count == 0) {
    entry.key = key;
    ++shard.used;
    ++size_;
  } else {
    const HolderId* const begin = HoldersOf(entry);
    const HolderId* const end = begin + entry.count;
    if (std::find(begin, end, holder) != end) return false;
  }
  Append(entry, holder);
  return true;
}

// Moves the list of an entry to another size class.
void HolderTable::Resize(Entry& entry, size_t size_class, size_t new_class) {
  const uint32_t old = ListOf(entry);
  const uint32_t list = lists_.Allocate(new_class);
  std::copy_n(lists_.At(size_class, old), entry.count,
              lists_.At(new_class, list));
  lists_.Free(size_class, old);
  SetList(entry, new_class, list);
}

void HolderTable::Append(Entry& entry, HolderId holder) {
  if (entry.count < kInline) {
    entry.slots[entry.count++] = holder;
    return;
  }
  if (entry.count == kInline) {
    const uint32_t list = lists_.Allocate(0);
    std::copy_n(entry.slots.data(), kInline, lists_.At(0, list));
    SetList(entry, 0, list);
  } else if (entry.count == HolderLists::CapacityOf(entry.slots[2])) {
    Resize(entry, entry.slots[2], entry.slots[2] + size_t{1});
  }
  lists_.At(entry.slots[2], ListOf(entry))[entry.count++] = holder;
}

// The last takes the place of the one that goes.
void HolderTable::RemoveAt(Entry& entry, size_t index) {
  HolderId* const holders = HoldersOf(entry);
  holders[index] = holders[entry.count - 1];
  const bool listed = entry.count > kInline;
  const size_t size_class = entry.slots[2];
  if (listed && entry.count == kInline + 1) {
    const uint32_t list = ListOf(entry);
    std::copy_n(holders, kInline, entry.slots.data());
    lists_.Free(size_class, list);
  }
  --entry.count;
  if (entry.count > kInline && size_class > 0 &&
      entry.count * size_t{8} <= HolderLists::CapacityOf(size_class) * 3) {
    Resize(entry, size_class, size_class - 1);
  }
}

// Closes the gap: what stands behind in the same run moves up where its own
// place allows it.
void HolderTable::Erase(Shard& shard, Entry* entry) {
  const size_t mask = shard.entries.size() - 1;
  size_t gap = static_cast<size_t>(entry - shard.entries.data());
  for (size_t i = (gap + 1) & mask; shard.entries[i].count > 0;
       i = (i + 1) & mask) {
    const size_t home = shard.entries[i].key & mask;
    if (((i - home) & mask) < ((i - gap) & mask)) continue;
    shard.entries[gap] = shard.entries[i];
    gap = i;
  }
  shard.entries[gap] = Entry();
  --shard.used;
  --size_;
}

bool HolderTable::Remove(const kv::BlockHash& hash, HolderId holder) {
  const uint64_t key = KeyOf(hash);
  Shard& shard = ShardOf(key);
  if (shard.used == 0) return false;
  Entry* const entry = Locate(shard, key);
  const HolderId* const begin = HoldersOf(*entry);
  const HolderId* const end = begin + entry->count;
  const HolderId* const found = std::find(begin, end, holder);
  if (found == end) return false;
  RemoveAt(*entry, static_cast<size_t>(found - begin));
  if (entry->count == 0) Erase(shard, entry);
  return true;
}

void HolderTable::Clear(int shard_index, const std::vector<bool>& gone) {
  Shard& shard = shards_[static_cast<size_t>(shard_index)];
  for (size_t i = 0; i < shard.entries.size();) {
    Entry& entry = shard.entries[i];
    const bool occupied = entry.count > 0;
    for (size_t h = entry.count; h-- > 0;) {
      if (gone[HoldersOf(entry)[h]]) RemoveAt(entry, h);
    }
    if (occupied && entry.count == 0) {
      // Erase needs a run to close; what moves here is looked at next. What
      // wraps to the shard's end was looked at before.
      Erase(shard, &entry);
    } else {
      ++i;
    }
  }
}

int64_t HolderTable::memory_bytes() const {
  int64_t entries = 0;
  for (const Shard& shard : shards_) {
    entries += static_cast<int64_t>(shard.entries.capacity());
  }
  return entries * static_cast<int64_t>(sizeof(Entry)) +
         static_cast<int64_t>(shards_.capacity() * sizeof(Shard)) +
         lists_.memory_bytes();
}

}  // namespace caravan::router
