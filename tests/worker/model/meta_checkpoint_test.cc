#include "worker/model/meta_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/torch_file_writer.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;
using testing::TorchContent;

constexpr int64_t kDim = 8;
constexpr int64_t kWidth = 12;  // of the feed-forward part
constexpr int64_t kVocabulary = 6;

// A file of one rank; element i of a tensor is `first` + i.
class RankFile {
 public:
  void Add(const std::string& name, std::vector<int64_t> sizes, float first) {
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), first);
    const std::string key = StrCat(content_.storages.size());
    content_.storages.push_back(
        {.key = key, .width = 4, .bytes = testing::Fp32Bytes(values)});
    content_.tensors.push_back({.name = name,
                                .storage = key,
                                .storage_class = "FloatStorage",
                                .sizes = std::move(sizes)});
  }
  std::string Archive() const { return testing::TorchArchive(content_); }
  TorchContent& content() { return content_; }

 private:
  TorchContent content_;
};

// Rank `rank` of `ranks` of a model of one layer and two heads of four.
RankFile Rank(int rank, int ranks, bool llama3 = false) {
  RankFile file;
  const float base = 1000.0f * static_cast<float>(rank);
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    file.Add(name, {rows, cols}, base);
  };
  if (llama3) {
    add("tok_embeddings.weight", kVocabulary / ranks, kDim);
  } else {
    add("tok_embeddings.weight", kVocabulary, kDim / ranks);
  }
  file.Add("norm.weight", {kDim}, 0);
  add("output.weight", kVocabulary / ranks, kDim);
  file.Add("layers.0.attention_norm.weight", {kDim}, 0);
  file.Add("layers.0.ffn_norm.weight", {kDim}, 0);
  for (const char* const name : {"wq", "wk", "wv"}) {
    add(StrCat("layers.0.attention.", name, ".weight"), kDim / ranks, kDim);
  }
  add("layers.0.attention.wo.weight", kDim, kDim / ranks);
  add("layers.0.feed_forward.w1.weight", kWidth / ranks, kDim);
  add("layers.0.feed_forward.w3.weight", kWidth / ranks, kDim);
  add("layers.0.feed_forward.w2.weight", kDim, kWidth / ranks);
  file.Add("rope.freqs", {2}, 0);
  return file;
}

constexpr char kParams[] =
    R"({"dim":8,"n_layers":1,"n_heads":2,"norm_eps":1e-06,"vocab_size":-1})";

std::vector<float> Values(const MetaCheckpoint& checkpoint,
                          std::string_view name) {
  const MergedTensor& tensor = checkpoint.tensors().find(name)->second;
  std::vector<float> values(tensor.record.bytes / sizeof(float));
  CopyMerged(tensor, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

TEST(MetaCheckpointTest, OneFileIsReadInPlaceUnderHuggingFaceNames) {
  const TemporaryDirectory directory;
  directory.Write("params.json", kParams);
  directory.Write("consolidated.00.pth", Rank(0, 1).Archive());
  ASSERT_TRUE(MetaCheckpoint::IsIn(directory.path()));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       MetaCheckpoint::Open(directory.path()));
  EXPECT_EQ(checkpoint->tensors().size(), 12u);
  for (const auto& [name, tensor] : checkpoint->tensors()) {
    EXPECT_NE(tensor.record.data, nullptr) << name;
    const bool rotated =
        name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
    EXPECT_EQ(tensor.interleaved, rotated ? 4 : 0) << name;
  }
  EXPECT_EQ(Values(*checkpoint, "model.layers.0.mlp.down_proj.weight")[13], 13);
}

TEST(MetaCheckpointTest, PartsAreJoinedAlongTheirAxes) {
  const TemporaryDirectory directory;
  directory.Write("params.json", kParams);
  directory.Write("consolidated.00.pth", Rank(0, 2).Archive());
  directory.Write("consolidated.01.pth", Rank(1, 2).Archive());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       MetaCheckpoint::Open(directory.path()));
  const auto shape = [&](std::string_view name) {
    return checkpoint->tensors().find(name)->second.record.shape;
  };
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(shape("model.embed_tokens.weight"),
            (std::vector<int64_t>{kVocabulary, kDim}));
  EXPECT_EQ(shape(layer + "self_attn.o_proj.weight"),
            (std::vector<int64_t>{kDim, kDim}));
  EXPECT_EQ(shape(layer + "mlp.gate_proj.weight"),
            (std::vector<int64_t>{kWidth, kDim}));
  EXPECT_EQ(shape(layer + "input_layernorm.weight"),
            (std::vector<int64_t>{kDim}));
  // Columns: four of the first file, four of the second, and so on.
  const std::vector<float> embedding =
      Values(*checkpoint, "model.embed_tokens.weight");
  EXPECT_EQ(embedding[3], 3);
  EXPECT_EQ(embedding[4], 1000);
  EXPECT_EQ(embedding[8], 4);
  EXPECT_EQ(embedding[12], 1004);
  // Rows: all of the first file, then all of the second.
  const std::vector<float> gate =
      Values(*checkpoint, layer + "mlp.gate_proj.weight");
  EXPECT_EQ(gate[47], 47);
  EXPECT_EQ(gate[48], 1000);
}

