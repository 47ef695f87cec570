#include "worker/model/gguf_export.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/tokenizer.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/gguf_names.h"
#include "worker/model/layout.h"
#include "worker/model/random_model.h"
#include "worker/model/rope.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::TemporaryDirectory;

std::vector<float> FloatsOf(const CheckpointTensors& tensors,
                            const CheckpointTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  tensors.ReadFloats(tensor, 0, tensor.rows(), values.data());
  return values;
}

class GgufExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    source_ = directory_.path() + "/source";
    target_ = directory_.path() + "/model.gguf";
    ASSERT_OK(WriteRandomModel(source_, {.shape = "tiny", .seed = 3}));
  }

  absl::Status Export(WeightType type) {
    return ExportGguf(source_, target_, {.type = type, .progress = nullptr})
        .status();
  }

  TemporaryDirectory directory_;
  std::string source_;
  std::string target_;
};

TEST_F(GgufExportTest, EveryTensorComesBackFromFp32) {
  ASSERT_OK(Export(WeightType::kFp32));
  ASSERT_OK_AND_ASSIGN(const auto before, CheckpointTensors::Open(source_));
  ASSERT_OK_AND_ASSIGN(const auto after, CheckpointTensors::Open(target_));
  EXPECT_EQ(before->tensors().size(), after->tensors().size());
  for (const auto& [name, tensor] : before->tensors()) {
    ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const other, after->Get(name));
    EXPECT_EQ(FloatsOf(*before, tensor), FloatsOf(*after, *other)) << name;
  }
}

TEST_F(GgufExportTest, RowsAreQuantizedOneByOne) {
  ASSERT_OK(Export(WeightType::kQ8_0));
  ASSERT_OK_AND_ASSIGN(const auto before, CheckpointTensors::Open(source_));
  ASSERT_OK_AND_ASSIGN(const auto after, CheckpointTensors::Open(target_));
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const tensor, before->Get(name));
  ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const other, after->Get(name));
  EXPECT_EQ(other->type, WeightType::kQ8_0);
  std::vector<float> wanted = FloatsOf(*before, *tensor);
  std::vector<std::byte> bytes(RowBytes(WeightType::kQ8_0, tensor->elements()));
  QuantizeRow(WeightType::kQ8_0, wanted.data(), tensor->elements(),
              bytes.data());
  DequantizeRow(WeightType::kQ8_0, bytes.data(), tensor->elements(),
                wanted.data());
  EXPECT_EQ(FloatsOf(*after, *other), wanted);
}

TEST_F(GgufExportTest, ConfigurationComesBack) {
  ASSERT_OK(Export(WeightType::kQ4_0));
  ASSERT_OK_AND_ASSIGN(const ModelConfig before, LoadModelConfig(source_, {}));
  ASSERT_OK_AND_ASSIGN(const ModelConfig after, LoadModelConfig(target_, {}));
  EXPECT_EQ(before.vocab_size, after.vocab_size);
  EXPECT_EQ(before.hidden_size, after.hidden_size);
  EXPECT_EQ(before.head_dim, after.head_dim);
  EXPECT_EQ(before.kv_heads, after.kv_heads);
  EXPECT_EQ(before.tied_embeddings, after.tied_embeddings);
  EXPECT_EQ(before.context_length(), after.context_length());
  EXPECT_EQ(before.rms_norm_eps, after.rms_norm_eps);
  EXPECT_EQ(Rope(before).InverseFrequencies(7, 1),
            Rope(after).InverseFrequencies(7, 1));
}

TEST_F(GgufExportTest, TextBecomesTheSameIds) {
  ASSERT_OK(Export(WeightType::kQ4_0));
  ASSERT_OK_AND_ASSIGN(const auto before,
                       text::Tokenizer::LoadDirectory(source_));
  ASSERT_OK_AND_ASSIGN(const auto after,
                       text::Tokenizer::LoadDirectory(target_));
  const std::string text = "The caravan moves on, 12 camels at a time.\n";
  ASSERT_OK_AND_ASSIGN(const auto ids, before->Encode(text, {}));
  ASSERT_OK_AND_ASSIGN(const auto others, after->Encode(text, {}));
  EXPECT_EQ(ids, others);
}

