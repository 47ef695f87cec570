// Which part of a model a worker has: a contiguous range of layers, the first
// with the embedding, the last with the output head.
#ifndef CARAVAN_WORKER_MODEL_STAGE_H_
#define CARAVAN_WORKER_MODEL_STAGE_H_

#include <cstdint>

namespace caravan::worker {

// Stage `index` of `count`; the whole model unless said otherwise.
struct Stage {
  int32_t index = 0;  // [0, count)
  int32_t count = 1;  // >= 1

  bool first() const { return index == 0; }
  bool last() const { return index + 1 == count; }
  bool whole() const { return count == 1; }
  bool operator==(const Stage&) const = default;
};

// Layers [begin, end) of the model.
struct LayerRange {
  int32_t begin = 0;
  int32_t end = 0;

  int32_t size() const { return end - begin; }
  bool operator==(const LayerRange&) const = default;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_STAGE_H_
