#include "worker/model/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/torch_file_writer.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/safetensors.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::ReadFile;
using testing::RepositoryPath;
using testing::TemporaryDirectory;

constexpr char kConfig[] = R"({"model_type":"llama","torch_dtype":"float32"})";

// A tensor to be written: its bytes are taken as they are.
struct Entry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

std::string Safetensors(const std::vector<Entry>& entries) {
  nlohmann::json header;
  std::string data;
  for (const Entry& entry : entries) {
    const size_t begin = data.size();
    data += entry.bytes;
    header[entry.name] = {{"dtype", entry.dtype},
                          {"shape", entry.shape},
                          {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = DumpJson(header);
  return StrCat(testing::Bytes(text.size(), 8), text, data);
}

Entry Floats(const std::string& name, std::vector<int64_t> shape,
             const std::vector<float>& values) {
  return {name, "F32", std::move(shape), testing::Fp32Bytes(values)};
}

std::vector<float> Read(const CheckpointTensors& tensors,
                        std::string_view name) {
  const CheckpointTensor* const tensor = tensors.Find(name);
  if (tensor == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(tensor->elements()));
  tensors.ReadFloats(*tensor, 0, tensor->rows(), values.data());
  return values;
}

// The tensors of a case of tests/data/formats as a model of one layer, in
// `directory`; the weights that they stand for.
std::vector<float> WriteCase(const TemporaryDirectory& directory,
                             const std::string& name) {
  const std::string module = "model.layers.0.self_attn.q_proj";
  const std::string bytes =
      ReadFile(RepositoryPath("tests/data/formats/quantized.safetensors"));
  const auto configs =
      ParseJson(ReadFile(RepositoryPath("tests/data/formats/quantized.json")));
  std::vector<Entry> entries = {
      Floats("model.norm.weight", {2}, {1, 2}),
      {"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "0123"}};
  std::vector<float> expected;
  auto records = ParseSafetensors(std::as_bytes(std::span(bytes)), "q");
  for (const TensorRecord& record : *records) {
    if (!record.name.starts_with(name + ".")) continue;
    const std::string data(reinterpret_cast<const char*>(record.data),
                           record.bytes);
    if (record.name == name + ".expected") {
      expected.resize(data.size() / sizeof(float));
      std::memcpy(expected.data(), data.data(), data.size());
      continue;
    }
    entries.push_back({StrCat(module, record.name.substr(name.size())),
                       record.dtype_name, record.shape, data});
  }
  directory.Write("model.safetensors", Safetensors(entries));
  nlohmann::json config = ParseJson(kConfig);
  config["quantization_config"] = configs[name];
  directory.Write("config.json", DumpJson(config));
  return expected;
}

TEST(ConvertTest, SafetensorsKeepTypesAndBytes) {
  const TemporaryDirectory target;
  const std::string source = RepositoryPath("tests/data/tiny/sharded");
  const std::string out = target.File("out");
  ConvertOptions options;
  options.most_file_bytes = 100'000;  // several files
  ASSERT_OK_AND_ASSIGN(const ConvertReport report,
                       ConvertCheckpoint(source, out, options));
  EXPECT_EQ(report.format, "safetensors");
  EXPECT_GT(report.files, 1);
  ASSERT_OK_AND_ASSIGN(const auto before, Checkpoint::Open(source));
  ASSERT_OK_AND_ASSIGN(const auto after, Checkpoint::Open(out));
  ASSERT_EQ(before->tensors().size(), after->tensors().size());
  for (const auto& [name, tensor] : before->tensors()) {
    ASSERT_OK_AND_ASSIGN(const TensorRecord* const copy, after->Get(name));
    EXPECT_EQ(copy->dtype_name, tensor.dtype_name);
    EXPECT_EQ(copy->shape, tensor.shape);
    ASSERT_EQ(copy->bytes, tensor.bytes);
    EXPECT_EQ(std::memcmp(copy->data, tensor.data, tensor.bytes), 0) << name;
  }
  EXPECT_TRUE(std::filesystem::exists(out + "/generation_config.json"));
  EXPECT_THAT(ConvertCheckpoint(source, out, options),
              HasReason(Reason::kInvalidField, HasSubstr("empty")));
}

TEST(ConvertTest, QuantizedMatricesBecomeWhatTheyStandFor) {
  for (const char* const name :
       {"gptq-2", "gptq-3-asym", "gptq-4", "gptq-4-actorder", "gptq-8-asym",
        "gptq-3-v2", "gptq-4-whole", "gptq-4-group16", "awq", "nf4",
        "nf4-double", "fp4", "int8"}) {
    SCOPED_TRACE(name);
    const TemporaryDirectory source;
    const TemporaryDirectory target;
    const std::vector<float> expected = WriteCase(source, name);
    ASSERT_OK(ConvertCheckpoint(source.path(), target.path(), {}));
    ASSERT_OK_AND_ASSIGN(const auto out,
                         CheckpointTensors::Open(target.path()));
    EXPECT_EQ(out->tensors().size(), 2u);  // no rotary table
    EXPECT_FALSE(out->quantization().has_value());
    EXPECT_EQ(Read(*out, "model.layers.0.self_attn.q_proj.weight"), expected);
  }
}

TEST(ConvertTest, StoredBlocksAreNamedAndSmall) {
  const TemporaryDirectory source;
  WriteCase(source, "nf4-double");
  ASSERT_OK_AND_ASSIGN(const auto tensors,
                       CheckpointTensors::Open(source.path()));
  const CheckpointTensor* const tensor =
      tensors->Find("model.layers.0.self_attn.q_proj.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->type, WeightType::kNf4);
  EXPECT_EQ(tensor->bytes(), 32u * 36u);
  EXPECT_EQ(tensor->parts.size(), 6u);
  std::vector<std::byte> stored(tensor->bytes());
  tensors->ReadStored(*tensor, stored.data());
  EXPECT_NE(stored[4], std::byte{0});
}

TEST(ConvertTest, PyTorchFilesAndTheirIndexAreRead) {
  const auto archive = [](const std::string& name, float first) {
    return testing::TorchArchive(
        {.tensors = {{.name = name,
                      .storage = "0",
                      .storage_class = "FloatStorage",
                      .sizes = {2, 2},
                      .strides = {1, 2}}},
         .storages = {{.key = "0",
                       .width = 4,
                       .bytes = testing::Fp32Bytes(
                           {first, first + 1, first + 2, first + 3})}},
         .nested_under = ""});
  };
  const TemporaryDirectory source;
  source.Write("config.json", kConfig);
  source.Write("a.bin", archive("a.weight", 0));
  source.Write("b.bin", archive("b.weight", 10));
  source.Write("pytorch_model.bin.index.json",
               R"({"weight_map":{"a.weight":"a.bin","b.weight":"b.bin"}})");
  ASSERT_OK_AND_ASSIGN(const auto tensors,
                       CheckpointTensors::Open(source.path()));
  EXPECT_EQ(tensors->format(), "pytorch");
  EXPECT_THAT(Read(*tensors, "a.weight"), ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(Read(*tensors, "b.weight"), ElementsAre(10, 12, 11, 13));
  source.Write("b.bin", archive("a.weight", 10));
  EXPECT_THAT(CheckpointTensors::Open(source.path()),
              HasReason(Reason::kModelFileInvalid, HasSubstr("also in")));
  source.Write("pytorch_model.bin.index.json",
               R"({"weight_map":{"a.weight":"../a.bin"}})");
  EXPECT_THAT(CheckpointTensors::Open(source.path()),
              HasReason(Reason::kModelFileInvalid, HasSubstr("same folder")));
}

TEST(ConvertTest, MetaRowsOfQAndKBecomeHalfRotated) {
  testing::TorchContent content;
  const auto add = [&](const std::string& name, std::vector<int64_t> sizes) {
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), 0.0f);
    const std::string key = StrCat(content.storages.size());
    content.storages.push_back(
        {.key = key, .width = 4, .bytes = testing::Fp32Bytes(values)});
    content.tensors.push_back({.name = name,
                               .storage = key,
                               .storage_class = "FloatStorage",
                               .sizes = std::move(sizes)});
  };
  for (const char* const name :
       {"attention.wq", "attention.wk", "attention.wv", "attention.wo",
        "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"}) {
    add(StrCat("layers.0.", name, ".weight"), {8, 8});
  }
  add("tok_embeddings.weight", {4, 8});
  add("norm.weight", {8});
  add("layers.0.attention_norm.weight", {8});
  add("layers.0.ffn_norm.weight", {8});
  const TemporaryDirectory source;
  const TemporaryDirectory target;
  source.Write("params.json", R"({"dim":8,"n_layers":1,"n_heads":2})");
  source.Write("consolidated.00.pth", testing::TorchArchive(content));
  ASSERT_OK_AND_ASSIGN(const ConvertReport report,
                       ConvertCheckpoint(source.path(), target.path(), {}));
  EXPECT_EQ(report.format, "meta");
  ASSERT_OK_AND_ASSIGN(const auto out, CheckpointTensors::Open(target.path()));
  const std::vector<float> q =
      Read(*out, "model.layers.0.self_attn.q_proj.weight");
  ASSERT_EQ(q.size(), 64u);
  std::vector<float> first_of_row;
  for (size_t r = 0; r < 8; ++r) first_of_row.push_back(q[r * 8]);
  EXPECT_THAT(first_of_row, ElementsAre(0, 16, 8, 24, 32, 48, 40, 56));
  EXPECT_EQ(Read(*out, "model.layers.0.self_attn.v_proj.weight")[8], 8);
  ASSERT_OK_AND_ASSIGN(const nlohmann::json config, out->Config());
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_EQ(config["hidden_size"], 8);
}

TEST(ConvertTest, ADTypeIsForEveryTensorAndOverflowIsAnError) {
  const TemporaryDirectory source;
  const TemporaryDirectory target;
  source.Write("config.json", kConfig);
  source.Write("model.safetensors",
               Safetensors({Floats("a.weight", {2}, {0.1f, 7e4f})}));
  ConvertOptions options;
  options.dtype = DType::kFp16;
  EXPECT_THAT(
      ConvertCheckpoint(source.path(), target.File("a"), options),
      HasReason(Reason::kModelFileInvalid,
                AllOf(HasSubstr("a.weight"), HasSubstr("range of fp16"))));
  options.dtype = DType::kBf16;
  ASSERT_OK(ConvertCheckpoint(source.path(), target.File("b"), options));
  ASSERT_OK_AND_ASSIGN(const auto out,
                       CheckpointTensors::Open(target.File("b")));
  EXPECT_EQ(out->Find("a.weight")->type, WeightType::kBf16);
  EXPECT_THAT(Read(*out, "a.weight"),
              ElementsAre(ToFloat(ToBf16(0.1f)), ToFloat(ToBf16(7e4f))));
}

// A base of two tensors, and differences with a new row and a new tensor.
class DeltaTest : public ::testing::Test {
 protected:
  DeltaTest() {
    base_.Write("config.json", kConfig);
    base_.Write("model.safetensors",
                Safetensors({Floats("e.weight", {2, 2}, {1, 2, 3, 4}),
                             Floats("n.weight", {2}, {10, 20}),
                             Floats("l.rotary_emb.inv_freq", {1}, {1})}));
    delta_.Write("config.json", R"({"model_type":"llama","vocab_size":3})");
    delta_.Write("model.safetensors",
                 Safetensors({Floats("e.weight", {3, 2}, {1, 1, 1, 1, 1, 1}),
                              Floats("n.weight", {2}, {-10, 5}),
                              Floats("x.weight", {1}, {7})}));
  }

  absl::StatusOr<DeltaReport> Run(const DeltaOptions& options) {
    target_ = StrCat(out_.path(), "/", ++runs_);
    return AddDelta(base_.path(), delta_.path(), target_, options);
  }

  TemporaryDirectory base_;
  TemporaryDirectory delta_;
  TemporaryDirectory out_;
  std::string target_;
  int runs_ = 0;
};

TEST_F(DeltaTest, SumsAreRightAndNewRowsAreSaidHow) {
  EXPECT_THAT(Run({}),
              HasReason(Reason::kInvalidField,
                        AllOf(HasSubstr("--new-rows"), HasSubstr("e.weight"))));
  DeltaOptions options;
  options.new_rows = NewRows::kMean;
  ASSERT_OK_AND_ASSIGN(const DeltaReport report, Run(options));
  EXPECT_THAT(report.copied, ElementsAre("x.weight"));
  EXPECT_THAT(report.enlarged, ElementsAre("e.weight"));
  EXPECT_EQ(report.sum, 2 + 3 + 4 + 5 + 3 + 4 + 0 + 25 + 7);
  ASSERT_OK_AND_ASSIGN(const auto out, CheckpointTensors::Open(target_));
  EXPECT_THAT(Read(*out, "e.weight"), ElementsAre(2, 3, 4, 5, 3, 4));
  EXPECT_THAT(Read(*out, "n.weight"), ElementsAre(0, 25));
  EXPECT_EQ((*out->Config())["vocab_size"], 3);
  options.new_rows = NewRows::kZero;
  ASSERT_OK(Run(options));
  ASSERT_OK_AND_ASSIGN(const auto zero, CheckpointTensors::Open(target_));
  EXPECT_THAT(Read(*zero, "e.weight"), ElementsAre(2, 3, 4, 5, 1, 1));
}

TEST_F(DeltaTest, AWrongSumIsAnError) {
  DeltaOptions options;
  options.new_rows = NewRows::kZero;
  options.expected_sum = 48.005;
  EXPECT_OK(Run(options));
  options.expected_sum = 50;
  EXPECT_THAT(Run(options),
              HasReason(Reason::kModelFileInvalid, HasSubstr("wrong base")));
}

TEST_F(DeltaTest, TensorsThatDoNotFitAreRefusedByName) {
  delta_.Write("model.safetensors",
               Safetensors({Floats("e.weight", {2, 3}, {1, 1, 1, 1, 1, 1}),
                            Floats("n.weight", {2}, {-10, 5})}));
  EXPECT_THAT(Run({}), HasReason(Reason::kModelFileInvalid,
                                 AllOf(HasSubstr("tensor e.weight"),
                                       HasSubstr("[2, 3]"))));
  delta_.Write("model.safetensors",
               Safetensors({Floats("e.weight", {2, 2}, {1, 1, 1, 1})}));
  EXPECT_THAT(Run({}), HasReason(Reason::kModelFileInvalid,
                                 AllOf(HasSubstr("tensor n.weight"),
                                       HasSubstr("in the differences"))));
}

}  // namespace
}  // namespace caravan::worker
