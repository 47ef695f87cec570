#include "worker/bench/ceilings.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "worker/ops/cpu/int8_probe.h"

namespace caravan::worker::bench {
namespace {

constexpr size_t kSmall = size_t{8} << 20;

TEST(CeilingsTest, NamesTheBestPatternOfReading) {
  ASSERT_OK_AND_ASSIGN(const auto ceilings,
                       Ceilings::Create(2, /*pin=*/false, kSmall));
  const ReadCeiling read = ceilings->Read(/*seconds=*/0);
  EXPECT_GT(read.bytes_per_second, 1e8);
  EXPECT_FALSE(read.pattern.empty());
}

TEST(CeilingsTest, EveryArithmeticHasACeiling) {
  ASSERT_OK_AND_ASSIGN(const auto ceilings,
                       Ceilings::Create(1, /*pin=*/false, kSmall));
  for (const Arithmetic arithmetic :
       {Arithmetic::kFp32, Arithmetic::kBf16, Arithmetic::kInt8}) {
    EXPECT_GT(ceilings->OperationsPerSecond(arithmetic, /*seconds=*/0), 1e6)
        << Name(arithmetic);
  }
}

TEST(CeilingsTest, TheClassSaysWhichArithmeticBindsIt) {
  EXPECT_EQ(ArithmeticOf("cpu-avx512/w:q8_0/a:int8/kv:bf16/v1"),
            Arithmetic::kInt8);
  EXPECT_EQ(ArithmeticOf("cpu-avx512bf16/w:bf16/a:bf16/kv:fp32/v1"),
            Arithmetic::kBf16);
  EXPECT_EQ(ArithmeticOf("cpu-avx2/w:bf16/a:fp32/kv:bf16/v1"),
            Arithmetic::kFp32);
  EXPECT_EQ(ArithmeticOf("null/v1"), Arithmetic::kFp32);
}

TEST(Int8ProbeTest, EveryProbeOfThisMachineCountsItsOperations) {
  for (const cpu::Int8Probe* probe :
       {cpu::Avx512VnniInt8Probe(), cpu::Avx2Int8Probe(),
        cpu::PortableInt8Probe()}) {
    if (probe == nullptr) continue;
    int32_t sum = 1;
    const double once = probe->dot(/*rounds=*/1, &sum);
    EXPECT_GT(once, 0) << probe->name;
    EXPECT_EQ(probe->dot(/*rounds=*/100, &sum), 100 * once) << probe->name;
  }
}

}  // namespace
}  // namespace caravan::worker::bench