TEST(MetaCheckpointTest, LaterGenerationsDivideTheVocabulary) {
  const TemporaryDirectory directory;
  directory.Write("params.json", kParams);
  directory.Write("consolidated.00.pth", Rank(0, 2, true).Archive());
  directory.Write("consolidated.01.pth", Rank(1, 2, true).Archive());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       MetaCheckpoint::Open(directory.path()));
  const std::vector<float> embedding =
      Values(*checkpoint, "model.embed_tokens.weight");
  ASSERT_EQ(embedding.size(), size_t{kVocabulary * kDim});
  EXPECT_EQ(embedding[23], 23);
  EXPECT_EQ(embedding[24], 1000);
}

TEST(MetaCheckpointTest, CopiedHeadsCountOnce) {
  // One kv head in two files: both hold the same one.
  const TemporaryDirectory directory;
  directory.Write("params.json",
                  R"({"dim":8,"n_layers":1,"n_heads":2,"n_kv_heads":1})");
  for (int rank = 0; rank < 2; ++rank) {
    RankFile file = Rank(rank, 2);
    for (size_t i = 0; i < file.content().tensors.size(); ++i) {
      const std::string& name = file.content().tensors[i].name;
      if (name.ends_with("wk.weight") || name.ends_with("wv.weight")) {
        file.content().storages[i].bytes = std::string(4 * 8 * 4, 'k');
      }
    }
    directory.Write(StrCat("consolidated.0", rank, ".pth"), file.Archive());
  }
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       MetaCheckpoint::Open(directory.path()));
  EXPECT_EQ(checkpoint->tensors()
                .find("model.layers.0.self_attn.k_proj.weight")
                ->second.record.shape,
            (std::vector<int64_t>{4, 8}));
}

TEST(MetaCheckpointTest, TheConfigurationSaysWhatParamsDoNot) {
  struct Case {
    std::string params;
    int context;
    double theta;
  };
  const std::string sizes = R"("dim":8,"n_layers":1,"n_heads":2)";
  const Case cases[] = {
      {StrCat("{", sizes, R"(,"norm_eps":1e-06})"), 2048, 10000},
      {StrCat("{", sizes, R"(,"norm_eps":1e-05})"), 4096, 10000},
      {StrCat("{", sizes, R"(,"rope_theta":1e6})"), 16384, 1e6},
      {StrCat("{", sizes, R"(,"rope_theta":500000.0})"), 8192, 500000},
      {StrCat("{", sizes, R"(,"rope_theta":500000,"use_scaled_rope":true})"),
       131072, 500000},
  };
  const TemporaryDirectory directory;
  directory.Write("consolidated.00.pth", Rank(0, 1).Archive());
  for (const Case& c : cases) {
    directory.Write("params.json", c.params);
    ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                         MetaCheckpoint::Open(directory.path()));
    const nlohmann::json& config = checkpoint->config();
    EXPECT_EQ(config["max_position_embeddings"], c.context) << c.params;
    EXPECT_EQ(config["rope_theta"], c.theta);
    EXPECT_EQ(config["intermediate_size"], kWidth);
    EXPECT_EQ(config["vocab_size"], kVocabulary);
    EXPECT_EQ(config["num_key_value_heads"], 2);
    EXPECT_EQ(config["tie_word_embeddings"], false);
    EXPECT_EQ(config.contains("rope_scaling"), c.context == 131072);
  }
}

TEST(MetaCheckpointTest, BrokenCheckpointsAreRefusedByName) {
  const TemporaryDirectory directory;
  const auto refused = [&](const char* message) {
    EXPECT_THAT(
        MetaCheckpoint::Open(directory.path()),
        HasReason(Reason::kModelFileInvalid,
                  AllOf(HasSubstr(directory.path()), HasSubstr(message))));
  };
  directory.Write("params.json", kParams);
  directory.Write("consolidated.00.pth", Rank(0, 2).Archive());
  directory.Write("consolidated.02.pth", Rank(1, 2).Archive());
  refused("consolidated.02.pth: number");
  std::filesystem::remove(directory.File("consolidated.02.pth"));
  directory.Write("consolidated.01.pth", Rank(1, 1).Archive());
  refused("shape and type");
  RankFile missing = Rank(1, 2);
  missing.content().tensors.erase(missing.content().tensors.begin() + 5);
  directory.Write("consolidated.01.pth", missing.Archive());
  refused("tensor layers.0.attention.wq.weight");
  directory.Write("consolidated.01.pth", "torn");
  refused("consolidated.01.pth: first bytes");
  directory.Write("params.json", R"({"dim":8,"n_layers":1,"n_heads":3})");
  refused("dim");
  directory.Write("params.json",
                  R"({"dim":8,"n_layers":1,"n_heads":2,
                      "vision_chunk_size":448})");
  refused("vision_chunk_size");
}

}  // namespace
}  // namespace caravan::worker
