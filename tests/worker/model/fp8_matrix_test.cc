// Matrices of e4m3 and their scales, and checkpoints that have them.
#include "worker/model/fp8_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/model_loader.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;

// A tensor with its bytes.
template <typename T>
class Made {
 public:
  Made(std::string name, std::string dtype, std::vector<int64_t> shape,
       std::vector<T> values)
      : values_(std::move(values)) {
    record_.name = std::move(name);
    record_.dtype_name = std::move(dtype);
    record_.shape = std::move(shape);
    record_.data = reinterpret_cast<const std::byte*>(values_.data());
    record_.bytes = values_.size() * sizeof(T);
    record_.file = "q.st";
  }
  const TensorRecord& record() const { return record_; }

 private:
  std::vector<T> values_;
  TensorRecord record_;
};

std::vector<uint8_t> Codes(int64_t count) {
  std::vector<uint8_t> codes;
  for (int64_t i = 0; i < count; ++i) {
    const auto code = static_cast<uint8_t>(i * 37);
    codes.push_back((code & 0x7f) == 0x7f ? uint8_t{0} : code);
  }
  return codes;
}

Made<uint8_t> Weight(int64_t rows, int64_t cols) {
  return {"m.weight", "F8_E4M3", {rows, cols}, Codes(rows * cols)};
}

// What a matrix says of itself, in fp32 and by its stored type.
void ExpectValues(const Fp8Matrix& matrix, const std::vector<float>& scales) {
  const std::vector<uint8_t> codes = Codes(matrix.rows() * matrix.cols());
  std::vector<float> expected;
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto row = i / static_cast<size_t>(matrix.cols());
    expected.push_back(ToFloat(Fp8{codes[i]}) * scales[row]);
  }
  std::vector<float> floats(codes.size());
  matrix.Dequantize(0, matrix.rows(), floats.data());
  EXPECT_EQ(floats, expected);
  const int64_t row_bytes = RowBytes(matrix.exact_type(), matrix.cols());
  std::vector<std::byte> rows(static_cast<size_t>(matrix.rows() * row_bytes));
  matrix.WriteRows(0, matrix.rows(), rows.data());
  DequantizeRow(matrix.exact_type(), rows.data(), std::ssize(floats),
                floats.data());
  EXPECT_EQ(floats, expected);
}

TEST(Fp8MatrixTest, ScalesAreOfRowsOrOfAll) {
  const auto weight = Weight(3, 64);
  const Made<float> rows("s", "F32", {3, 1}, {0.5f, 0.3f, 7.0f});
  ASSERT_OK_AND_ASSIGN(const auto by_row,
                       Fp8Matrix::Make(weight.record(), &rows.record()));
  EXPECT_EQ(by_row.exact_type(), WeightType::kFp8);
  ExpectValues(by_row, {0.5f, 0.3f, 7.0f});
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{}, {1}, {1, 1}}) {
    const Made<uint16_t> one("s", "BF16", shape, {ToBf16(0.375f).bits});
    ASSERT_OK_AND_ASSIGN(const auto made,
                         Fp8Matrix::Make(weight.record(), &one.record()));
    ExpectValues(made, {0.375f, 0.375f, 0.375f});
  }
}

TEST(Fp8MatrixTest, RowsOfNoWholeBlocksAreWidened) {
  const auto weight = Weight(2, 33);
  const Made<float> scale("s", "F32", {2}, {0.5f, 0.25f});
  ASSERT_OK_AND_ASSIGN(const auto made,
                       Fp8Matrix::Make(weight.record(), &scale.record()));
  EXPECT_EQ(made.exact_type(), WeightType::kFp32);
  ExpectValues(made, {0.5f, 0.25f});
}

TEST(Fp8MatrixTest, WhatDoesNotFitIsRefusedByName) {
  const auto weight = Weight(4, 64);
  const auto refused = [&](const TensorRecord& w, const TensorRecord* scale,
                           const char* message) {
    EXPECT_THAT(Fp8Matrix::Make(w, scale),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("q.st"), HasSubstr(message))));
  };
  const Made<float> one("s", "F32", {1}, {1.0f});
  refused(weight.record(), nullptr, "m.weight_scale");
  const Made<uint8_t> flat("m.weight", "F8_E4M3", {64}, Codes(64));
  refused(flat.record(), &one.record(), "two sizes");
  const Made<uint8_t> other("m.weight", "F8_E5M2", {1, 64}, Codes(64));
  refused(other.record(), &one.record(), "F8_E4M3");
  const Made<float> blocks("s", "F32", {2, 2}, {1, 1, 1, 1});
  refused(weight.record(), &blocks.record(), "scales of blocks");
  const Made<float> three("s", "F32", {3}, {1, 1, 1});
  refused(weight.record(), &three.record(), "[4, 1]");
  const Made<int32_t> integers("s", "I32", {1}, {1});
  refused(weight.record(), &integers.record(), "dtype");
  const Made<float> broken("s", "F32", {4},
                           {1, 1, std::numeric_limits<float>::infinity(), 1});
  refused(weight.record(), &broken.record(), "element 2");
  const Made<float> negative("s", "F32", {1}, {-1.0f});
  refused(weight.record(), &negative.record(), "not negative");
}

