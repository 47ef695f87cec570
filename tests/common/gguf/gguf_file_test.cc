#include "common/gguf/gguf_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "common/gguf/gguf_writer.h"
#include "common/mapped_file.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace caravan::gguf {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::TemporaryDirectory;
using ::testing::HasSubstr;

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// A file of one key of each kind and two tensors.
std::string SmallFile() {
  HeaderWriter writer;
  writer.Add("general.architecture", "llama");
  writer.Add("llama.block_count", uint32_t{3});
  writer.Add("llama.eps", 1e-5f);
  writer.Add("tokenizer.add", true);
  const std::vector<std::string> words = {"a", "", "long word"};
  writer.Add("tokenizer.tokens", words);
  const std::vector<float> scores = {0.5f, -1.0f};
  writer.Add("tokenizer.scores", scores);
  const std::vector<int32_t> kinds = {1, -6};
  writer.Add("tokenizer.kinds", kinds);
  const int64_t matrix[] = {2, 64};
  const int64_t vector[] = {3};
  const uint64_t first = writer.AddTensor("m", *FindTensorType("q4_0"), matrix);
  const uint64_t second = writer.AddTensor("v", *FindTensorType("f32"), vector);
  EXPECT_EQ(first, 72u);
  EXPECT_EQ(second, 12u);
  std::string file = writer.Header();
  file.append(first + HeaderWriter::Padding(first), 'm');
  file.append(second, 'v');
  return file;
}

TEST(GgufFileTest, ReadsWhatWasWritten) {
  const std::string content = SmallFile();
  ASSERT_OK_AND_ASSIGN(const File file,
                       File::Parse(BytesOf(content), "x.gguf"));
  EXPECT_EQ(*file.String("general.architecture"), "llama");
  EXPECT_EQ(*file.Integer("llama.block_count", 1, 9), 3);
  EXPECT_EQ(*file.Number("llama.eps"), double{1e-5f});
  EXPECT_EQ(*file.Bool("tokenizer.add"), true);
  EXPECT_EQ(*file.Bool("absent"), std::nullopt);
  ASSERT_OK_AND_ASSIGN(const Value* const tokens,
                       file.Array("tokenizer.tokens", ValueType::kString));
  EXPECT_EQ(tokens->strings,
            (std::vector<std::string_view>{"a", "", "long word"}));
  ASSERT_OK_AND_ASSIGN(const Value* const scores,
                       file.Array("tokenizer.scores", ValueType::kF32));
  EXPECT_EQ(scores->Number(1), -1.0);
  ASSERT_OK_AND_ASSIGN(const Value* const kinds,
                       file.Array("tokenizer.kinds", ValueType::kI32));
  EXPECT_EQ(kinds->Integer(1), -6);
  ASSERT_EQ(file.tensors().size(), 2u);
  const Tensor& matrix = *file.FindTensor("m");
  EXPECT_EQ(matrix.shape, (std::vector<int64_t>{2, 64}));
  EXPECT_EQ(matrix.bytes, 72u);
  EXPECT_EQ(content[matrix.offset], 'm');
  EXPECT_EQ(content[file.FindTensor("v")->offset], 'v');
  EXPECT_EQ(file.FindTensor("w"), nullptr);
}

TEST(GgufFileTest, WrongTypesAndRangesNameTheKey) {
  const std::string content = SmallFile();
  ASSERT_OK_AND_ASSIGN(const File file,
                       File::Parse(BytesOf(content), "x.gguf"));
  const auto names = [](const char* part) {
    return HasReason(Reason::kModelFileInvalid, HasSubstr(part));
  };
  EXPECT_THAT(file.Integer("llama.block_count", 4, 9).status(),
              names("x.gguf: llama.block_count must be in [4, 9]; got 3"));
  EXPECT_THAT(file.Integer("llama.eps", 0, 1).status(), names("an integer"));
  EXPECT_THAT(file.String("llama.eps").status(), names("a string; got f32"));
  EXPECT_THAT(file.Bool("llama.eps").status(), names("true or false"));
  EXPECT_THAT(file.Number("tokenizer.scores").status(), names("number"));
  EXPECT_THAT(file.Array("tokenizer.scores", ValueType::kI32).status(),
              names("an array of i32; got an array of f32"));
}

