// GPTQ, AWQ and bitsandbytes matrices against weights that a script of ours
// computed from the formats' definitions (tests/data/formats).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/model/bitsandbytes.h"
#include "worker/model/grouped_matrix.h"
#include "worker/model/quantization_config.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/four_bit.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;

constexpr int64_t kRows = 32;
constexpr int64_t kCols = 64;

// All cases of the data file.
class Vectors {
 public:
  Vectors() {
    const auto read = [](std::string_view name) {
      return testing::ReadFile(
          testing::RepositoryPath(StrCat("tests/data/formats/", name)));
    };
    bytes_ = read("quantized.safetensors");
    configs_ = ParseJson(read("quantized.json"));
    auto tensors = ParseSafetensors(std::as_bytes(std::span(bytes_)), "q.st");
    for (TensorRecord& tensor : *tensors) {
      tensors_[tensor.name] = tensor;
    }
  }

  const nlohmann::json& configs() const { return configs_; }
  const TensorRecord* Find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }
  QuantizationConfig Config(const std::string& name) const {
    return *ParseQuantizationConfig(configs_.at(name), "config.json");
  }
  GroupedTensors Grouped(const std::string& name) const {
    return {.name = name,
            .qweight = Find(name + ".qweight"),
            .qzeros = Find(name + ".qzeros"),
            .scales = Find(name + ".scales"),
            .g_idx = Find(name + ".g_idx")};
  }
  FourBitTensors FourBit(const std::string& name) const {
    const std::string weight = name + ".weight";
    const std::string kind = name.substr(0, 3);
    return {.weight = Find(weight),
            .absmax = Find(weight + ".absmax"),
            .quant_map = Find(weight + ".quant_map"),
            .nested_absmax = Find(weight + ".nested_absmax"),
            .nested_quant_map = Find(weight + ".nested_quant_map"),
            .quant_state =
                Find(StrCat(weight, ".quant_state.bitsandbytes__", kind))};
  }
  std::vector<float> Expected(const std::string& name) const {
    std::vector<float> values(kRows * kCols);
    std::memcpy(values.data(), Find(name + ".expected")->data,
                values.size() * sizeof(float));
    return values;
  }

 private:
  std::string bytes_;
  nlohmann::json configs_;
  std::map<std::string, TensorRecord> tensors_;
};

// Rows of q4_0, q5_0 or q8_0 blocks, one element at a time.
std::vector<float> WidenBlocks(WeightType type,
                               const std::vector<std::byte>& rows) {
  const bool fifth_bits = type == WeightType::kQ5_0;
  std::vector<float> values(kRows * kCols);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* const block =
        rows.data() + i / 32 * static_cast<size_t>(InfoOf(type).bytes);
    uint16_t scale = 0;
    std::memcpy(&scale, block, sizeof(scale));
    const size_t at = i % 32;
    int value = 0;
    if (type == WeightType::kQ8_0) {
      value = static_cast<int8_t>(block[2 + at]);
    } else {
      const int pair =
          std::to_integer<int>(block[(fifth_bits ? 6 : 2) + at % 16]);
      value = at < 16 ? pair & 15 : pair >> 4;
      if (fifth_bits) {
        value |= (std::to_integer<int>(block[2 + at / 8]) >> (at % 8) & 1) << 4;
      }
      value -= fifth_bits ? 16 : 8;
    }
    values[i] = ToFloat(Fp16{scale}) * static_cast<float>(value);
  }
  return values;
}

std::vector<float> Widen(WeightType type, const std::vector<std::byte>& rows) {
  if (type != WeightType::kNf4 && type != WeightType::kFp4) {
    return WidenBlocks(type, rows);
  }
  std::vector<float> values(kRows * kCols);
  DequantizeFourBit(type == WeightType::kNf4 ? kNf4Values : kFp4Values,
                    rows.data(), kRows * kCols, values.data());
  return values;
}