// A model directory with its layers' matrices in e4m3, and nothing else
// changed: what `source` has, rounded, is `rounded`.
class Fp8Checkpoint {
 public:
  Fp8Checkpoint(const std::string& source, const json& quantization) {
    const auto original = *CheckpointTensors::Open(source);
    for (const auto& [name, tensor] : original->tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      original->ReadFloats(tensor, 0, tensor.rows(), values.data());
      const bool matrix =
          tensor.shape.size() == 2 && name.starts_with("model.layers.");
      if (matrix) {
        AddMatrix(name, tensor.shape, values);
      } else {
        Add(name, "F32", tensor.shape, values.data(), values.size() * 4);
      }
    }
    std::filesystem::copy(source, directory_.path(),
                          std::filesystem::copy_options::recursive);
    json config = *original->Config();
    config["quantization_config"] = quantization;
    Write("config.json", DumpJson(config));
    Write("model.safetensors", File());
  }
  std::string path() const { return directory_.path(); }
  const std::map<std::string, std::vector<float>>& rounded() const {
    return rounded_;
  }

 private:
  void AddMatrix(const std::string& name, const std::vector<int64_t>& shape,
                 const std::vector<float>& values) {
    std::vector<uint8_t> codes;
    std::vector<float> scales;
    for (int64_t r = 0; r < shape[0]; ++r) {
      scales.push_back(0x1p-8f * static_cast<float>(r % 3 + 1));
      for (int64_t c = 0; c < shape[1]; ++c) {
        const Fp8 code = ToFp8(values[r * shape[1] + c] / scales.back());
        codes.push_back(code.bits);
        rounded_[name].push_back(ToFloat(code) * scales.back());
      }
    }
    Add(name, "F8_E4M3", shape, codes.data(), codes.size());
    Add(name + "_scale", "F32", {shape[0], 1}, scales.data(),
        scales.size() * 4);
  }
  void Add(const std::string& name, const char* dtype,
           const std::vector<int64_t>& shape, const void* data, size_t bytes) {
    header_[name] = {{"dtype", dtype},
                     {"shape", shape},
                     {"data_offsets", {data_.size(), data_.size() + bytes}}};
    data_.append(static_cast<const char*>(data), bytes);
  }
  std::string File() const {
    const std::string text = DumpJson(header_);
    std::string bytes;
    for (int i = 0; i < 8; ++i) {
      bytes += static_cast<char>(text.size() >> (8 * i));
    }
    return bytes + text + data_;
  }
  void Write(const char* name, const std::string& content) const {
    std::ofstream(StrCat(path(), "/", name), std::ios::binary) << content;
  }

  testing::TemporaryDirectory directory_;
  json header_;
  std::string data_;
  std::map<std::string, std::vector<float>> rounded_;
};

TEST(Fp8CheckpointTest, MatricesHaveTheirValuesAndTakeWhatWasPlanned) {
  const json weights = {
      {"type", "float"}, {"num_bits", 8}, {"strategy", "channel"}};
  for (const json& quantization :
       {json{{"quant_method", "fbgemm_fp8"}, {"activation_scale_ub", 1200.0}},
        json{{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}},
        json{{"quant_method", "compressed-tensors"},
             {"format", "float-quantized"},
             {"config_groups", {{"group_0", {{"weights", weights}}}}}}}) {
    const Fp8Checkpoint made(testing::RepositoryPath("tests/data/tiny/gqa"),
                             quantization);
    ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                         CheckpointTensors::Open(made.path()));
    for (const auto& [name, expected] : made.rounded()) {
      ASSERT_OK_AND_ASSIGN(const CheckpointTensor* const tensor,
                           checkpoint->Get(name));
      EXPECT_EQ(tensor->type, WeightType::kFp8) << name;
      std::vector<float> values(expected.size());
      checkpoint->ReadFloats(*tensor, 0, tensor->rows(), values.data());
      EXPECT_EQ(values, expected) << name;
    }
    EXPECT_THAT(checkpoint->Describe(), HasSubstr(" x fp8"));
    const auto backend = *MakeReferenceBackend(NumericsOptions());
    ASSERT_OK_AND_ASSIGN(const ModelDescription described,
                         DescribeModel(made.path(), ModelOptions(), *backend));
    ASSERT_OK_AND_ASSIGN(const auto loaded,
                         LoadModel(made.path(), ModelOptions(), backend.get()));
    EXPECT_EQ(loaded->weights.bytes, described.plan.weight_bytes);
  }
}

TEST(Fp8CheckpointTest, WithoutAQuantizationConfigTheTypeIsRefused) {
  const Fp8Checkpoint made(testing::RepositoryPath("tests/data/tiny/gqa"),
                           nullptr);
  const auto backend = *MakeReferenceBackend(NumericsOptions());
  EXPECT_THAT(
      LoadModel(made.path(), ModelOptions(), backend.get()).status(),
      HasReason(Reason::kModelFileInvalid, HasSubstr("F32, BF16 or F16")));
}

}  // namespace
}  // namespace caravan::worker
