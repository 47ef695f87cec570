#include "common/text/unicode_class.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace caravan::text {
namespace {

struct Range {
  uint32_t first;
  uint32_t last;
  CharClass char_class;
};

// Ascending, not overlapping; what is not covered is kOther.
constexpr Range kRanges[] = {
#include "common/text/unicode_tables.inc"
};

CharClass Search(uint32_t code_point) {
  const Range* const end = std::end(kRanges);
  const Range* const range = std::lower_bound(
      std::begin(kRanges), end, code_point,
      [](const Range& r, uint32_t value) { return r.last < value; });
  if (range == end || code_point < range->first) return CharClass::kOther;
  return range->char_class;
}

// The lower code points, where nearly all text is, by direct look-up.
constexpr uint32_t kDirect = 0x800;
std::array<CharClass, kDirect> MakeDirectTable() {
  std::array<CharClass, kDirect> table;
  for (uint32_t c = 0; c < kDirect; ++c) table[c] = Search(c);
  return table;
}

}  // namespace

CharClass ClassOf(uint32_t code_point) {
  static const std::array<CharClass, kDirect> kTable = MakeDirectTable();
  return code_point < kDirect ? kTable[code_point] : Search(code_point);
}

}  // namespace caravan::text