TEST(QuantizedFormatsTest, GroupedMatricesDequantizeExactly) {
  const Vectors vectors;
  int cases = 0;
  for (const auto& [name, unused] : vectors.configs().items()) {
    if (vectors.Find(name + ".qweight") == nullptr) continue;
    SCOPED_TRACE(name);
    ++cases;
    ASSERT_OK_AND_ASSIGN(
        const GroupedMatrix matrix,
        GroupedMatrix::Make(vectors.Config(name), vectors.Grouped(name)));
    ASSERT_EQ(matrix.rows(), kRows);
    ASSERT_EQ(matrix.cols(), kCols);
    std::vector<float> values(kRows * kCols);
    matrix.Dequantize(0, kRows, values.data());
    EXPECT_EQ(values, vectors.Expected(name));
  }
  EXPECT_EQ(cases, 13);
}

TEST(QuantizedFormatsTest, BlocksHoldGroupedMatricesExactly) {
  const std::map<std::string, WeightType> types = {
      {"gptq-2", WeightType::kQ4_0},
      {"gptq-2-asym", WeightType::kQ4_0},
      {"gptq-3", WeightType::kQ4_0},
      {"gptq-3-asym", WeightType::kQ4_0},
      {"gptq-4", WeightType::kQ4_0},
      {"gptq-4-asym", WeightType::kQ5_0},
      {"gptq-8", WeightType::kQ8_0},
      {"gptq-8-asym", WeightType::kFp32},
      {"gptq-3-v2", WeightType::kQ4_0},
      {"gptq-4-actorder", WeightType::kQ4_0},
      {"gptq-4-whole", WeightType::kQ4_0},
      {"awq", WeightType::kQ5_0},
      {"gptq-4-group16", WeightType::kFp32}};
  const Vectors vectors;
  for (const auto& [name, type] : types) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(
        const GroupedMatrix matrix,
        GroupedMatrix::Make(vectors.Config(name), vectors.Grouped(name)));
    const ExactBlocks blocks = FindExactBlocks(matrix);
    EXPECT_EQ(Name(blocks.type), Name(type));
    EXPECT_EQ(blocks.order.empty(), name != "gptq-4-actorder");
    if (blocks.type == WeightType::kFp32) continue;
    std::vector<std::byte> rows(kRows * RowBytes(blocks.type, kCols));
    WriteRows(matrix, blocks, 0, kRows, rows.data());
    const std::vector<float> stored = Widen(blocks.type, rows);
    std::vector<float> values(kRows * kCols);
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const int64_t c = i % kCols;
      const int64_t column = blocks.order.empty() ? c : blocks.order[c];
      values[i - c + column] = stored[i];
    }
    EXPECT_EQ(values, vectors.Expected(name));
  }
}

TEST(QuantizedFormatsTest, FourBitMatricesStayFourBitsAndExact) {
  const Vectors vectors;
  for (const char* const name : {"nf4", "nf4-double", "fp4", "fp4-double"}) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(const FourBitMatrix matrix,
                         FourBitMatrix::Make(vectors.FourBit(name)));
    ASSERT_EQ(matrix.rows(), kRows);
    ASSERT_EQ(matrix.cols(), kCols);
    EXPECT_EQ(Name(matrix.exact_type()), std::string(name).substr(0, 3));
    std::vector<std::byte> rows(kRows * RowBytes(matrix.exact_type(), kCols));
    const int64_t half = static_cast<int64_t>(rows.size()) / 2;
    matrix.WriteRows(0, kRows / 2, rows.data());
    matrix.WriteRows(kRows / 2, kRows / 2, rows.data() + half);
    EXPECT_EQ(Widen(matrix.exact_type(), rows), vectors.Expected(name));
  }
}

