#include "common/text/merge_table.h"

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <queue>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

constexpr uint32_t kNoRank = UINT32_MAX;

uint32_t RankOf(const MergeTable::Merge* merge) {
  return merge == nullptr ? kNoRank : merge->rank;
}

// For few symbols: looks through all pairs for each merge.
class ShortMerging {
 public:
  ShortMerging(const MergeTable& table, std::span<TokenId> symbols)
      : table_(table), symbols_(symbols), count_(symbols.size()) {
    for (size_t i = 0; i + 1 < count_; ++i) Look(i);
  }

  // Returns how many symbols are left.
  size_t Run() {
    while (count_ > 1) {
      const size_t at = Least();
      if (ranks_[at] == kNoRank) break;
      symbols_[at] = results_[at];
      --count_;
      for (size_t i = at + 1; i < count_; ++i) {
        symbols_[i] = symbols_[i + 1];
        ranks_[i] = ranks_[i + 1];
        results_[i] = results_[i + 1];
      }
      if (at > 0) Look(at - 1);
      if (at + 1 < count_) Look(at);
    }
    return count_;
  }

 private:
  void Look(size_t at) {
    const MergeTable::Merge* const merge =
        table_.Find(symbols_[at], symbols_[at + 1]);
    ranks_[at] = RankOf(merge);
    if (merge != nullptr) results_[at] = merge->result;
  }
  size_t Least() const {
    size_t least = 0;
    for (size_t i = 1; i + 1 < count_; ++i) {
      if (ranks_[i] < ranks_[least]) least = i;
    }
    return least;
  }

  const MergeTable& table_;
  const std::span<TokenId> symbols_;
  size_t count_;
  std::array<uint32_t, MergeTable::kMostShort> ranks_ =
      {};  // of the pair that begins there
  std::array<TokenId, MergeTable::kMostShort> results_ = {};
};

// A doubly linked list of symbols over the positions of the input, each with
// the rank of the pair that begins there.
class LinkedSymbols {
 public:
  LinkedSymbols(const MergeTable& table, std::span<TokenId> symbols,
                MergeScratch* scratch)
      : table_(table),
        symbols_(symbols),
        previous_(scratch->previous),
        next_(scratch->next),
        ranks_(scratch->ranks),
        results_(scratch->results) {
    const int32_t count = size();
    previous_.resize(symbols_.size());
    next_.resize(symbols_.size());
    results_.resize(symbols_.size());
    ranks_.assign(symbols_.size(), kNoRank);
    for (int32_t i = 0; i < count; ++i) {
      previous_[i] = i - 1;
      next_[i] = i + 1;
    }
  }

  int32_t size() const { return static_cast<int32_t>(symbols_.size()); }
  uint32_t rank(int32_t position) const { return ranks_[position]; }

  // Looks the pair at `position` up; whether there is one that does not wait
  // for its turn already.
  bool Look(int32_t position) {
    const int32_t right = next_[position];
    const MergeTable::Merge* const merge =
        right >= size() ? nullptr
                        : table_.Find(symbols_[position], symbols_[right]);
    const uint32_t before = std::exchange(ranks_[position], RankOf(merge));
    if (merge != nullptr) results_[position] = merge->result;
    return merge != nullptr && merge->rank != before;
  }

  // Makes the pair at `position` one symbol, and calls offer(position) for new
  // pairs.
  template <typename Offer>
  void Merge(int32_t position, Offer offer) {
    const int32_t right = next_[position];
    symbols_[position] = results_[position];
    ranks_[position] = ranks_[right] = kNoRank;
    next_[position] = next_[right];
    if (next_[right] < size()) previous_[next_[right]] = position;
    const int32_t left = previous_[position];
    if (left >= 0 && Look(left)) offer(left);
    if (Look(position)) offer(position);
  }

  // Returns how many symbols are left.
  size_t Compact() {
    size_t count = 0;
    for (int32_t i = 0; i < size(); i = next_[i]) {
      symbols_[count++] = symbols_[i];
    }
    return count;
  }

