// One small model in the community's formats: what a worker computes from each
// is, bit for bit, what it computes from the same weights in safetensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/strings.h"
#include "tests/golden/golden_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/torch_file_writer.h"
#include "worker/model/convert.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/four_bit.h"

namespace caravan::worker {
namespace {

using testing::Bytes;
using testing::SafetensorsEntry;
using testing::TemporaryDirectory;
using testing::TorchContent;

constexpr char kModel[] = "tests/data/tiny/gqa";
constexpr int64_t kHeadDim = 16;
constexpr int64_t kGroup = 32;

std::string BytesOf(const TensorRecord& record) {
  return {reinterpret_cast<const char*>(record.data), record.bytes};
}

bool IsLinear(std::string_view name) { return name.ends_with("_proj.weight"); }

class FormatGoldenTest : public ::testing::TestWithParam<GoldenBackend> {
 protected:
  FormatGoldenTest() : random_(7) {
    checkpoint_ = *Checkpoint::Open(testing::RepositoryPath(kModel));
    config_ = ParseJson(testing::ReadFile(
        testing::RepositoryPath(StrCat(kModel, "/config.json"))));
  }

  LogitRows Logits(const std::string& directory,
                   std::vector<std::string> overrides = {}) {
    auto model = GoldenModel::Load(directory, GetParam(), std::move(overrides));
    EXPECT_OK(model);
    if (!model.ok()) return {};
    std::array<int32_t, 20> ids;
    std::iota(ids.begin(), ids.end(), 3);
    (*model)->Start(20);
    auto rows = (*model)->Run(ids, 7);
    EXPECT_OK(rows);
    return rows.ok() ? *rows : LogitRows();
  }

  // Writes the model with its linear layers made by `quantize`, which returns
  // the tensors of one; runs it, and the model converted to fp32.
  template <typename Quantize>
  void RunBoth(const nlohmann::json& quantization, const Quantize& quantize) {
    std::vector<SafetensorsEntry> entries;
    for (const auto& [name, record] : checkpoint_->tensors()) {
      if (!IsLinear(name)) {
        entries.push_back(
            {name, record.dtype_name, record.shape, BytesOf(record)});
        continue;
      }
      const std::string module = name.substr(0, name.size() - 7);
      for (SafetensorsEntry& entry :
           quantize(module, record.shape[0], record.shape[1])) {
        entries.push_back(std::move(entry));
      }
    }
    config_["quantization_config"] = quantization;
    source_.Write("config.json", DumpJson(config_));
    source_.Write("model.safetensors", testing::SafetensorsFile(entries));
    ConvertOptions options;
    options.dtype = DType::kFp32;
    ASSERT_OK(ConvertCheckpoint(source_.path(), target_.path(), options));
    logits_ = Logits(source_.path());
    converted_ = Logits(target_.path());
    ASSERT_EQ(logits_.size(), 20u);
  }

  template <typename Quantize>
  void ExpectEqualsItsConversion(const nlohmann::json& quantization,
                                 const Quantize& quantize) {
    ASSERT_NO_FATAL_FAILURE(RunBoth(quantization, quantize));
    EXPECT_EQ(logits_, converted_);
  }

