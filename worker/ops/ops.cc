#include "worker/ops/ops.h"

#include <algorithm>

namespace caravan::worker {

std::array<int64_t, kSegments + 1> SegmentBorders(int64_t k, int64_t unit) {
  const int64_t units = (k + unit - 1) / unit;
  std::array<int64_t, kSegments + 1> borders;
  for (int s = 0; s < kSegments; ++s) {
    borders[s] = std::min(k, s * units / kSegments * unit);
  }
  borders[kSegments] = k;
  return borders;
}

}  // namespace caravan::worker
