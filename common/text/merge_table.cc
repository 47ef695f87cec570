#include "common/text/merge_table.h"

#include <algorithm>
#include <queue>
#include <string_view>
#include <tuple>

#include "common/status/errors.h"
#include "common/strings.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

uint64_t KeyOf(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

// A pair that may still be mergeable when its turn comes.
struct Candidate {
  uint32_t rank;
  int32_t position;  // of the left symbol
  TokenId left;
  TokenId right;
  TokenId result;
};

struct LaterFirst {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return std::tie(a.rank, a.position) > std::tie(b.rank, b.position);
  }
};

// A doubly linked list of symbols over the positions of the input, and the
// queue of the pairs that it offers.
class Merging {
 public:
  Merging(const MergeTable& table, std::vector<TokenId>* symbols)
      : table_(table), symbols_(*symbols) {
    const auto count = static_cast<int32_t>(symbols_.size());
    previous_.resize(count);
    next_.resize(count);
    for (int32_t i = 0; i < count; ++i) {
      previous_[i] = i - 1;
      next_[i] = i + 1;
    }
    std::vector<Candidate> offered;
    for (int32_t i = 0; i + 1 < count; ++i) Offer(i, &offered);
    queue_ = Queue(LaterFirst(), std::move(offered));
  }

  void Run() {
    while (!queue_.empty()) {
      const Candidate candidate = queue_.top();
      queue_.pop();
      if (IsCurrent(candidate)) Merge(candidate);
    }
    Compact();
  }

 private:
  using Queue =
      std::priority_queue<Candidate, std::vector<Candidate>, LaterFirst>;

  int32_t size() const { return static_cast<int32_t>(symbols_.size()); }

  // Calls `add` for the pair that begins at `position`, when there is one.
  template <typename Add>
  void FindAt(int32_t position, Add add) {
    const int32_t right = next_[position];
    if (right >= size()) return;
    const TokenId l = symbols_[position];
    const TokenId r = symbols_[right];
    if (const MergeTable::Merge* merge = table_.Find(l, r)) {
      add(Candidate{merge->rank, position, l, r, merge->result});
    }
  }
  void Offer(int32_t position, std::vector<Candidate>* offered) {
    FindAt(position, [&](const Candidate& c) { offered->push_back(c); });
  }
  void Offer(int32_t position) {
    FindAt(position, [&](const Candidate& c) { queue_.push(c); });
  }

  bool IsCurrent(const Candidate& c) const {
    if (symbols_[c.position] != c.left) return false;
    const int32_t right = next_[c.position];
    return right < size() && symbols_[right] == c.right;
  }

  void Merge(const Candidate& c) {
    const int32_t right = next_[c.position];
    symbols_[c.position] = c.result;
    symbols_[right] = kGone;
    next_[c.position] = next_[right];
    if (next_[right] < size()) previous_[next_[right]] = c.position;
    if (previous_[c.position] >= 0) Offer(previous_[c.position]);
    Offer(c.position);
  }

  void Compact() {
    int32_t count = 0;
    for (int32_t i = 0; i < size(); i = next_[i]) {
      symbols_[count++] = symbols_[i];
    }
    symbols_.resize(count);
  }

  static constexpr TokenId kGone = INT32_MIN;

  const MergeTable& table_;
  std::vector<TokenId>& symbols_;
  std::vector<int32_t> previous_;
  std::vector<int32_t> next_;
  Queue queue_;
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
  std::sort(pairs.begin(), pairs.end(),
            [](const MergePair& a, const MergePair& b) {
              return std::tie(a.rank, a.left, a.right) <
                     std::tie(b.rank, b.left, b.right);
            });
  return pairs;
}

MergeTable::MergeTable(const std::vector<MergePair>& pairs) {
  merges_.reserve(pairs.size());
  for (const MergePair& p : pairs) {
    merges_.try_emplace(KeyOf(p.left, p.right), Merge{p.rank, p.result});
  }
}

const MergeTable::Merge* MergeTable::Find(TokenId left, TokenId right) const {
  if (left < 0 || right < 0) return nullptr;
  const auto it = merges_.find(KeyOf(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void MergeTable::Apply(std::vector<TokenId>* symbols) const {
  if (symbols->size() < 2) return;
  Merging(*this, symbols).Run();
}

}  // namespace caravan::text