  std::string RandomBytes(int64_t count) {
    std::string bytes(static_cast<size_t>(count), '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }

  // fp16 numbers near 2^-9.
  std::string Scales(int64_t count) {
    std::string bytes;
    for (int64_t i = 0; i < count; ++i) {
      bytes += Bytes(0x1800 + random_() % 0x400, 2);
    }
    return bytes;
  }

  std::vector<SafetensorsEntry> Grouped(const std::string& module, int64_t rows,
                                        int64_t cols, bool awq,
                                        bool act_order) {
    const int64_t groups = cols / kGroup;
    std::vector<SafetensorsEntry> entries = {
        {module + ".qweight", "I32",
         awq ? std::vector<int64_t>{cols, rows / 8}
             : std::vector<int64_t>{cols / 8, rows},
         RandomBytes(rows * cols / 2)},
        {module + ".qzeros",
         "I32",
         {groups, rows / 8},
         RandomBytes(groups * rows / 2)},
        {module + ".scales", "F16", {groups, rows}, Scales(groups * rows)}};
    if (awq) return entries;
    std::vector<int32_t> index(static_cast<size_t>(cols));
    for (int64_t i = 0; i < cols; ++i) {
      index[i] = static_cast<int32_t>(i / kGroup);
    }
    if (act_order) std::shuffle(index.begin(), index.end(), random_);
    std::string bytes;
    for (const int32_t group : index) bytes += Bytes(group, 4);
    entries.push_back({module + ".g_idx", "I32", {cols}, bytes});
    return entries;
  }

  std::mt19937 random_;
  LogitRows logits_, converted_;  // of RunBoth
  std::unique_ptr<Checkpoint> checkpoint_;
  nlohmann::json config_;
  TemporaryDirectory source_;
  TemporaryDirectory target_;
};

TEST_P(FormatGoldenTest, PyTorchFilesGiveTheSameLogits) {
  TorchContent content;
  for (const auto& [name, record] : checkpoint_->tensors()) {
    const std::string key = StrCat(content.storages.size());
    content.storages.push_back({key, 2, BytesOf(record)});
    content.tensors.push_back({.name = name,
                               .storage = key,
                               .storage_class = "BFloat16Storage",
                               .sizes = record.shape});
  }
  source_.Write("config.json", DumpJson(config_));
  source_.Write("pytorch_model.bin", testing::TorchArchive(content));
  EXPECT_EQ(Logits(source_.path()), Logits(testing::RepositoryPath(kModel)));
}

// The rows, of `row_bytes` each, in Meta's order: row 2j is row j of a head,
// row 2j + 1 row j + d/2.
std::string Interleaved(const std::string& rows, size_t row_bytes) {
  std::string out;
  for (size_t r = 0; r < rows.size() / row_bytes; ++r) {
    const size_t j = r % kHeadDim;
    const size_t from = r - j + j / 2 + (j % 2) * (kHeadDim / 2);
    out += rows.substr(from * row_bytes, row_bytes);
  }
  return out;
}

// Columns [first, first + count) of 16-bit elements.
std::string Columns(const std::string& rows, size_t cols, size_t first,
                    size_t count) {
  std::string out;
  for (size_t at = 0; at < rows.size(); at += 2 * cols) {
    out += rows.substr(at + 2 * first, 2 * count);
  }
  return out;
}

// Meta's name and how it is divided: along 0, 1, or not at all (-1).
struct MetaName {
  std::string_view suffix;
  std::string_view name;
  int axis;
};
constexpr std::array<MetaName, 12> kMetaNames = {{
    {"embed_tokens.weight", "tok_embeddings.weight", 1},
    {"lm_head.weight", "output.weight", 0},
    {"model.norm.weight", "norm.weight", -1},
    {"input_layernorm.weight", "attention_norm.weight", -1},
    {"post_attention_layernorm.weight", "ffn_norm.weight", -1},
    {"q_proj.weight", "attention.wq.weight", 0},
    {"k_proj.weight", "attention.wk.weight", 0},
    {"v_proj.weight", "attention.wv.weight", 0},
    {"o_proj.weight", "attention.wo.weight", 1},
    {"gate_proj.weight", "feed_forward.w1.weight", 0},
    {"up_proj.weight", "feed_forward.w3.weight", 0},
    {"down_proj.weight", "feed_forward.w2.weight", 1},
}};

// Rank `rank` of `ranks` of a tensor.
void AddMetaPart(const TensorRecord& record, size_t rank, size_t ranks,
                 TorchContent& content) {
  for (const MetaName& rule : kMetaNames) {
    if (!record.name.ends_with(rule.suffix)) continue;
    std::string name(rule.name);
    constexpr std::string_view kLayers = "model.layers.";
    if (record.name.starts_with(kLayers)) {
      name =
          StrCat("layers.", record.name.substr(kLayers.size(), 1), ".", name);
    }
    std::vector<int64_t> sizes = record.shape;
    std::string bytes = BytesOf(record);
    const size_t row_bytes = bytes.size() / static_cast<size_t>(sizes[0]);
    if (rule.suffix[0] == 'q' || rule.suffix[0] == 'k') {
      bytes = Interleaved(bytes, row_bytes);
    }
    if (rule.axis == 0) {
      sizes[0] /= static_cast<int64_t>(ranks);
      bytes = bytes.substr(rank * bytes.size() / ranks, bytes.size() / ranks);
    } else if (rule.axis == 1) {
      const size_t cols = static_cast<size_t>(sizes[1]);
      sizes[1] /= static_cast<int64_t>(ranks);
      bytes = Columns(bytes, cols, rank * cols / ranks, cols / ranks);
    }
    const std::string key = StrCat(content.storages.size());
    content.storages.push_back({key, 2, bytes});
    content.tensors.push_back({.name = name,
                               .storage = key,
                               .storage_class = "BFloat16Storage",
                               .sizes = sizes});
  }
}

TEST_P(FormatGoldenTest, MetasShardsGiveTheSameLogits) {
  for (const size_t ranks : {1u, 2u}) {
    const TemporaryDirectory directory;
    directory.Write("params.json",
                    R"({"dim":96,"n_layers":2,"n_heads":6,"n_kv_heads":2,
                        "norm_eps":1e-05,"vocab_size":-1})");
    for (size_t rank = 0; rank < ranks; ++rank) {
      TorchContent content;
      for (const auto& [name, record] : checkpoint_->tensors()) {
        AddMetaPart(record, rank, ranks, content);
      }
      directory.Write(StrCat("consolidated.0", rank, ".pth"),
                      testing::TorchArchive(content));
    }
    const LogitRows logits =
        Logits(directory.path(), {"max_position_embeddings=256"});
    ASSERT_EQ(logits.size(), 20u) << ranks;
    EXPECT_EQ(logits, Logits(testing::RepositoryPath(kModel))) << ranks;
  }
}

TEST_P(FormatGoldenTest, GptqGivesTheLogitsOfItsWeights) {
  ExpectEqualsItsConversion(
      {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", kGroup}},
      [&](const std::string& module, int64_t rows, int64_t cols) {
        return Grouped(module, rows, cols, /*awq=*/false, /*act_order=*/false);
      });
}

TEST_P(FormatGoldenTest, GptqInActOrderGivesTheLogitsOfItsWeights) {
  ExpectEqualsItsConversion(
      {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", kGroup}},
      [&](const std::string& module, int64_t rows, int64_t cols) {
        return Grouped(module, rows, cols, /*awq=*/false, /*act_order=*/true);
      });
}

TEST_P(FormatGoldenTest, AwqGivesTheLogitsOfItsWeights) {
  ExpectEqualsItsConversion(
      {{"quant_method", "awq"}, {"bits", 4}, {"group_size", kGroup}},
      [&](const std::string& module, int64_t rows, int64_t cols) {
        return Grouped(module, rows, cols, /*awq=*/true, /*act_order=*/false);
      });
}

// Products of codes round in another order than those of widened weights.
TEST_P(FormatGoldenTest, Nf4GivesNearlyTheLogitsOfItsWeights) {
  RunBoth(
      {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}},
      [&](const std::string& module, int64_t rows, int64_t cols) {
        const std::string weight = module + ".weight";
        const int64_t blocks = rows * cols / kFourBitBlock;
        const std::string state = DumpJson(
            nlohmann::json{{"blocksize", 64}, {"shape", {rows, cols}}});
        return std::vector<SafetensorsEntry>{
            {weight, "U8", {rows * cols / 2, 1}, RandomBytes(rows * cols / 2)},
            {weight + ".absmax",
             "F32",
             {blocks},
             testing::Fp32Bytes(
                 std::vector<float>(static_cast<size_t>(blocks), 0.05f))},
            {weight + ".quant_map",
             "F32",
             {16},
             testing::Fp32Bytes({kNf4Values.begin(), kNf4Values.end()})},
            {weight + ".quant_state.bitsandbytes__nf4",
             "U8",
             {static_cast<int64_t>(state.size())},
             state}};
      });
  ASSERT_EQ(logits_.size(), converted_.size());
  for (size_t row = 0; row < logits_.size(); ++row) {
    for (size_t i = 0; i < logits_[row].size(); ++i) {
      ASSERT_NEAR(logits_[row][i], converted_[row][i], 1e-4) << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, FormatGoldenTest,
                         ::testing::ValuesIn(GoldenBackends()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace caravan::worker
