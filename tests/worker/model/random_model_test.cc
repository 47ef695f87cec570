#include "worker/model/random_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
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
  directory.Write("something", "");
  EXPECT_THAT(WriteRandomModel(directory.path(), options),
              HasReason(Reason::kInvalidField, HasSubstr("empty directory")));
}

TEST(RandomTokenizerTest, PiecesAreDistinctAndEveryMergeMakesOne) {
  for (const int32_t size : {kLeastRandomVocabulary, 512, 32000}) {
    const auto json = nlohmann::json::parse(RandomTokenizerJson(size));
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
