#include "worker/ops/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

struct Matrix : PackedMatrix {
  Matrix(int64_t r, int64_t c) {
    rows = r;
    cols = c;
  }
};
struct Kv : KvStorage {
  Kv(int32_t l, int32_t b) {
    layers = l;
    block_count = b;
  }
};

auto Refuses(const char* message) {
  return HasReason(Reason::kInternal, HasSubstr(message));
}

class CheckTest : public ::testing::Test {
 protected:
  View<float> Floats(int64_t rows, int64_t cols) {
    buffers_.emplace_back(rows * cols);
    return View<float>(buffers_.back().data(), rows, cols);
  }
  std::vector<std::vector<float>> buffers_;
};

TEST_F(CheckTest, EmbedIdsAreInTheTable) {
  const Matrix table(10, 4);
  const std::vector<int32_t> good = {0, 9};
  const std::vector<int32_t> bad = {0, 10};
  EXPECT_OK(Check(EmbedArgs{good, &table, Floats(2, 4)}));
  EXPECT_THAT(Check(EmbedArgs{bad, &table, Floats(2, 4)}),
              Refuses("token id must be in [0, 10); got 10"));
  EXPECT_THAT(Check(EmbedArgs{good, &table, Floats(2, 5)}),
              Refuses("x columns must be 4; got 5"));
  EXPECT_THAT(Check(EmbedArgs{good, nullptr, Floats(2, 4)}),
              Refuses("embedding table"));
}

TEST_F(CheckTest, QkvShapesSlotsAndLayerAreChecked) {
  const std::vector<float> norm(8);
  const std::vector<int64_t> slots = {0, -1};
  const Matrix qkv(4 * 4 + 2 * 2 * 4, 8);
  Kv kv(2, 3);
  NormQkvRopeStoreArgs args{.x = Floats(2, 8),
                            .norm = norm,
                            .epsilon = 1e-5f,
                            .qkv = &qkv,
                            .bias = {},
                            .cos = Floats(2, 2),
                            .sin = Floats(2, 2),
                            .slots = slots,
                            .layer = 1,
                            .heads = 4,
                            .kv_heads = 2,
                            .head_dim = 4,
                            .kv = &kv,
                            .q = Floats(2, 16)};
  EXPECT_OK(Check(args));
  NormQkvRopeStoreArgs bad = args;
  bad.layer = 2;
  EXPECT_THAT(Check(bad), Refuses("layer must be in [0, 2)"));
  bad = args;
  const std::vector<int64_t> beyond = {0, 48};
  bad.slots = beyond;
  EXPECT_THAT(Check(bad), Refuses("slot must be in [-1, 48)"));
  bad = args;
  bad.kv_heads = 3;
  EXPECT_THAT(Check(bad), Refuses("kv_heads"));
  bad = args;
  bad.bias = norm;
  EXPECT_THAT(Check(bad), Refuses("qkv bias size must be 32; got 8"));
}

TEST_F(CheckTest, AttentionRowsCoverTheTokensAndTheirBlocksExist) {
  const Kv kv(1, 3);
  const std::vector<BlockId> blocks = {2, 0};
  AttentionRow row = {0, 2, 30, blocks};
  AttendArgs args{.q = Floats(2, 8),
                  .rows = {&row, 1},
                  .layer = 0,
                  .heads = 2,
                  .kv_heads = 1,
                  .head_dim = 4,
                  .kv = &kv,
                  .out = Floats(2, 8)};
  EXPECT_OK(Check(args));
  row.first_position = 31;
  EXPECT_THAT(Check(args), Refuses("blocks of a row must be at least 3"));
  row = {0, 1, 0, blocks};
  EXPECT_THAT(Check(args), Refuses("tokens of all rows must be 2; got 1"));
  const std::vector<BlockId> foreign = {3};
  row = {0, 2, 0, foreign};
  EXPECT_THAT(Check(args), Refuses("block must be in [0, 3); got 3"));
}

TEST_F(CheckTest, SampleRowsAndScoresAreInTheLogits) {
  const SamplingState state({}, 0, 0, {}, {}, {});
  const SampleRow sample = {0, &state, 0};
  const ScoreRow score = {1, 4, 20};
  std::vector<TokenScore> one(1);
  EXPECT_OK(
      Check(SampleArgs{Floats(2, 5), {&sample, 1}, {&score, 1}, one, one}));
  const ScoreRow bad = {1, 5, 0};
  EXPECT_THAT(
      Check(SampleArgs{Floats(2, 5), {&sample, 1}, {&bad, 1}, one, one}),
      Refuses("scored token id must be in [0, 5); got 5"));
  const SampleRow missing = {2, &state, 0};
  EXPECT_THAT(Check(SampleArgs{Floats(2, 5), {&missing, 1}, {}, one, {}}),
              Refuses("sample logits row"));
  EXPECT_THAT(Check(SampleArgs{Floats(2, 5), {&sample, 1}, {}, {}, {}}),
              Refuses("sampled size must be 1; got 0"));
}

TEST_F(CheckTest, PartsOfAMatrixAgree) {
  const float data[4] = {};
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  const std::vector<RawMatrix> good = {{bytes, DType::kFp32, 1, 2},
                                       {bytes, DType::kFp32, 1, 2}};
  EXPECT_OK(Check(good, {PackKind::kGateUp, 32}));
  std::vector<RawMatrix> bad = good;
  bad[1].type = WeightType::kQ4_0;  // in blocks of 32
  EXPECT_THAT(Check(bad, {PackKind::kQkv, 32}), Refuses("columns of a part"));
  bad = good;
  bad[1].rows = 2;
  EXPECT_THAT(Check(bad, {PackKind::kGateUp, 32}), Refuses("rows of up"));
  EXPECT_THAT(Check(std::span<const RawMatrix>(), PackSpec{}),
              Refuses("parts of a matrix"));
}

TEST_F(CheckTest, CopiedBlocksExist) {
  Kv kv(1, 3);
  const BlockCopy good = {0, 2};
  const BlockCopy bad = {0, 3};
  EXPECT_OK(Check(CopyBlocksArgs{{&good, 1}, &kv}));
  EXPECT_THAT(Check(CopyBlocksArgs{{&bad, 1}, &kv}), Refuses("target block"));
}

}  // namespace
}  // namespace caravan::worker