TEST_F(GgufExportTest, ExportOfAnExportIsTheSame) {
  ASSERT_OK(Export(WeightType::kQ5_1));
  const std::string again = directory_.path() + "/again.gguf";
  ASSERT_OK(ExportGguf(target_, again,
                       {.type = WeightType::kFp32, .progress = nullptr})
                .status());
  ASSERT_OK_AND_ASSIGN(const auto before, CheckpointTensors::Open(target_));
  ASSERT_OK_AND_ASSIGN(const auto after, CheckpointTensors::Open(again));
  for (const auto& [name, tensor] : before->tensors()) {
    ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const other, after->Get(name));
    EXPECT_EQ(FloatsOf(*before, tensor), FloatsOf(*after, *other)) << name;
  }
}

TEST_F(GgufExportTest, SeveralThreadsWriteTheSameBytes) {
  for (const WeightType type : {WeightType::kQ4_0, WeightType::kBf16}) {
    const auto write = [&](int threads) -> absl::StatusOr<std::string> {
      const std::string path =
          StrCat(directory_.path(), "/", Name(type), "-", threads, ".gguf");
      int last = 0;
      const auto progress = [&last](int percent) {
        EXPECT_GE(percent, last);
        last = percent;
      };
      CARAVAN_RETURN_IF_ERROR(
          ExportGguf(source_, path,
                     {.type = type, .threads = threads, .progress = progress})
              .status());
      EXPECT_EQ(last, 100);
      return testing::ReadFile(path);
    };
    ASSERT_OK_AND_ASSIGN(const std::string one, write(1));
    ASSERT_OK_AND_ASSIGN(const std::string three, write(3));
    EXPECT_TRUE(one == three) << Name(type);
  }
}

TEST_F(GgufExportTest, TypesAndTargetsThatAreNotWrittenAreRefused) {
  EXPECT_THAT(ExportGguf(source_, target_, {.threads = 0}).status(),
              HasReason(Reason::kInvalidField));
  EXPECT_THAT(Export(WeightType::kQ2_K), HasReason(Reason::kInvalidField));
  EXPECT_THAT(ExportGguf(source_, directory_.path() + "/x.bin", {}).status(),
              HasReason(Reason::kInvalidField));
  ASSERT_OK(Export(WeightType::kQ8_0));
  EXPECT_THAT(Export(WeightType::kQ8_0), HasReason(Reason::kInvalidField));
}

TEST_F(GgufExportTest, AFullDiskIsAnErrorAndLeavesNoFile) {
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit unlimited = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  rlimit small = unlimited;
  small.rlim_cur = 10000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Export(WeightType::kFp32);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  std::signal(SIGXFSZ, before);
  EXPECT_THAT(status, HasReason(Reason::kInternal,
                                ::testing::HasSubstr("cannot be written")));
  EXPECT_FALSE(std::filesystem::exists(target_));
  EXPECT_OK(Export(WeightType::kFp32));
}

TEST(GgufNamesTest, EveryTensorOfALlamaHasANameInBothThatLeadsBack) {
  ModelConfig config;
  config.layers = 12;
  config.heads = config.kv_heads = 2;
  config.head_dim = 4;
  config.hidden_size = config.intermediate_size = config.vocab_size = 8;
  config.attention_bias = config.mlp_bias = true;
  for (const TensorSpec& tensor : AllTensors(MakeLayout(config))) {
    const auto name = GgufName(tensor.name);
    ASSERT_TRUE(name) << tensor.name;
    EXPECT_EQ(HuggingFaceName(*name), tensor.name);
  }
  EXPECT_EQ(GgufName("model.layers.11.self_attn.k_proj.bias"),
            "blk.11.attn_k.bias");
  for (const char* const other :
       {"", "x", "blk.1", "blk..weight", "blk.1.attn_rot.weight",
        "rope_freqs.weight"}) {
    EXPECT_EQ(HuggingFaceName(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace caravan::worker
