#include "worker/ops/numerics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

std::string Auto(WeightTypes weights) {
  const NumericsOptions numerics = *ParseNumerics("auto", "auto", weights);
  return std::string(Name(numerics.activations)) + "/" +
         std::string(Name(numerics.kv));
}

TEST(NumericsTest, AutoFollowsTheWeights) {
  EXPECT_EQ(Auto(WeightType::kFp32), "fp32/fp32");
  EXPECT_EQ(Auto(WeightType::kBf16), "bf16/bf16");
  EXPECT_EQ(Auto(WeightType::kFp16), "fp32/bf16");
  EXPECT_EQ(Auto(WeightType::kQ4_0), "int8/bf16");
  WeightTypes mixed = WeightType::kFp32;
  mixed.Add(WeightType::kQ6_K);
  EXPECT_EQ(Auto(mixed), "int8/bf16");
  EXPECT_EQ(Auto(WeightTypes()), "fp32/fp32");
  WeightTypes floats = WeightType::kFp8;
  floats.Add(WeightType::kBf16);
  EXPECT_EQ(Auto(floats), "bf16/bf16");
  floats.Add(WeightType::kFp32);
  EXPECT_EQ(Auto(floats), "fp32/bf16");
  WeightTypes tables = WeightType::kNf4;
  tables.Add(WeightType::kBf16);
  EXPECT_EQ(Auto(tables), "fp32/bf16");
  tables.Add(WeightType::kQ4_0);
  EXPECT_EQ(Auto(tables), "int8/bf16");
}

TEST(NumericsTest, TheVersionFollowsTheWeights) {
  EXPECT_EQ(NumericsVersion(WeightType::kQ4_0), "v1");
  WeightTypes tables = WeightType::kBf16;
  tables.Add(WeightType::kFp4);
  EXPECT_EQ(NumericsVersion(tables), "v2");
}

TEST(NumericsTest, WhatIsNamedIsTaken) {
  const auto numerics = ParseNumerics("fp32", "fp16", WeightType::kQ8_0);
  ASSERT_OK(numerics.status());
  EXPECT_EQ(numerics->activations, ActivationType::kFp32);
  EXPECT_EQ(numerics->kv, DType::kFp16);
}

TEST(NumericsTest, OtherTypesAreRefusedByFlagAndValue) {
  EXPECT_THAT(
      ParseNumerics("fp4", "auto", {}),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("--activations=fp4")));
  EXPECT_THAT(ParseNumerics("auto", "q8_0", {}),
              HasReason(Reason::kUnsupportedParameter, HasSubstr("--kv=q8_0")));
}

}  // namespace
}  // namespace caravan::worker