TEST(QuantizedFormatsTest, AnotherTableIsWidenedToFp32) {
  const Vectors vectors;
  FourBitTensors tensors = vectors.FourBit("nf4");
  std::vector<float> table(16);
  std::memcpy(table.data(), tensors.quant_map->data, 64);
  for (float& value : table) value *= 2;
  TensorRecord doubled = *tensors.quant_map;
  doubled.data = reinterpret_cast<const std::byte*>(table.data());
  tensors.quant_map = &doubled;
  ASSERT_OK_AND_ASSIGN(const FourBitMatrix matrix,
                       FourBitMatrix::Make(tensors));
  EXPECT_EQ(matrix.exact_type(), WeightType::kFp32);
  std::vector<float> values(kRows * kCols);
  matrix.WriteRows(0, kRows, reinterpret_cast<std::byte*>(values.data()));
  std::vector<float> expected = vectors.Expected("nf4");
  for (float& value : expected) value *= 2;
  EXPECT_EQ(values, expected);
}

TEST(QuantizedFormatsTest, EightBitMatricesDequantizeExactly) {
  const Vectors vectors;
  ASSERT_OK_AND_ASSIGN(const EightBitMatrix matrix,
                       EightBitMatrix::Make(*vectors.Find("int8.weight"),
                                            vectors.Find("int8.SCB")));
  std::vector<float> values(kRows * kCols);
  matrix.WriteRows(0, kRows, reinterpret_cast<std::byte*>(values.data()));
  EXPECT_EQ(values, vectors.Expected("int8"));
}

TEST(QuantizedFormatsTest, TensorsThatDoNotFitAreRefusedByName) {
  const Vectors vectors;
  const QuantizationConfig config = vectors.Config("gptq-4");
  const auto refused = [&](const GroupedTensors& tensors,
                           const QuantizationConfig& with,
                           const char* message) {
    EXPECT_THAT(GroupedMatrix::Make(with, tensors),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("q.st"), HasSubstr(message))));
  };
  GroupedTensors tensors = vectors.Grouped("gptq-4");
  tensors.qzeros = nullptr;
  refused(tensors, config, "gptq-4.qzeros");
  tensors = vectors.Grouped("gptq-4");
  tensors.scales = nullptr;
  refused(tensors, config, "gptq-4.scales");
  tensors = vectors.Grouped("gptq-4");
  tensors.scales = tensors.qzeros;
  refused(tensors, config, "matrix");
  tensors = vectors.Grouped("gptq-4");
  refused(tensors, vectors.Config("gptq-3"), "shape");
  refused(tensors, vectors.Config("gptq-8"), "shape");
  refused(tensors, vectors.Config("gptq-4-group16"), "groups");
  TensorRecord groups = *tensors.g_idx;
  std::vector<int32_t> index(kCols, 2);
  groups.data = reinterpret_cast<const std::byte*>(index.data());
  tensors.g_idx = &groups;
  refused(tensors, config, "group of input 0");
  groups.dtype_name = "I64";
  refused(tensors, config, "dtype");
}

TEST(QuantizedFormatsTest, BrokenFourBitTensorsAreRefusedByName) {
  const Vectors vectors;
  const auto refused = [&](FourBitTensors tensors, const char* message) {
    EXPECT_THAT(FourBitMatrix::Make(tensors),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("q.st"), HasSubstr(message))));
  };
  const FourBitTensors good = vectors.FourBit("nf4-double");
  FourBitTensors tensors = good;
  tensors.quant_state = nullptr;
  refused(tensors, "quant_state");
  tensors = good;
  tensors.quant_state =
      vectors.Find("fp4.weight.quant_state.bitsandbytes__fp4");
  refused(tensors, "absmax");
  tensors = good;
  tensors.absmax = nullptr;
  refused(tensors, "absmax");
  tensors = good;
  tensors.nested_absmax = nullptr;
  refused(tensors, "nested_absmax");
  tensors = good;
  tensors.nested_quant_map = tensors.quant_map;
  refused(tensors, "256 elements");
  tensors = good;
  tensors.quant_map = tensors.nested_quant_map;
  refused(tensors, "16 elements");
  tensors = good;
  TensorRecord state = *good.quant_state;
  for (const std::string_view text :
       {"", "{}", R"({"shape":[32,-64],"blocksize":64})",
        R"({"shape":[32,64],"blocksize":0})", R"({"shape":[32,128]})"}) {
    state.data = reinterpret_cast<const std::byte*>(text.data());
    state.bytes = text.size();
    tensors.quant_state = &state;
    refused(tensors, "quant_state");
  }
}

