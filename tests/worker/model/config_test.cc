#include "worker/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;

json Minimal() {
  return {{"vocab_size", 512},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4}};
}

absl::StatusOr<ModelConfig> Parse(
    const json& object, const std::vector<std::string>& overrides = {}) {
  return ParseModelConfig(DumpJson(object), "config.json", overrides);
}

// Parses Minimal() with one key changed.
absl::StatusOr<ModelConfig> With(const std::string& key, const json& value) {
  json object = Minimal();
  object[key] = value;
  return Parse(object);
}

TEST(ModelConfigTest, AbsentKeysHaveTheFamilysDefaults) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Minimal()));
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.rope.type, RopeType::kPlain);
  EXPECT_EQ(config.context_length(), 2048);
  EXPECT_FALSE(config.tied_embeddings || config.attention_bias ||
               config.mlp_bias);
  EXPECT_TRUE(config.eos_ids.empty());
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_FALSE(config.torch_dtype.has_value());
}

TEST(ModelConfigTest, NullIsAbsent) {
  json object = Minimal();
  for (const char* const key :
       {"num_key_value_heads", "head_dim", "rope_scaling", "eos_token_id",
        "torch_dtype", "quantization_config"}) {
    object[key] = nullptr;
  }
  EXPECT_OK(Parse(object));
}

TEST(ModelConfigTest, EveryRequiredKeyIsNamedWhenItIsMissing) {
  for (const char* const key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads"}) {
    json object = Minimal();
    object.erase(key);
    EXPECT_THAT(Parse(object),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("config.json"), HasSubstr(key))));
  }
}

TEST(ModelConfigTest, HostileValuesAreRefusedWithKeyLimitAndValue) {
  struct Case {
    const char* key;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"hidden_size", "64", "hidden_size must be an integer"},
      {"hidden_size", 64.5, "64.5"},
      {"hidden_size", -64, "[1, 1048576]; got -64"},
      {"hidden_size", 66, "multiple of num_attention_heads"},
      {"vocab_size", 18446744073709551615u, "18446744073709551615"},
      {"num_hidden_layers", 1000000, "[1, 1024]; got 1000000"},
      {"num_key_value_heads", 3, "a divisor of num_attention_heads, 4; got 3"},
      {"num_key_value_heads", 0, "got 0"},
      {"head_dim", 7, "head_dim must be even"},
      {"head_dim", 2, "got 2"},
      {"rms_norm_eps", -1, "rms_norm_eps"},
      {"rope_theta", 0, "rope_theta"},
      {"rope_theta", json::array({1}), "rope_theta must be a number"},
      {"max_position_embeddings", 1 << 30, "max_position_embeddings"},
      {"tie_word_embeddings", 1, "true or false"},
      {"eos_token_id", 512, "[-1, 511]; got 512"},
      {"eos_token_id", json::array({1, "x"}), "got \"x\""},
      {"eos_token_id", std::vector<int>(65, 1), "at most 64 ids"},
      {"bos_token_id", -2, "bos_token_id"},
      {"hidden_act", "gelu", "hidden_act must be silu; got gelu"},
      {"torch_dtype", "int8", "torch_dtype"},
      {"model_type", "mistral", "model_type must be llama; got mistral"},
      {"model_type", "longllama", "longllama"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor"},
      {"quantization_config", {{"quant_method", "hqq"}}, "gptq, awq, "},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(With(c.key, c.value),
                HasReason(Reason::kModelFileInvalid, HasSubstr(c.message)));
  }
}

TEST(ModelConfigTest, HostileRopeScalingIsRefusedByName) {
  struct Case {
    json scaling;
    const char* message;
  };
  const Case cases[] = {
      {"linear", "an object or null"},
      {{{"type", "longrope"}, {"factor", 2}}, "got longrope"},
      {{{"type", "linear"}}, "rope_scaling.factor"},
      {{{"type", "linear"}, {"factor", 0.5}}, "got 0.5"},
      {{{"type", "linear"}, {"factor", 1e300}}, "rope_scaling.factor"},
      {{{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 2}},
       "equal to rope_type"},
      {{{"type", "linear"}, {"factor", 2}, {"alpha", 3}}, "rope_scaling.alpha"},
      {{{"type", "llama3"}, {"factor", 8}}, "original_max_position_embeddings"},
      {{{"type", "llama3"},
        {"factor", 8},
        {"original_max_position_embeddings", 8192},
        {"low_freq_factor", 4},
        {"high_freq_factor", 4}},
       "less than high_freq_factor"},
      {{{"type", "yarn"}, {"factor", 2}, {"beta_fast", 1}, {"beta_slow", 2}},
       "at least beta_slow"},
      {{{"type", 3}}, "rope_scaling.type must be a string"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(With("rope_scaling", c.scaling),
                HasReason(Reason::kModelFileInvalid, HasSubstr(c.message)));
  }
}

TEST(ModelConfigTest, ContextIsStretchedByTheScalingThatStretchesIt) {
  const auto context = [](const json& scaling) {
    json object = Minimal();
    object["max_position_embeddings"] = 1000;
    object["rope_scaling"] = scaling;
    const auto config = Parse(object);
    EXPECT_OK(config);
    return config->context_length();
  };
  EXPECT_EQ(context({{"type", "linear"}, {"factor", 4}}), 4000);
  EXPECT_EQ(context({{"type", "dynamic"}, {"factor", 2.5}}), 2500);
  EXPECT_EQ(context({{"rope_type", "yarn"},
                     {"factor", 4},
                     {"original_max_position_embeddings", 250}}),
            1000);
  EXPECT_EQ(context({{"rope_type", "llama3"},
                     {"factor", 8},
                     {"original_max_position_embeddings", 250}}),
            1000);
  EXPECT_EQ(context({{"rope_type", "default"}}), 1000);
}

TEST(ModelConfigTest, OnlyDynamicScalingDependsOnThePromptsLength) {
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig dynamic,
      With("rope_scaling", {{"type", "dynamic"}, {"factor", 2}}));
  EXPECT_EQ(dynamic.unscaled_context_length(), 2048);
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig linear,
      With("rope_scaling", {{"type", "linear"}, {"factor", 2}}));
  EXPECT_EQ(linear.unscaled_context_length(), 0);
}

