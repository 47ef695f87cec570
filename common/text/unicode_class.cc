#include "common/text/unicode_class.h"

#include <algorithm>
#include <vector>

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

constexpr uint32_t kCodePoints = 0x110000;

// One byte for each code point; text touches few of its pages.
std::vector<CharClass> MakeTable() {
  std::vector<CharClass> table(kCodePoints, CharClass::kOther);
  for (const Range& range : kRanges) {
    std::fill(table.begin() + range.first, table.begin() + range.last + 1,
              range.char_class);
  }
  return table;
}

}  // namespace

const CharClass* CharClasses() {
  static const std::vector<CharClass> kTable = MakeTable();
  return kTable.data();
}

CharClass ClassOf(uint32_t code_point) {
  return code_point < kCodePoints ? CharClasses()[code_point]
                                  : CharClass::kOther;
}

}  // namespace caravan::text
