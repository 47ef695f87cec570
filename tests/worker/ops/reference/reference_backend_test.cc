#include "worker/ops/reference/reference_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

TEST(ReferenceBackendTest, PackedAndCacheBytesAreThoseAllocated) {
  ASSERT_OK_AND_ASSIGN(const auto backend,
                       MakeReferenceBackend(NumericsOptions()));
  const std::vector<float> data(7 * 5, 1.0f);
  const RawMatrix part = {reinterpret_cast<const std::byte*>(data.data()),
                          DType::kFp32, 7, 5};
  const PackSpec spec;
  ASSERT_OK_AND_ASSIGN(const auto matrix, backend->Pack({&part, 1}, spec));
  EXPECT_EQ(matrix->bytes, backend->PackedBytes({&part, 1}, spec));
  EXPECT_EQ(matrix->rows, 7);
  const KvSpec kv = {2, 3, 10, 9};
  ASSERT_OK_AND_ASSIGN(const auto storage, backend->AllocateKv(kv));
  EXPECT_EQ(storage->bytes, backend->KvBytes(kv));
  EXPECT_EQ(storage->block_count, 9);
  EXPECT_EQ(storage->layers, 2);
}

TEST(ReferenceBackendTest, EmbedWidensEveryWeightType) {
  ASSERT_OK_AND_ASSIGN(const auto backend,
                       MakeReferenceBackend(NumericsOptions()));
  const Bf16 bf16[] = {ToBf16(1.5f), ToBf16(-2.0f)};
  const Fp16 fp16[] = {ToFp16(1.5f), ToFp16(-2.0f)};
  const float fp32[] = {1.5f, -2.0f};
  for (const RawMatrix& part :
       {RawMatrix{reinterpret_cast<const std::byte*>(bf16), DType::kBf16, 2, 1},
        RawMatrix{reinterpret_cast<const std::byte*>(fp16), DType::kFp16, 2, 1},
        RawMatrix{reinterpret_cast<const std::byte*>(fp32), DType::kFp32, 2,
                  1}}) {
    ASSERT_OK_AND_ASSIGN(const auto table,
                         backend->Pack({&part, 1}, {PackKind::kEmbedding, 32}));
    const std::vector<int32_t> ids = {1, 0, 1};
    std::vector<float> x(3);
    ASSERT_OK(backend->Embed({ids, table.get(), View<float>(x.data(), 3, 1)}));
    EXPECT_THAT(x, ::testing::ElementsAre(-2.0f, 1.5f, -2.0f));
  }
}

}  // namespace
}  // namespace caravan::worker
