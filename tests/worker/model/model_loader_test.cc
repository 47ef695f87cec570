#include "worker/model/model_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/json.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;

constexpr const char* kModel = "tests/data/tiny/gqa";

// A safetensors file in pieces, to be changed and put together again.
struct Tensors {
  json header;
  std::string data;

  static Tensors Read(const std::string& path) {
    const std::string bytes = testing::ReadFile(path);
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) {
      length = length << 8 | static_cast<uint8_t>(bytes[i]);
    }
    return {ParseJson(bytes.substr(8, length)), bytes.substr(8 + length)};
  }
  std::string Bytes() const {
    const std::string text = DumpJson(header);
    std::string bytes;
    for (int i = 0; i < 8; ++i) {
      bytes += static_cast<char>(text.size() >> (8 * i));
    }
    return bytes + text + data;
  }
};

class ModelLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto backend = MakeReferenceBackend(NumericsOptions());
    ASSERT_OK(backend);
    backend_ = *std::move(backend);
  }

  auto Load(const std::string& path, const ModelOptions& options = {}) {
    return LoadModel(path, options, backend_.get());
  }

  // A copy of the model with another weights file.
  auto LoadWithTensors(const Tensors& tensors) {
    const testing::TemporaryDirectory directory;
    directory.Write("config.json", testing::ReadFile(testing::RepositoryPath(
                                       std::string(kModel) + "/config.json")));
    directory.Write("model.safetensors", tensors.Bytes());
    return Load(directory.path());
  }
  static Tensors ReadTensors() {
    return Tensors::Read(
        testing::RepositoryPath(std::string(kModel) + "/model.safetensors"));
  }

  std::unique_ptr<Backend> backend_;
};

TEST_F(ModelLoaderTest, ProgressRisesToOneHundred) {
  int last = 0;
  ModelOptions options;
  options.progress = [&last](int percent) {
    EXPECT_GE(percent, last);
    last = percent;
  };
  EXPECT_OK(Load(testing::RepositoryPath(kModel), options));
  EXPECT_EQ(last, 100);
}

TEST_F(ModelLoaderTest, EndTokensComeFromTheGenerationConfigUnlessIgnored) {
  const testing::TemporaryDirectory directory;
  std::filesystem::copy(testing::RepositoryPath(kModel), directory.path(),
                        std::filesystem::copy_options::recursive);
  directory.Write("generation_config.json",
                  R"({"eos_token_id": [5, 6], "temperature": 0.5})");
  ASSERT_OK_AND_ASSIGN(const auto with, Load(directory.path()));
  EXPECT_THAT(with->description.eos_ids, ElementsAre(5, 6));
  EXPECT_EQ(*with->description.generation.temperature, 0.5f);
  ModelOptions options;
  options.use_generation_config = false;
  ASSERT_OK_AND_ASSIGN(const auto without, Load(directory.path(), options));
  EXPECT_THAT(without->description.eos_ids, ElementsAre(2));
  EXPECT_FALSE(without->description.generation.temperature.has_value());
}

TEST_F(ModelLoaderTest, WeightsIdNamesTheTensorsNotTheFiles) {
  ASSERT_OK_AND_ASSIGN(const auto model, Load(testing::RepositoryPath(kModel)));
  EXPECT_EQ(model->weights.id.size(), 64u);
  // Another order of the same tensors in the file: the same id.
  Tensors tensors = ReadTensors();
  tensors.header["__metadata__"] = {{"format", "something else"}};
  ASSERT_OK_AND_ASSIGN(const auto same, LoadWithTensors(tensors));
  EXPECT_EQ(same->weights.id, model->weights.id);
  // One changed bit: another id.
  tensors.data[1000] = static_cast<char>(tensors.data[1000] ^ 1);
  ASSERT_OK_AND_ASSIGN(const auto other, LoadWithTensors(tensors));
  EXPECT_NE(other->weights.id, model->weights.id);
}

TEST_F(ModelLoaderTest, WeightsIdIsTheSameOnEveryMachine) {
  ASSERT_OK_AND_ASSIGN(const auto model,
                       Load(testing::RepositoryPath("deploy/demo-model")));
  EXPECT_EQ(model->weights.id,
            "08c287d4b15a3a815887a9ed795846dc648982707d19f26f26131e574984e204");
}

TEST_F(ModelLoaderTest, MissingTensorIsNamed) {
  const std::string path = testing::RepositoryPath(kModel);
  ModelOptions options;
  options.overrides = {"attention_bias=true"};
  EXPECT_THAT(Load(path, options),
              HasReason(Reason::kModelFileInvalid,
                        HasSubstr("model.layers.0.self_attn.q_proj.bias")));
  options.overrides = {"num_hidden_layers=3"};
  EXPECT_THAT(Load(path, options),
              HasReason(Reason::kModelFileInvalid,
                        HasSubstr("model.layers.2.input_layernorm.weight")));
}

TEST_F(ModelLoaderTest, ShapeThatIsNotTheConfigsIsNamedWithFileAndOffset) {
  ModelOptions options;
  options.overrides = {"intermediate_size=100"};
  EXPECT_THAT(
      Load(testing::RepositoryPath(kModel), options),
      HasReason(Reason::kModelFileInvalid,
                AllOf(HasSubstr("model.safetensors"), HasSubstr("gate_proj"),
                      HasSubstr("[100, "), HasSubstr("offset"))));
}

TEST_F(ModelLoaderTest, TypeThatIsNoWeightsTypeIsNamed) {
  Tensors tensors = ReadTensors();
  tensors.header["model.norm.weight"]["dtype"] = "I16";
  EXPECT_THAT(LoadWithTensors(tensors),
              HasReason(Reason::kModelFileInvalid,
                        AllOf(HasSubstr("model.norm.weight"),
                              HasSubstr("F32, BF16 or F16; got I16"))));
}

TEST_F(ModelLoaderTest, MatricesOfTwoTypesAreRefused) {
  Tensors tensors = ReadTensors();
  tensors.header["lm_head.weight"]["dtype"] = "F16";
  EXPECT_THAT(
      LoadWithTensors(tensors),
      HasReason(Reason::kModelFileInvalid,
                AllOf(HasSubstr("lm_head.weight"), HasSubstr("got F16"))));
}

TEST_F(ModelLoaderTest, DirectoryWithoutWeightsCanBeDescribedOnly) {
  const testing::TemporaryDirectory directory;
  directory.Write("config.json", testing::ReadFile(testing::RepositoryPath(
                                     std::string(kModel) + "/config.json")));
  ASSERT_OK_AND_ASSIGN(
      const ModelDescription described,
      DescribeModel(directory.path(), ModelOptions(), *backend_));
  EXPECT_EQ(described.weight_types, WeightTypes(WeightType::kBf16));
  EXPECT_THAT(Load(directory.path()),
              HasReason(Reason::kNotFound, HasSubstr("model.safetensors")));
}

}  // namespace
}  // namespace caravan::worker