 private:
  const MergeTable& table_;
  const std::span<TokenId> symbols_;
  std::vector<int32_t>& previous_;
  std::vector<int32_t>& next_;
  std::vector<uint32_t>& ranks_;
  std::vector<TokenId>& results_;
};

// For more: a heap of (rank, position).
size_t MergeByHeap(const MergeTable& table, std::span<TokenId> symbols,
                   MergeScratch* scratch) {
  LinkedSymbols list(table, symbols, scratch);
  std::vector<uint64_t>& heap = scratch->heap;
  const auto key = [&list](int32_t position) {
    return uint64_t{list.rank(position)} << 32 |
           static_cast<uint32_t>(position);
  };
  heap.clear();
  for (int32_t i = 0; i + 1 < list.size(); ++i) {
    if (list.Look(i)) heap.push_back(key(i));
  }
  std::ranges::make_heap(heap, std::greater<>());
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater<>());
    const uint64_t least = heap.back();
    heap.pop_back();
    const auto position = static_cast<int32_t>(least & UINT32_MAX);
    if (list.rank(position) != least >> 32) continue;
    list.Merge(position, [&](int32_t at) {
      heap.push_back(key(at));
      std::ranges::push_heap(heap, std::greater<>());
    });
  }
  return list.Compact();
}

// Positions in ascending order: those that came in that order, and a heap of
// the few that did not.
class Bucket {
 public:
  bool queued = false;

  bool empty() const { return taken_ == in_order_.size() && late_.empty(); }
  void Add(int32_t position) {
    if (in_order_.empty() || position > in_order_.back()) {
      in_order_.push_back(position);
    } else {
      late_.push(position);
    }
  }
  int32_t Take() {
    const bool from_late = taken_ == in_order_.size() ||
                           (!late_.empty() && late_.top() < in_order_[taken_]);
    if (!from_late) return in_order_[taken_++];
    const int32_t position = late_.top();
    late_.pop();
    return position;
  }

 private:
  std::vector<int32_t> in_order_;
  size_t taken_ = 0;
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<int32_t>>
      late_;
};

// For very many: positions wait in a bucket for each rank, in ascending order,
// and a heap holds the ranks that have a bucket, so that a merge costs a step
// in its bucket, not one in a heap of all pairs.
class MergeByBuckets {
 public:
  MergeByBuckets(const MergeTable& table, std::span<TokenId> symbols,
                 MergeScratch* scratch)
      : list_(table, symbols, scratch) {}

  size_t Run() {
    for (int32_t i = 0; i + 1 < list_.size(); ++i) {
      if (list_.Look(i)) Offer(i);
    }
    while (!waiting_.empty()) {
      const uint32_t rank = waiting_.top();
      Bucket& bucket =
          taking_.rank == rank ? *taking_.bucket : Remember(rank, &taking_);
      const int32_t position = bucket.Take();
      if (bucket.empty()) {
        waiting_.pop();
        bucket.queued = false;
      }
      if (list_.rank(position) != rank) continue;
      list_.Merge(position, [this](int32_t at) { Offer(at); });
    }
    return list_.Compact();
  }

 private:
  // A rank and its bucket, which is often the next one's as well.
  struct Last {
    uint32_t rank = kNoRank;
    Bucket* bucket = nullptr;
  };

  Bucket& Remember(uint32_t rank, Last* last) {
    const auto [entry, added] =
        bucket_of_.try_emplace(rank, static_cast<int32_t>(buckets_.size()));
    if (added) buckets_.emplace_back();
    *last = {rank, &buckets_[static_cast<size_t>(entry->second)]};
    return *last->bucket;
  }
  void Offer(int32_t position) {
    const uint32_t rank = list_.rank(position);
    Bucket& bucket =
        offering_.rank == rank ? *offering_.bucket : Remember(rank, &offering_);
    bucket.Add(position);
    if (!bucket.queued) waiting_.push(rank);
    bucket.queued = true;
  }

