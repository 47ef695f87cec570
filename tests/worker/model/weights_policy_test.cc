#include "worker/model/weights_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status/status_macros.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/gguf_export.h"
#include "worker/model/model_loader.h"
#include "worker/model/random_model.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::TemporaryDirectory;
using ::testing::HasSubstr;

TensorSpec Matrix(TensorGroup group, int64_t cols) {
  return {.name = "m", .group = group, .rows = 64, .cols = cols};
}

WeightType TypeOf(const char* weights, const TensorSpec& spec,
                  WeightType loaded, bool tied = false) {
  return WeightsPolicy::Parse(weights)->TypeFor(spec, tied, loaded);
}

TEST(WeightsPolicyTest, OnlyTheNamedTypesAreTaken) {
  for (const char* const name : {"keep", "bf16", "fp8", "q8_0", "q4_0"}) {
    ASSERT_OK_AND_ASSIGN(const auto policy, WeightsPolicy::Parse(name));
    EXPECT_EQ(policy.name(), name);
  }
  EXPECT_TRUE(WeightsPolicy::Parse("keep")->keeps());
  for (const char* const name : {"", "q4_k", "fp32", "Q8_0"}) {
    EXPECT_THAT(WeightsPolicy::Parse(name).status(),
                HasReason(Reason::kInvalidField, HasSubstr("--weights")));
  }
}

TEST(WeightsPolicyTest, PlainMatricesBecomeWhatIsAskedFor) {
  const TensorSpec matrix = Matrix(TensorGroup::kAttention, 64);
  EXPECT_EQ(TypeOf("keep", matrix, WeightType::kFp32), WeightType::kFp32);
  EXPECT_EQ(TypeOf("bf16", matrix, WeightType::kFp32), WeightType::kBf16);
  EXPECT_EQ(TypeOf("bf16", matrix, WeightType::kFp16), WeightType::kBf16);
  EXPECT_EQ(TypeOf("q8_0", matrix, WeightType::kBf16), WeightType::kQ8_0);
  EXPECT_EQ(TypeOf("q4_0", matrix, WeightType::kFp16), WeightType::kQ4_0);
}

TEST(WeightsPolicyTest, MatricesOfLayersBecomeFp8AndOthersBf16) {
  const auto fp8 = [](TensorGroup group, int64_t cols) {
    return TypeOf("fp8", Matrix(group, cols), WeightType::kFp32);
  };
  EXPECT_EQ(fp8(TensorGroup::kAttention, 64), WeightType::kFp8);
  EXPECT_EQ(fp8(TensorGroup::kFeedForward, 96), WeightType::kFp8);
  EXPECT_EQ(fp8(TensorGroup::kFeedForward, 100), WeightType::kBf16);
  EXPECT_EQ(fp8(TensorGroup::kHead, 64), WeightType::kBf16);
  EXPECT_EQ(fp8(TensorGroup::kEmbedding, 64), WeightType::kBf16);
}

TEST(WeightsPolicyTest, WhatIsSmallerAlreadyStays) {
  const TensorSpec matrix = Matrix(TensorGroup::kFeedForward, 256);
  EXPECT_EQ(TypeOf("bf16", matrix, WeightType::kQ8_0), WeightType::kQ8_0);
  EXPECT_EQ(TypeOf("q8_0", matrix, WeightType::kQ4_0), WeightType::kQ4_0);
  EXPECT_EQ(TypeOf("q4_0", matrix, WeightType::kQ4_K), WeightType::kQ4_K);
  EXPECT_EQ(TypeOf("q4_0", matrix, WeightType::kQ3_K), WeightType::kQ3_K);
  EXPECT_EQ(TypeOf("q4_0", matrix, WeightType::kQ8_0), WeightType::kQ4_0);
}

TEST(WeightsPolicyTest, NothingBecomesCoarserThanAskedFor) {
  // Rows that are no whole blocks.
  const TensorSpec odd = Matrix(TensorGroup::kAttention, 40);
  EXPECT_EQ(TypeOf("q4_0", odd, WeightType::kFp32), WeightType::kFp16);
  // The head keeps six bits at least.
  const TensorSpec head = Matrix(TensorGroup::kHead, 256);
  EXPECT_EQ(TypeOf("q4_0", head, WeightType::kBf16), WeightType::kQ6_K);
  const TensorSpec table = Matrix(TensorGroup::kEmbedding, 256);
  EXPECT_EQ(TypeOf("q4_0", table, WeightType::kBf16, /*tied=*/true),
            WeightType::kQ6_K);
  EXPECT_EQ(TypeOf("q4_0", table, WeightType::kBf16), WeightType::kQ4_0);
  // Vectors stay.
  const TensorSpec norm = Matrix(TensorGroup::kNorms, 0);
  EXPECT_EQ(TypeOf("q4_0", norm, WeightType::kBf16), WeightType::kBf16);
}

class LoadAsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    source_ = directory_.path() + "/source";
    ASSERT_OK(WriteRandomModel(source_, {.shape = "tiny", .seed = 5}));
    ASSERT_OK_AND_ASSIGN(backend_, MakeReferenceBackend({}));
  }

  absl::StatusOr<std::unique_ptr<LoadedModel>> Load(const std::string& path,
                                                    const char* weights) {
    ModelOptions options;
    options.weights = weights;
    options.threads = 2;
    return LoadModel(path, options, backend_.get());
  }

  TemporaryDirectory directory_;
  std::string source_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(LoadAsTest, GivesTheNumbersOfAQuantizedFile) {
  for (const WeightType type :
       {WeightType::kBf16, WeightType::kQ8_0, WeightType::kQ4_0}) {
    const std::string file =
        directory_.path() + "/" + std::string(Name(type)) + ".gguf";
    ASSERT_OK(ExportGguf(source_, file, {.type = type}).status());
    ASSERT_OK_AND_ASSIGN(const auto written, CheckpointTensors::Open(file));
    ASSERT_OK_AND_ASSIGN(const auto loaded, CheckpointTensors::Open(source_));
    ASSERT_OK_AND_ASSIGN(const auto config, LoadModelConfig(source_, {}));
    ASSERT_OK_AND_ASSIGN(const auto policy, WeightsPolicy::Parse(Name(type)));
    ApplyPolicy(policy, config, /*threads=*/2, loaded.get());
    for (const auto& [name, tensor] : loaded->tensors()) {
      ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const other,
                           written->Get(name));
      std::vector<float> ours(static_cast<size_t>(tensor.elements()));
      std::vector<float> theirs(ours.size());
      loaded->ReadFloats(tensor, 0, tensor.rows(), ours.data());
      written->ReadFloats(*other, 0, other->rows(), theirs.data());
      EXPECT_EQ(ours, theirs) << name;
      if (tensor.shape.size() == 1) continue;
      EXPECT_EQ(tensor.type, other->type) << name;
    }
  }
}

TEST_F(LoadAsTest, IsNamedInWordsAndInThePlanButNotInTheWeightsId) {
  ASSERT_OK_AND_ASSIGN(const auto kept, Load(source_, "keep"));
  ASSERT_OK_AND_ASSIGN(const auto loaded, Load(source_, "q8_0"));
  EXPECT_EQ(loaded->weights.id, kept->weights.id);
  EXPECT_THAT(loaded->description.checkpoint,
              HasSubstr("safetensors, converted: "));
  EXPECT_THAT(loaded->description.checkpoint, HasSubstr(" x q8_0"));
  EXPECT_LT(loaded->description.plan.checkpoint_bytes,
            kept->description.plan.checkpoint_bytes);
  EXPECT_EQ(loaded->description.plan.weight_bytes, loaded->weights.bytes);
}

TEST_F(LoadAsTest, IsPlannedFromTheConfigurationAlone) {
  ModelOptions options;
  options.weights = "q4_0";
  ASSERT_OK_AND_ASSIGN(const auto with_weights,
                       DescribeModel(source_, options, *backend_));
  std::filesystem::remove(source_ + "/model.safetensors");
  ASSERT_OK_AND_ASSIGN(const auto without,
                       DescribeModel(source_, options, *backend_));
  for (size_t i = 0; i < without.plan.groups.size(); ++i) {
    if (without.plan.groups[i].group == TensorGroup::kNorms) continue;
    EXPECT_EQ(without.plan.groups[i].checkpoint_bytes,
              with_weights.plan.groups[i].checkpoint_bytes);
  }
  options.weights = "q2_k";
  EXPECT_THAT(DescribeModel(source_, options, *backend_).status(),
              HasReason(Reason::kInvalidField, HasSubstr("--weights")));
}

}  // namespace
}  // namespace caravan::worker
