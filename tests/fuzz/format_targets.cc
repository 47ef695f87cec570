// Checkpoints: pickles, PyTorch's and Meta's files, quantized matrices, GGUF.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/gguf/gguf_file.h"
#include "common/gguf/gguf_writer.h"
#include "common/json.h"
#include "common/strings.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/reference_data.h"
#include "tests/support/torch_file_writer.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/meta_checkpoint.h"
#include "worker/model/pickle.h"
#include "worker/model/safetensors.h"
#include "worker/model/torch_file.h"

namespace caravan::fuzz {
namespace {

using testing::RepositoryPath;
using testing::TorchContent;

std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// --- Pickles and PyTorch's files --------------------------------------------

void RunPickle(std::string_view bytes) {
  const auto pickle = worker::ParsePickle(AsBytes(bytes), "fuzz", 0);
  if (!pickle.ok()) return;
  Require(pickle->bytes <= bytes.size(), "a pickle ends in its bytes");
  Require(pickle->root < pickle->values.size(), "the root is a value");
  for (const worker::PickleValue& value : pickle->values) {
    for (const worker::PickleIndex item : value.items) {
      Require(item < pickle->values.size(), "items are values");
    }
  }
}

void RunTorchFile(std::string_view bytes) {
  const auto tensors = worker::ParseTorchFile(AsBytes(bytes), "fuzz");
  if (!tensors.ok()) return;
  for (const worker::TorchTensor& tensor : *tensors) {
    Require(tensor.record.bytes <= bytes.size(), "a tensor fits into its file");
    std::vector<std::byte> copy(tensor.record.bytes);
    worker::CopyTensor(tensor, copy.data());
  }
}

TorchContent Content(bool nested) {
  return {.tensors = {{.name = "model.a.weight",
                       .storage = "0",
                       .storage_class = "FloatStorage",
                       .sizes = {2, 3}},
                      {.name = "model.b.weight",
                       .storage = "0",
                       .storage_class = "FloatStorage",
                       .sizes = {3, 2},
                       .strides = {1, 3},
                       .parameter = true},
                      {.name = "model.c.bias",
                       .storage = "1",
                       .storage_class = "HalfStorage",
                       .sizes = {2},
                       .offset = 1}},
          .storages = {{.key = "0",
                        .width = 4,
                        .bytes = testing::Fp32Bytes({1, 2, 3, 4, 5, 6})},
                       {.key = "1", .width = 2, .bytes = "aabbcc"}},
          .nested_under = nested ? "model" : ""};
}

std::vector<std::string> TorchFileSeeds() {
  std::vector<std::string> seeds = {
      testing::TorchArchive(Content(false)),
      testing::TorchArchive(Content(true), /*zip64=*/true),
      testing::OldTorchFile(Content(false))};
  for (const char* const name : {"archive.bin", "old.bin"}) {
    seeds.push_back(testing::ReadFile(
        RepositoryPath(StrCat("tests/data/formats/torch/", name))));
  }
  return seeds;
}

std::vector<std::string> PickleSeeds() {
  return {testing::TorchPickle(Content(false)),
          testing::TorchPickle(Content(true)),
          "\x80\x04\x95\x10\x01\x01\x01\x01\x01\x01\x01}\x94\x8c\x01k\x94]\x94"
          "(K\x01M\x02\x01J\x01\x01\x01\x01\x8a\x02\x01\x02\x88\x89NeK\x03"
          "as.",
          testing::PickleWriter()
              .Text("collections")
              .Text("OrderedDict")
              .Raw("\x93)R.")
              .text(),
          testing::PickleWriter().Global("os", "system").Raw("(tR.").text()};
}

// --- Model directories ------------------------------------------------------

// A folder in memory where the system has one: each run writes files.
class Folder {
 public:
  Folder() {
    std::string pattern = "/dev/shm/caravan_fuzz_XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
      pattern = StrCat(::testing::TempDir(), "caravan_fuzz_XXXXXX");
      Require(mkdtemp(pattern.data()) != nullptr, "there is a folder to use");
    }
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const {
    return StrCat(path_, "/", name);
  }