  LinkedSymbols list_;
  absl::flat_hash_map<uint32_t, int32_t> bucket_of_;
  std::deque<Bucket> buckets_;  // stay where they are
  Last taking_;
  Last offering_;
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<uint32_t>>
      waiting_;
};

// Adds the pairs that make one piece.
void AddPairsOf(const RankedPiece& piece,
                const absl::flat_hash_map<std::string, TokenId>& symbols,
                bool bytes_are_symbols, std::vector<MergePair>* pairs) {
  const std::string_view text = piece.text;
  size_t cut = 0;
  while (true) {
    cut += bytes_are_symbols ? 1 : Utf8Size(text[cut]);
    if (cut >= text.size()) return;
    const auto left = symbols.find(ToAbsl(text.substr(0, cut)));
    if (left == symbols.end()) continue;
    const auto right = symbols.find(ToAbsl(text.substr(cut)));
    if (right == symbols.end()) continue;
    pairs->push_back({left->second, right->second, piece.id, piece.rank});
  }
}

}  // namespace

absl::StatusOr<std::vector<MergePair>> PairsOfPieces(
    const std::vector<RankedPiece>& pieces,
    const absl::flat_hash_map<std::string, TokenId>& symbols,
    bool bytes_are_symbols) {
  constexpr size_t kMaxWork = 256u << 20;  // sum of squares of the sizes
  size_t work = 0;
  std::vector<MergePair> pairs;
  for (const RankedPiece& piece : pieces) {
    if (piece.text.empty()) continue;
    work += piece.text.size() * piece.text.size();
    if (work > kMaxWork) {
      return MakeError(Reason::kModelFileInvalid,
                       "the vocabulary has too many long pieces");
    }
    AddPairsOf(piece, symbols, bytes_are_symbols, &pairs);
  }
  const auto earlier = [](const MergePair& a, const MergePair& b) {
    return std::tie(a.rank, a.left, a.right) <
           std::tie(b.rank, b.left, b.right);
  };
  // Pieces mostly come by rank: then only the pairs of one piece need sorting.
  for (auto begin = pairs.begin(); begin != pairs.end();) {
    const auto end = std::find_if(begin, pairs.end(), [&](const MergePair& p) {
      return p.rank != begin->rank;
    });
    std::sort(begin, end, earlier);
    begin = end;
  }
  if (!std::is_sorted(pairs.begin(), pairs.end(), earlier)) {
    std::sort(pairs.begin(), pairs.end(), earlier);
  }
  return pairs;
}

MergeTable::MergeTable(const std::vector<MergePair>& pairs) {
  size_t size = 2;
  for (; size < 2 * pairs.size(); size *= 2) --shift_;
  slots_.resize(size);
  mask_ = size - 1;
  direct_.assign(kDirect * kDirect, {kNoRank, -1});
  for (const MergePair& p : pairs) {
    if (p.left < kDirect && p.right < kDirect) {
      Merge& merge = direct_[p.left * kDirect + p.right];
      if (merge.result < 0) merge = {p.rank, p.result};
      continue;
    }
    filter_.Add(p.left, p.right);
    const uint64_t key = KeyOf(p.left, p.right);
    size_t i = PlaceOf(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    if (slots_[i].key == kEmpty) slots_[i] = {key, {p.rank, p.result}};
  }
}

void MergeTable::Apply(std::span<TokenId> symbols, MergeScratch* scratch,
                       size_t* count, Way way) const {
  // Where the next way becomes the faster one.
  constexpr size_t kMostForHeap = 1 << 14;
  if (way == Way::kBySize) {
    way = symbols.size() <= kMostShort     ? Way::kShort
          : symbols.size() <= kMostForHeap ? Way::kHeap
                                           : Way::kBuckets;
  }
  if (symbols.size() < 2) {
    *count = symbols.size();
  } else if (way == Way::kShort) {
    *count = ShortMerging(*this, symbols).Run();
  } else if (way == Way::kHeap) {
    *count = MergeByHeap(*this, symbols, scratch);
  } else {
    *count = MergeByBuckets(*this, symbols, scratch).Run();
  }
}

}  // namespace caravan::text
