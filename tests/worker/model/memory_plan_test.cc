#include "worker/model/memory_plan.h"

#include <gtest/gtest.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/json.h"
#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/model_loader.h"
#include "worker/model/random_model.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/numerics.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

class MemoryPlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto backend = MakeReferenceBackend(NumericsOptions());
    ASSERT_OK(backend);
    backend_ = *std::move(backend);
  }

  // The plan of a configuration without weights.
  MemoryPlan PlanOf(const nlohmann::json& object) {
    const auto config = ParseModelConfig(DumpJson(object), "config.json", {});
    EXPECT_OK(config);
    return MakeMemoryPlan(*config, PlannedDType(*config), *backend_,
                          MemoryPlanOptions());
  }

  std::unique_ptr<Backend> backend_;
};

nlohmann::json Llama2Config(int hidden, int intermediate, int layers,
                            int heads) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_act", "silu"},
          {"hidden_size", hidden},
          {"intermediate_size", intermediate},
          {"max_position_embeddings", 4096},
          {"model_type", "llama"},
          {"num_attention_heads", heads},
          {"num_hidden_layers", layers},
          {"num_key_value_heads", heads},
          {"pretraining_tp", 1},
          {"rms_norm_eps", 1e-05},
          {"rope_scaling", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "float16"},
          {"vocab_size", 32000}};
}

nlohmann::json Llama3Seventy() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"attention_bias", false},
          {"bos_token_id", 128000},
          {"eos_token_id", 128001},
          {"hidden_act", "silu"},
          {"hidden_size", 8192},
          {"intermediate_size", 28672},
          {"max_position_embeddings", 8192},
          {"model_type", "llama"},
          {"num_attention_heads", 64},
          {"num_hidden_layers", 80},
          {"num_key_value_heads", 8},
          {"rms_norm_eps", 1e-05},
          {"rope_theta", 500000.0},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", 128256}};
}

