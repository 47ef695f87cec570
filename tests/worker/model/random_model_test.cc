#include "worker/model/random_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "common/json.h"
#include "common/text/tokenizer.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/model_loader.h"
#include "worker/model/random_tokenizer.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

// Of a random model's weights, by an independent load.
absl::StatusOr<std::string> IdOf(const RandomModelOptions& options) {
  const testing::TemporaryDirectory directory;
  CARAVAN_RETURN_IF_ERROR(WriteRandomModel(directory.path(), options));
  CARAVAN_ASSIGN_OR_RETURN(const auto backend,
                           MakeReferenceBackend(NumericsOptions()));
  CARAVAN_ASSIGN_OR_RETURN(
      const auto model,
      LoadModel(directory.path(), ModelOptions(), backend.get()));
  return model->weights.id;
}

TEST(RandomModelTest, BytesDependOnSeedAndTypeButNotOnThreadsOrFiles) {
  RandomModelOptions options;
  ASSERT_OK_AND_ASSIGN(const std::string id, IdOf(options));
  options.threads = 3;
  options.max_file_bytes = 50'000;
  ASSERT_OK_AND_ASSIGN(const std::string cut, IdOf(options));
  EXPECT_EQ(cut, id);
  options.seed = 1;
  ASSERT_OK_AND_ASSIGN(const std::string other, IdOf(options));
  EXPECT_NE(other, id);
}

TEST(RandomModelTest, LargeModelsAreCutIntoFilesWithAnIndex) {
  const testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.max_file_bytes = 100'000;
  ASSERT_OK(WriteRandomModel(directory.path(), options));
  EXPECT_TRUE(std::filesystem::exists(
      directory.File("model-00001-of-00003.safetensors")));
  EXPECT_TRUE(
      std::filesystem::exists(directory.File("model.safetensors.index.json")));
  EXPECT_OK(Checkpoint::Open(directory.path()));
}

TEST(RandomModelTest, WeightsAreNormalWithDeviationTwoHundredths) {
  const testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.dtype = DType::kFp32;
  ASSERT_OK(WriteRandomModel(directory.path(), options));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       Checkpoint::Open(directory.path()));
  ASSERT_OK_AND_ASSIGN(const TensorRecord* const tensor,
                       checkpoint->Get("model.embed_tokens.weight"));
  double sum = 0, squares = 0, fourths = 0;
  const size_t count = tensor->bytes / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, tensor->data + i * sizeof(float), sizeof(float));
    const double z = value / 0.02;
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
  }
  const double n = static_cast<double>(count);
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 6 / std::sqrt(n));
  EXPECT_NEAR(fourths / n, 3, 40 / std::sqrt(n));
}

TEST(RandomModelTest, BlockTypesAreWrittenAsOneGgufFileWithItsTokenizer) {
  const testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.block_type = WeightType::kQ4_0;
  ASSERT_OK(WriteRandomModel(directory.path(), options));
  const std::string file = directory.File("model.gguf");
  ASSERT_OK_AND_ASSIGN(const auto tensors, CheckpointTensors::Open(file));
  ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const matrix,
                       tensors->Get("model.layers.0.mlp.gate_proj.weight"));
  EXPECT_EQ(matrix->type, WeightType::kQ4_0);
  ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const norm,
                       tensors->Get("model.norm.weight"));
  std::vector<float> ones(static_cast<size_t>(norm->rows()));
  tensors->ReadFloats(*norm, 0, norm->rows(), ones.data());
  EXPECT_EQ(ones, std::vector<float>(ones.size(), 1.0f));
  ASSERT_OK_AND_ASSIGN(const auto whole,
                       text::Tokenizer::LoadDirectory(directory.path()));
  ASSERT_OK_AND_ASSIGN(const auto own, text::Tokenizer::LoadDirectory(file));
  ASSERT_OK_AND_ASSIGN(const auto ids, whole->Encode("12 camels", {}));
  ASSERT_OK_AND_ASSIGN(const auto others, own->Encode("12 camels", {}));
  EXPECT_EQ(ids, others);
}

TEST(RandomModelTest, BlocksDependOnSeedAndTypeButNotOnThreads) {
  RandomModelOptions options;
  options.block_type = WeightType::kQ8_0;
  ASSERT_OK_AND_ASSIGN(const std::string id, IdOf(options));
  options.threads = 3;
  ASSERT_OK_AND_ASSIGN(const std::string shared, IdOf(options));
  EXPECT_EQ(shared, id);
  options.seed = 1;
  ASSERT_OK_AND_ASSIGN(const std::string other, IdOf(options));
  EXPECT_NE(other, id);
}

TEST(RandomModelTest, QuantizedWeightsAreNormalWithDeviationTwoHundredths) {
  const testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.block_type = WeightType::kQ8_0;
  ASSERT_OK(WriteRandomModel(directory.path(), options));
  ASSERT_OK_AND_ASSIGN(const auto tensors,
                       CheckpointTensors::Open(directory.path()));
  ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const tensor,
                       tensors->Get("model.embed_tokens.weight"));
  std::vector<float> values(static_cast<size_t>(tensor->elements()));
  tensors->ReadFloats(*tensor, 0, tensor->rows(), values.data());
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value / 0.02;
    squares += value / 0.02 * value / 0.02;
  }
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 6 / std::sqrt(n));
}

TEST(RandomModelTest, UnknownShapesAndFullDirectoriesAreRefused) {
  const testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.shape = "llama-9";
  EXPECT_THAT(WriteRandomModel(directory.path(), options),
              HasReason(Reason::kInvalidField, HasSubstr("tinyllama")));
  options.shape = "tiny";
  options.threads = 0;
  EXPECT_THAT(WriteRandomModel(directory.path(), options),
              HasReason(Reason::kInvalidField, HasSubstr("--threads")));
  options.threads = 1;
  options.block_type = WeightType::kQ2_K;
  EXPECT_THAT(WriteRandomModel(directory.path(), options),
              HasReason(Reason::kInvalidField, HasSubstr("--type")));
  options.block_type = std::nullopt;
  directory.Write("something", "");
  EXPECT_THAT(WriteRandomModel(directory.path(), options),
              HasReason(Reason::kInvalidField, HasSubstr("empty directory")));
}

TEST(RandomTokenizerTest, PiecesAreDistinctAndEveryMergeMakesOne) {
  for (const int32_t size : {kLeastRandomVocabulary, 512, 32000}) {
    const auto json = ParseJson(RandomTokenizerJson(size));
    const auto& vocab = json["model"]["vocab"];
    const auto& merges = json["model"]["merges"];
    EXPECT_EQ(vocab.size(), static_cast<size_t>(size) - 6);
    EXPECT_EQ(merges.size(), static_cast<size_t>(size) - 6 - 256);
    std::set<int> ids;
    for (const auto& [piece, id] : vocab.items()) ids.insert(id.get<int>());
    EXPECT_EQ(ids.size(), vocab.size());
    for (const auto& merge : merges) {
      const std::string text = merge.get<std::string>();
      const size_t space = text.find(' ');
      const std::string left = text.substr(0, space);
      const std::string right = text.substr(space + 1);
      ASSERT_TRUE(vocab.contains(left) && vocab.contains(right)) << text;
      ASSERT_TRUE(vocab.contains(left + right)) << text;
    }
    EXPECT_EQ(json["added_tokens"][0]["id"], RandomBosId(size));
    EXPECT_EQ(json["added_tokens"][4]["id"], RandomEndOfTurnId(size));
  }
}

}  // namespace
}  // namespace caravan::worker