TEST(ModelConfigTest, RopeParametersAreTheNewestFormOfBoth) {
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig config,
      With("rope_parameters", {{"rope_type", "llama3"},
                               {"rope_theta", 500000.0},
                               {"factor", 32.0},
                               {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0},
                               {"original_max_position_embeddings", 8192}}));
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.rope.type, RopeType::kLlama3);
  EXPECT_EQ(config.rope.factor, 32);
  EXPECT_EQ(config.rope.original_context, 8192);
}

TEST(ModelConfigTest, OverridesReplaceKeysOfEitherForm) {
  json object = Minimal();
  object["rope_parameters"] = {{"rope_type", "default"},
                               {"rope_theta", 500000.0}};
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig config,
      Parse(object, {R"(rope_scaling={"type":"linear","factor":4})",
                     "max_position_embeddings=512"}));
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.rope.type, RopeType::kLinear);
  EXPECT_EQ(config.context_length(), 2048);
  ASSERT_OK_AND_ASSIGN(const ModelConfig plain,
                       Parse(object, {"rope_theta=10000"}));
  EXPECT_EQ(plain.rope_theta, 10000);
}

TEST(ModelConfigTest, WrongOverridesAreRefused) {
  for (const char* const text :
       {"rope_theta", "no_such_key=1", "rope_theta={", "=1"}) {
    EXPECT_THAT(Parse(Minimal(), {text}),
                HasReason(Reason::kInvalidField, HasSubstr("--override")));
  }
  EXPECT_THAT(Parse(Minimal(), {"rope_theta=-1"}),
              HasReason(Reason::kModelFileInvalid));
}

TEST(ModelConfigTest, EndTokensMayBeOneManyOrNone) {
  const auto eos = [](const json& value) {
    return With("eos_token_id", value)->eos_ids;
  };
  EXPECT_THAT(eos(2), ElementsAre(2));
  EXPECT_THAT(eos(json::array({2, 7})), ElementsAre(2, 7));
  EXPECT_THAT(eos(-1), ElementsAre());
}

TEST(ModelConfigTest, BrokenJsonIsRefused) {
  for (const char* const text : {"", "{", "[]", "{\"a\": 1e999}", "\xff\xfe"}) {
    EXPECT_THAT(ParseModelConfig(text, "config.json", {}),
                HasReason(Reason::kModelFileInvalid, HasSubstr("config.json")))
        << text;
  }
  std::string deep = "{\"a\": ";
  deep.append(100000, '[');
  EXPECT_THAT(ParseModelConfig(deep, "config.json", {}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("depth")));
}

TEST(ModelConfigTest, MissingDirectoryIsNotFound) {
  EXPECT_THAT(LoadModelConfig("/nonexistent", {}),
              HasReason(Reason::kNotFound, HasSubstr("/nonexistent")));
}

TEST(ModelConfigTest, PublishedConfigsAreRead) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(open_llama, "configs/openllama-3b-finetune");
  ASSERT_OK_AND_ASSIGN(const ModelConfig three,
                       LoadModelConfig(open_llama, {}));
  EXPECT_EQ(three.head_dim, 100);
  EXPECT_EQ(three.vocab_size, 32001);
  CARAVAN_REFERENCE_PATH_OR_SKIP(llama, "configs/llama-3.2-1b-finetune");
  ASSERT_OK_AND_ASSIGN(const ModelConfig one,
                       LoadModelConfig(llama, {"quantization_config=null"}));
  EXPECT_TRUE(one.tied_embeddings);
  EXPECT_EQ(one.rope.type, RopeType::kLlama3);
  EXPECT_EQ(one.rope.factor, 32);
  CARAVAN_REFERENCE_PATH_OR_SKIP(gptq, "configs/llama-1-30b-gptq");
  EXPECT_OK(LoadModelConfig(gptq, {}));
}

}  // namespace
}  // namespace caravan::worker