TEST_F(MemoryPlanTest, Llama2ThirteenBillionParametersAreExact) {
  const MemoryPlan plan = PlanOf(Llama2Config(5120, 13824, 40, 40));
  EXPECT_EQ(plan.parameters, 13'015'864'320);
  EXPECT_EQ(plan.checkpoint_bytes, 26'031'728'640u);
}

TEST_F(MemoryPlanTest, Llama3SeventyBillionParametersAreExact) {
  const MemoryPlan plan = PlanOf(Llama3Seventy());
  EXPECT_EQ(plan.parameters, 70'553'706'496);
  EXPECT_EQ(plan.checkpoint_bytes, 141'107'412'992u);
}

TEST_F(MemoryPlanTest, ShapesHaveTheParametersOfTheirModels) {
  struct Case {
    const char* shape;
    int64_t parameters;
  };
  for (const Case& c :
       {Case{"tinyllama", 1'100'048'384}, Case{"llama-2-7b", 6'738'415'616},
        Case{"llama-2-13b", 13'015'864'320},
        Case{"llama-2-70b", 68'976'648'192}, Case{"llama-3-8b", 8'030'261'248},
        Case{"llama-3-70b", 70'553'706'496},
        Case{"llama-3.1-8b", 8'030'261'248},
        Case{"llama-3.2-1b", 1'235'814'400},
        Case{"llama-3.2-3b", 3'212'749'824}}) {
    ASSERT_OK_AND_ASSIGN(const std::string text,
                         ShapeConfig(c.shape, DType::kBf16));
    EXPECT_EQ(PlanOf(ParseJson(text)).parameters, c.parameters) << c.shape;
  }
}

TEST_F(MemoryPlanTest, GroupsAddUpToTheWhole) {
  const MemoryPlan plan = PlanOf(Llama3Seventy());
  int64_t parameters = 0;
  size_t bytes = 0;
  for (const GroupPlan& group : plan.groups) {
    parameters += group.parameters;
    bytes += group.packed_bytes;
  }
  EXPECT_EQ(parameters, plan.parameters);
  EXPECT_EQ(bytes, plan.weight_bytes);
  EXPECT_EQ(plan.groups[static_cast<int>(TensorGroup::kNorms)].parameters,
            (2 * 80 + 1) * 8192);
  EXPECT_EQ(plan.groups[static_cast<int>(TensorGroup::kEmbedding)].parameters,
            int64_t{128256} * 8192);
}

TEST_F(MemoryPlanTest, KvBytesPerTokenFollowLayersHeadsAndType) {
  const MemoryPlan plan = PlanOf(Llama3Seventy());
  EXPECT_EQ(plan.kv_bytes_per_token, 2u * 80 * 8 * 128 * sizeof(float));
  EXPECT_EQ(plan.kv_block_bytes, 16 * plan.kv_bytes_per_token);
}

TEST_F(MemoryPlanTest, BlocksThatFitAreTheMostThatDo) {
  const auto config =
      ParseModelConfig(DumpJson(Llama3Seventy()), "config.json", {});
  ASSERT_OK(config);
  const size_t budget = size_t{10} << 30;
  const int32_t blocks = BlocksThatFit(*config, *backend_, budget, 1 << 20);
  EXPECT_LE(backend_->KvBytes(KvSpecOf(*config, blocks)), budget);
  EXPECT_GT(backend_->KvBytes(KvSpecOf(*config, blocks + 1)), budget);
  EXPECT_EQ(BlocksThatFit(*config, *backend_, 1000, 1 << 20), 0);
  EXPECT_EQ(BlocksThatFit(*config, *backend_, budget, 7), 7);
}

TEST_F(MemoryPlanTest, LoadedModelTakesWhatWasPlanned) {
  for (const char* const directory :
       {"deploy/demo-model", "tests/data/tiny/mlp-bias",
        "tests/data/tiny/attention-bias", "tests/data/tiny/sharded"}) {
    const std::string path = testing::RepositoryPath(directory);
    ASSERT_OK_AND_ASSIGN(const ModelDescription described,
                         DescribeModel(path, ModelOptions(), *backend_));
    ASSERT_OK_AND_ASSIGN(const auto loaded,
                         LoadModel(path, ModelOptions(), backend_.get()));
    EXPECT_EQ(loaded->weights.bytes, described.plan.weight_bytes) << directory;
  }
}

// The cpu backend's plan of tests/data/plans/NAME.json with a cache of bf16.
class CpuPlanTest : public ::testing::Test {
 protected:
  // GiB of weights, arena and the cache of 2,048 tokens; `quantization` is what
  // config.json says of the weights.
  double PlannedGibibytes(const std::string& name, const std::string& weights,
                          const nlohmann::json& quantization) {
    auto config = ParseJson(testing::ReadFile(
        testing::RepositoryPath(StrCat("tests/data/plans/", name, ".json"))));
    if (!quantization.is_null()) config["quantization_config"] = quantization;
    const testing::TemporaryDirectory directory;
    directory.Write("config.json", DumpJson(config));
    ModelOptions options;
    options.weights = weights;
    const auto types = ReadWeightTypes(directory.path(), options);
    EXPECT_OK(types);
    const auto backend =
        MakeCpuBackend({.numerics = *ParseNumerics("auto", "bf16", *types)});
    const auto model = DescribeModel(directory.path(), options, **backend);
    EXPECT_OK(model);
    constexpr int32_t kBlocks = 2048 / kBlockSlots;
    return static_cast<double>(
               model->plan.fixed_bytes() +
               (*backend)->KvBytes(KvSpecOf(model->config, kBlocks))) /
           (1 << 30);
  }
};

TEST_F(CpuPlanTest, TypesWithoutAKernelAreNamedAsWidened) {
  WeightTypes types;
  for (const WeightType type :
       {WeightType::kFp32, WeightType::kBf16, WeightType::kQ2_K,
        WeightType::kQ4_0, WeightType::kNf4, WeightType::kTq2_0}) {
    types.Add(type);
  }
  const auto int8 =
      MakeCpuBackend({.numerics = *ParseNumerics("int8", "bf16", types)});
  ASSERT_OK(int8);
  EXPECT_EQ(Name(WidenedTypes(**int8, types)), "q2_k+tq2_0");
  const auto fp32 =
      MakeCpuBackend({.numerics = *ParseNumerics("fp32", "fp32", types)});
  ASSERT_OK(fp32);
  EXPECT_EQ(Name(WidenedTypes(**fp32, types)), "q4_0+q2_k+tq2_0");
}

TEST_F(CpuPlanTest, FourBitsAWeightTakeWhatTheSeedSays) {
  const nlohmann::json nf4 = {{"quant_method", "bitsandbytes"},
                              {"load_in_4bit", true},
                              {"bnb_4bit_quant_type", "nf4"}};
  struct Case {
    const char* name;
    double most;
  };
  for (const Case& c : {Case{"llama-2-7b", 5.5}, Case{"llama-2-13b", 8.9},
                        Case{"llama-2-70b", 37.6}}) {
    const double of_nf4 = PlannedGibibytes(c.name, "keep", nf4);
    const double of_q4_0 = PlannedGibibytes(c.name, "q4_0", nullptr);
    std::cout << c.name << ": nf4 " << of_nf4 << " GiB, q4_0 " << of_q4_0
              << " GiB, at most " << c.most << "\n";
    EXPECT_LE(of_nf4, c.most) << c.name;
    EXPECT_LE(of_q4_0, c.most) << c.name;
  }
}

}  // namespace
}  // namespace caravan::worker
