// A restricted unpickler: reads the little of Python's pickle format that
// checkpoints of tensors use and builds plain values from it. Nothing is ever
// executed or imported: a global is one of a short list of names that mean
// something here, and every other opcode and name is refused by name.
#ifndef CARAVAN_WORKER_MODEL_PICKLE_H_
#define CARAVAN_WORKER_MODEL_PICKLE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker {

// Bounds of what one pickle may build.
inline constexpr size_t kMostPickleBytes = size_t{16} << 20;
inline constexpr size_t kMostPickleValues = size_t{1} << 20;

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kTuple,
  kList,
  kDict,     // of any kind; items are key, value, key, value, ...
  kGlobal,   // a name of the list, such as "torch.HalfStorage"
  kStorage,  // items: class, key, location, element count, and in the oldest
             // format a view
  kTensor,   // items: storage, offset, sizes, strides
};

// "none", "tuple", "tensor", ...
std::string_view Name(PickleKind kind);

using PickleIndex = uint32_t;

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  int64_t number = 0;     // kInt, kBool
  std::string_view text;  // kText, kGlobal: in the pickle's bytes
  std::vector<PickleIndex> items;
};

// The values of one pickle; they may be shared and, in lists and dicts, even
// contain themselves, so readers go to the depth that they expect and no
// further. Texts live as long as the bytes that were parsed.
struct Pickle {
  std::vector<PickleValue> values;
  PickleIndex root = 0;
  size_t bytes = 0;  // up to and including STOP

  const PickleValue& operator[](PickleIndex index) const {
    return values[index];
  }
};

// Runs the pickle at the beginning of `bytes`. Errors (kModelFileInvalid) name
// `file` and the offset, counted from `base`: opcodes and globals outside the
// list, calls with wrong arguments, a stack that runs empty, an end before
// STOP, more than the bounds above.
absl::StatusOr<Pickle> ParsePickle(std::span<const std::byte> bytes,
                                   const std::string& file, uint64_t base);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_PICKLE_H_