 private:
  std::string path_;
};

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// The text before the first line feed, and what is behind it.
std::pair<std::string_view, std::string_view> FirstLine(
    std::string_view bytes) {
  const size_t end = bytes.find('\n');
  if (end == std::string_view::npos) return {bytes, {}};
  return {bytes.substr(0, end), bytes.substr(end + 1)};
}

void ReadAll(const worker::CheckpointTensors& tensors) {
  constexpr int64_t kMost = 1 << 20;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (tensor.elements() > kMost) continue;
    std::vector<std::byte> stored(tensor.bytes());
    tensors.ReadStored(tensor, stored.data());
    // Whole heads only, as the contract wants it.
    if (tensor.interleaved != 0 && tensor.rows() % tensor.interleaved != 0) {
      continue;
    }
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    tensors.ReadFloats(tensor, 0, tensor.rows(), values.data());
    tensors.DropPages(tensor);
  }
}

// A line of config.json, then model.safetensors or pytorch_model.bin.
void RunCheckpoint(std::string_view bytes) {
  static const Folder kFolder;
  const auto [config, weights] = FirstLine(bytes);
  const bool torch = weights.starts_with("PK") || weights.starts_with("\x80");
  std::error_code ignored;
  std::filesystem::remove(kFolder.File("model.safetensors"), ignored);
  WriteFile(kFolder.File("config.json"), config);
  WriteFile(kFolder.File(torch ? "pytorch_model.bin" : "model.safetensors"),
            weights);
  const auto tensors = worker::CheckpointTensors::Open(kFolder.path());
  if (tensors.ok()) ReadAll(**tensors);
}

// A line of params.json, then consolidated.00.pth, for two ranks if the line
// ends in a space.
void RunMeta(std::string_view bytes) {
  static const Folder kFolder;
  const auto [params, weights] = FirstLine(bytes);
  std::error_code ignored;
  std::filesystem::remove(kFolder.File("consolidated.01.pth"), ignored);
  WriteFile(kFolder.File("params.json"), params);
  WriteFile(kFolder.File("consolidated.00.pth"), weights);
  if (params.ends_with(' ')) {
    WriteFile(kFolder.File("consolidated.01.pth"), weights);
  }
  const auto tensors = worker::CheckpointTensors::Open(kFolder.path());
  if (!tensors.ok()) return;
  ReadAll(**tensors);
  Require((*tensors)->Config().ok(), "a checkpoint of Meta's has a config");
}

// The case's tensors under the name of a linear layer.
std::string CaseFile(const worker::TensorRecord* first,
                     const worker::TensorRecord* last) {
  nlohmann::json header;
  std::string data;
  for (const worker::TensorRecord* record = first; record != last; ++record) {
    if (record->name.ends_with(".expected")) continue;
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(record->data), record->bytes);
    header[StrCat("q", record->name.substr(record->name.find('.')))] = {
        {"dtype", record->dtype_name},
        {"shape", record->shape},
        {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = DumpJson(header);
  return StrCat(testing::Bytes(text.size(), 8), text, data);
}

std::vector<std::string> CheckpointSeeds() {
  const std::string bytes = testing::ReadFile(
      RepositoryPath("tests/data/formats/quantized.safetensors"));
  const auto configs = ParseJson(
      testing::ReadFile(RepositoryPath("tests/data/formats/quantized.json")));
  auto records = worker::ParseSafetensors(AsBytes(bytes), "seeds");
  std::map<std::string, std::vector<worker::TensorRecord>> cases;
  for (const worker::TensorRecord& record : *records) {
    cases[record.name.substr(0, record.name.find('.'))].push_back(record);
  }
  std::vector<std::string> seeds = {
      StrCat("{}\n", testing::TorchArchive(Content(false))),
      StrCat("{}\n", testing::OldTorchFile(Content(true)))};
  for (const auto& [name, group] : cases) {
    const nlohmann::json config = {{"quantization_config", configs[name]}};
    seeds.push_back(
        StrCat(DumpJson(config), "\n",
               CaseFile(group.data(), group.data() + group.size())));
  }
  return seeds;
}

// A model of one layer, of one rank or of one of two.
std::string MetaFile(int ranks) {
  TorchContent content;
  content.storages = {
      {.key = "0", .width = 2, .bytes = std::string(2 * 64, 'x')}};
  const auto add = [&](const std::string& name, std::vector<int64_t> sizes) {
    content.tensors.push_back({.name = name,
                               .storage = "0",
                               .storage_class = "BFloat16Storage",
                               .sizes = std::move(sizes)});
  };
  for (const char* const name : {"attention.wq", "attention.wk", "attention.wv",
                                 "feed_forward.w1", "feed_forward.w3"}) {
    add(StrCat("layers.0.", name, ".weight"), {8 / ranks, 8});
  }
  for (const char* const name : {"attention.wo", "feed_forward.w2"}) {
    add(StrCat("layers.0.", name, ".weight"), {8, 8 / ranks});
  }
  add("tok_embeddings.weight", {4, 8 / ranks});
  add("output.weight", {4 / ranks, 8});
  for (const char* const name :
       {"norm", "layers.0.attention_norm", "layers.0.ffn_norm"}) {
    add(StrCat(name, ".weight"), {8});
  }
  return testing::TorchArchive(content);
}

std::vector<std::string> MetaSeeds() {
  const std::string sizes = R"({"dim":8,"n_layers":1,"n_heads":2)";
  return {StrCat(sizes, ",\"norm_eps\":1e-06}\n", MetaFile(1)),
          StrCat(sizes, ",\"rope_theta\":500000,\"use_scaled_rope\":true}\n",
                 MetaFile(1)),
          StrCat(sizes, ",\"vocab_size\":-1} \n", MetaFile(2)),
          // Both files hold the one kv head.
          StrCat(sizes, ",\"n_kv_heads\":1} \n", MetaFile(2))};
}

// --- GGUF models ------------------------------------------------------------

// One file, or a line with the length of the first of two parts, then both.
void RunGgufCheckpoint(std::string_view bytes) {
  static const Folder kFolder;
  const std::string first = kFolder.File("m-00001-of-00002.gguf");
  const std::string second = kFolder.File("m-00002-of-00002.gguf");
  const std::string whole = kFolder.File("m.gguf");
  std::error_code ignored;
  for (const std::string& file : {first, second, whole}) {
    std::filesystem::remove(file, ignored);
  }
  if (bytes.starts_with("GGUF")) {
    WriteFile(whole, bytes);
  } else {
    const auto [line, parts] = FirstLine(bytes);
    size_t length = 0;
    std::from_chars(line.data(), line.data() + line.size(), length);
    length = std::min(length, parts.size());
    WriteFile(first, parts.substr(0, length));
    WriteFile(second, parts.substr(length));
  }
  const auto tensors = worker::CheckpointTensors::Open(kFolder.path());
  if (!tensors.ok()) return;
  ReadAll(**tensors);
  const auto config = (*tensors)->Config();
  if (!config.ok()) return;
  const auto model =
      worker::ParseModelConfig(DumpJson(*config), "config.json", {});
  if (!model.ok()) return;
  Require(model->hidden_size > 0, "a model has a hidden size");
}

// What the parts of a small model differ in.
struct GgufOptions {
  const char* type = "q4_0";
  const char* scaling = nullptr;
  uint32_t part = 0;
  uint32_t parts = 1;
  bool grouped = false;
};

void AddGgufKeys(const GgufOptions& options, gguf::HeaderWriter& writer) {
  writer.Add("general.architecture", "llama");
  writer.Add("llama.embedding_length", uint32_t{64});
  writer.Add("llama.feed_forward_length", uint32_t{32});
  writer.Add("llama.block_count", uint32_t{1});
  writer.Add("llama.attention.head_count", uint32_t{4});
  writer.Add("llama.context_length", uint32_t{128});
  writer.Add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{2});
  if (options.grouped) {
    writer.Add("llama.attention.head_count_kv", uint32_t{2});
    writer.Add("llama.attention.key_length", uint32_t{16});
    writer.Add("llama.rope.freq_base", 500000.0f);
  }
  if (options.scaling == nullptr) return;
  if (std::string_view(options.scaling) == "legacy") {
    writer.Add("llama.rope.scale_linear", 2.0f);
    return;
  }
  writer.Add("llama.rope.scaling.type", options.scaling);
  writer.Add("llama.rope.scaling.factor", 2.0f);
}

// A model of one layer, or one of two parts of it.
std::string GgufModel(const GgufOptions& options) {
  gguf::HeaderWriter writer;
  if (options.part == 0) AddGgufKeys(options, writer);
  if (options.parts > 1) {
    writer.Add("split.no", options.part);
    writer.Add("split.count", options.parts);
  }
  uint64_t bytes = 0;
  const auto add = [&](const char* name, const char* type,
                       std::vector<int64_t> shape) {
    bytes += writer.AddTensor(name, *gguf::FindTensorType(type), shape);
    bytes += gguf::HeaderWriter::Padding(bytes);
  };
  if (options.part == 0) {
    add("token_embd.weight", options.type, {3, 64});
    add("blk.0.attn_q.weight", options.type, {64, 64});
    add("rope_freqs.weight", "f32", {8});
  }
  if (options.part + 1 == options.parts) {
    add("blk.0.attn_k.weight", options.type, {options.grouped ? 32 : 64, 64});
    add("blk.0.attn_q.bias", "f32", {64});
    add("output.weight", "f16", {3, 64});
  }
  // Ones for the divisors, scales and codes alike.
  std::string data;
  while (data.size() < bytes) data += std::string("\0\0\x80\x3f", 4);
  return writer.Header() + data;
}

std::vector<std::string> GgufCheckpointSeeds() {
  std::vector<std::string> seeds = {
      GgufModel({}), GgufModel({.type = "q5_1", .grouped = true}),
      GgufModel({.type = "f16", .scaling = "yarn"}),
      GgufModel({.type = "bf16", .scaling = "linear"}),
      GgufModel({.type = "iq4_nl", .scaling = "legacy"})};
  const std::string part = GgufModel({.part = 0, .parts = 2});
  seeds.push_back(
      StrCat(part.size(), "\n", part, GgufModel({.part = 1, .parts = 2})));
  return seeds;
}

}  // namespace

const std::vector<FuzzTarget>& FuzzTargets() {
  static const std::vector<FuzzTarget>& kTargets = *new std::vector<FuzzTarget>{
      {"pickle", RunPickle, PickleSeeds},
      {"torch_file", RunTorchFile, TorchFileSeeds},
      {"checkpoint", RunCheckpoint, CheckpointSeeds},
      {"meta", RunMeta, MetaSeeds},
      {"gguf_checkpoint", RunGgufCheckpoint, GgufCheckpointSeeds}};
  return kTargets;
}

}  // namespace caravan::fuzz