TEST(GgufFileTest, EveryPrefixIsRefused) {
  const std::string content = SmallFile();
  for (size_t size = 0; size < content.size(); ++size) {
    EXPECT_THAT(File::Parse(BytesOf(content).first(size), "x").status(),
                HasReason(Reason::kModelFileInvalid))
        << size;
  }
}

TEST(GgufFileTest, SurvivesEveryByteBeingChanged) {
  const std::string content = SmallFile();
  for (size_t i = 0; i < content.size(); ++i) {
    for (const char other : {'\0', '\x7f', '\xff'}) {
      std::string changed = content;
      changed[i] = other;
      const auto file = File::Parse(BytesOf(changed), "x");
      if (!file.ok()) continue;
      for (const Tensor& tensor : file->tensors()) {
        EXPECT_LE(tensor.offset + tensor.bytes, changed.size());
      }
    }
  }
}

TEST(GgufFileTest, RefusesWhatContradictsItself) {
  const auto refuses = [](HeaderWriter& writer, const char* part) {
    const std::string content = writer.Header() + std::string(64, 'x');
    EXPECT_THAT(File::Parse(BytesOf(content), "x").status(),
                HasReason(Reason::kModelFileInvalid, HasSubstr(part)));
  };
  HeaderWriter twice;
  twice.Add("k", true);
  twice.Add("k", true);
  refuses(twice, "key k must be there once");
  HeaderWriter tensors;
  const int64_t shape[] = {4};
  tensors.AddTensor("t", *FindTensorType("f32"), shape);
  tensors.AddTensor("t", *FindTensorType("f32"), shape);
  refuses(tensors, "tensor t must be there once");
  HeaderWriter alignment;
  alignment.Add("general.alignment", uint32_t{48});
  refuses(alignment, "general.alignment must be a power of two");
  HeaderWriter blocks;
  blocks.AddTensor("t", *FindTensorType("q4_0"), shape);
  refuses(blocks, "columns of tensor t must be whole blocks of 32; got 4");
  HeaderWriter large;
  const int64_t many[] = {1 << 20, 1 << 20};
  large.AddTensor("t", *FindTensorType("f32"), many);
  refuses(large, "tensor t");
}

TEST(GgufFileTest, ReadsPublishedFiles) {
  for (const char* const name :
       {"gguf/stories260k-f16.gguf", "gguf/tiny-256-q4_k_m.gguf"}) {
    CARAVAN_REFERENCE_PATH_OR_SKIP(path, name);
    ASSERT_OK_AND_ASSIGN(const MappedFile mapped, MappedFile::Open(path));
    ASSERT_OK_AND_ASSIGN(const File file, File::Parse(mapped.bytes(), path));
    EXPECT_EQ(*file.String("general.architecture"), "llama");
    EXPECT_NE(file.FindTensor("token_embd.weight"), nullptr);
    // What is written again is read again.
    HeaderWriter writer;
    for (const auto& [key, value] : file.metadata()) writer.Add(key, value);
    const std::string header = writer.Header();
    ASSERT_OK_AND_ASSIGN(const File copy, File::Parse(BytesOf(header), "copy"));
    EXPECT_EQ(copy.metadata().size(), file.metadata().size());
  }
}

TEST(FindFileTest, FindsTheOneModelOfADirectory) {
  const TemporaryDirectory directory;
  const auto touch = [&](const std::string& name) {
    std::ofstream(directory.path() + "/" + name) << "x";
  };
  EXPECT_EQ(*FindFile(directory.path()), std::nullopt);
  EXPECT_EQ(*FindFile("/somewhere/m.gguf"), "/somewhere/m.gguf");
  touch("m-00001-of-00002.gguf");
  touch("m-00002-of-00002.gguf");
  ASSERT_OK_AND_ASSIGN(const auto found, FindFile(directory.path()));
  EXPECT_EQ(found, directory.path() + "/m-00001-of-00002.gguf");
  ASSERT_OK_AND_ASSIGN(const auto parts, PartsOf(*found));
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[1], directory.path() + "/m-00002-of-00002.gguf");
  EXPECT_THAT(PartsOf(parts[1]).status(),
              HasReason(Reason::kModelFileInvalid, HasSubstr("first")));
  touch("other.gguf");
  EXPECT_THAT(FindFile(directory.path()).status(),
              HasReason(Reason::kModelFileInvalid, HasSubstr("one GGUF")));
}

}  // namespace
}  // namespace caravan::gguf
