// What the device makes of rows while they are loaded is what a loop over
// elements makes of them, whatever the pieces they are sent in.
#include "worker/ops/cuda/storage.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"

namespace caravan::worker::cuda {
namespace {

// (rows, cols) of distinct bf16 numbers.
std::vector<uint16_t> Values(int64_t rows, int64_t cols, uint16_t first) {
  std::vector<uint16_t> values(static_cast<size_t>(rows * cols));
  for (uint16_t& value : values) value = first++;
  return values;
}

RawMatrix Raw(const std::vector<uint16_t>& values, int64_t rows, int64_t cols) {
  return RawMatrix(reinterpret_cast<const std::byte*>(values.data()),
                   WeightType::kBf16, rows, cols);
}

// The plain sibling of PackWeightsKernel.
std::vector<uint16_t> Fragments(const std::vector<RawMatrix>& parts,
                                const MatrixLayout& layout) {
  std::vector<uint16_t> target(layout.bytes() / sizeof(uint16_t));
  int64_t begin = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    for (int64_t r = 0; r < parts[p].rows; ++r) {
      const int64_t row = layout.kind == PackKind::kGateUp
                              ? InterleavedRow(r, static_cast<int>(p))
                              : begin + r;
      for (int64_t k = 0; k < parts[p].cols; ++k) {
        const int64_t to =
            WeightOffset(row, layout.segments.Pad(k), layout.segments.depth());
        std::memcpy(&target[static_cast<size_t>(to)], parts[p].row(r) + k * 2,
                    2);
      }
    }
    begin += parts[p].rows;
  }
  return target;
}

void ExpectFragments(const std::vector<RawMatrix>& parts,
                     const PackSpec& spec) {
  for (const size_t staging : {1, 700, 1 << 20}) {  // a row, a few, all
    EmulatedDevice device{EmulatedOptions()};
    DeviceBuffer buffer;
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<CudaMatrix> packed,
                         PackMatrix(parts, spec, {.tensor_cores = true},
                                    staging, buffer, &device));
    ASSERT_TRUE(packed->layout.fragments);
    const std::vector<uint16_t> expected = Fragments(parts, packed->layout);
    EXPECT_EQ(std::memcmp(packed->buffer.data(), expected.data(),
                          packed->layout.bytes()),
              0)
        << staging;
  }
}

TEST(StorageTest, RowsBecomeFragmentsAsElementByElement) {
  const auto q = Values(40, 72, 1), k = Values(24, 72, 20000);
  ExpectFragments({Raw(q, 40, 72), Raw(k, 24, 72)},
                  {.kind = PackKind::kQkv, .unit = 8});
  const auto gate = Values(19, 48, 1), up = Values(19, 48, 9000);
  ExpectFragments({Raw(gate, 19, 48), Raw(up, 19, 48)},
                  {.kind = PackKind::kGateUp});
  const auto down = Values(21, 8 * 40, 1);
  ExpectFragments({Raw(down, 21, 8 * 40)},
                  {.kind = PackKind::kHeadSegments, .unit = 40});
}

// Two of the eight segments, whose columns lie apart in the checkpoint.
TEST(StorageTest, ARanksColumnsBecomeFragmentsToo) {
  const auto down = Values(21, 8 * 40, 1);
  ExpectFragments(
      {Raw(down, 21, 8 * 40).Columns(80, 80)},
      {.kind = PackKind::kHeadSegments, .unit = 40, .owned = {2, 2, 8 * 40}});
}

}  // namespace
}  // namespace caravan::worker::cuda