TEST(QuantizationConfigTest, MethodsAndTheirOlderSpellingsAreRead) {
  const auto parse = [](const char* text) {
    return *ParseQuantizationConfig(ParseJson(text), "c.json");
  };
  const QuantizationConfig gptq =
      parse(R"({"bits":3,"group_size":-1,"desc_act":true})");
  EXPECT_EQ(gptq.method, QuantizationMethod::kGptq);
  EXPECT_EQ(gptq.bits, 3);
  EXPECT_EQ(gptq.group_size, 0);
  EXPECT_TRUE(gptq.zeros_less_one);
  const QuantizationConfig awq =
      parse(R"({"w_bit":4,"q_group_size":64,"version":"GEMM"})");
  EXPECT_EQ(awq.method, QuantizationMethod::kAwq);
  EXPECT_EQ(awq.group_size, 64);
  const QuantizationConfig four =
      parse(R"({"_load_in_4bit":true,"_load_in_8bit":false,
                "quant_method":"bitsandbytes"})");
  EXPECT_EQ(four.method, QuantizationMethod::kBitsandbytes);
  EXPECT_EQ(four.bits, 4);
}

TEST(QuantizationConfigTest, WhatIsNotReadHereIsRefusedByName) {
  struct Case {
    const char* text;
    const char* message;
  };
  const Case cases[] = {
      {R"({"quant_method":"hqq"})", "quant_method"},
      {R"({"quant_method":"fp8","weight_block_size":[128,128]})",
       "weight_block_size"},
      {R"({"quant_method":"fp8","fmt":"e5m2"})", "fmt"},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized"})",
       "format"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized"})",
       "config_groups"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized",
           "config_groups":{"group_0":{"weights":{"type":"float",
           "num_bits":8,"strategy":"block"}}}})",
       "config_groups.group_0.weights.strategy"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized",
           "config_groups":{"group_0":{"weights":{"type":"int",
           "num_bits":8,"strategy":"channel"}}}})",
       "config_groups.group_0.weights.type"},
      {R"({"quant_method":"gptq"})", "bits"},
      {R"({"quant_method":"gptq","bits":5})", "2, 3, 4, 8"},
      {R"({"quant_method":"gptq","bits":4,"group_size":0})", "group_size"},
      {R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})",
       "checkpoint_format"},
      {R"({"quant_method":"gptq","bits":4,"is_marlin_format":true})",
       "is_marlin_format"},
      {R"({"quant_method":"awq","bits":8})", "bits"},
      {R"({"quant_method":"awq","bits":4,"version":"gemv"})", "version"},
      {R"({"quant_method":"awq","bits":4,"zero_point":false})", "zero_point"},
      {R"({"quant_method":"bitsandbytes"})", "load_in_4bit"},
      {R"({"quant_method":"bitsandbytes","load_in_4bit":true,
           "bnb_4bit_quant_type":"af4"})",
       "bnb_4bit_quant_type"},
      {"[]", "an object"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(
        ParseQuantizationConfig(ParseJson(c.text), "c.json"),
        HasReason(Reason::kModelFileInvalid,
                  AllOf(HasSubstr("c.json"), HasSubstr("quantization_config"),
                        HasSubstr(c.message))))
        << c.message;
  }
}

}  // namespace
}  // namespace caravan::worker
