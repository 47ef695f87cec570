#include "worker/model/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/torch_file_writer.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::Fp32Bytes;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::OldTorchFile;
using testing::TorchArchive;
using testing::TorchContent;

absl::StatusOr<std::vector<TorchTensor>> Parse(const std::string& bytes) {
  return ParseTorchFile(std::as_bytes(std::span(bytes)), "m.bin");
}

// Three tensors over two storages, one of them a transposed view.
TorchContent Example() {
  return {.tensors = {{.name = "a",
                       .storage = "0",
                       .storage_class = "FloatStorage",
                       .sizes = {2, 3}},
                      {.name = "b",
                       .storage = "0",
                       .storage_class = "FloatStorage",
                       .sizes = {3, 2},
                       .strides = {1, 3},
                       .parameter = true},
                      {.name = "c",
                       .storage = "1",
                       .storage_class = "HalfStorage",
                       .sizes = {2},
                       .offset = 1}},
          .storages = {{.key = "0",
                        .width = 4,
                        .bytes = Fp32Bytes({1, 2, 3, 4, 5, 6})},
                       {.key = "1", .width = 2, .bytes = "aabbcc"}},
          .nested_under = ""};
}

std::string Copy(const TorchTensor& tensor) {
  std::string bytes(tensor.record.bytes, '\0');
  CopyTensor(tensor, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

void ExpectExample(const std::string& file) {
  ASSERT_OK_AND_ASSIGN(const auto tensors, Parse(file));
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].record.name, "a");
  EXPECT_EQ(tensors[0].record.dtype_name, "F32");
  EXPECT_EQ(tensors[0].record.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(tensors[0].strides.empty());
  EXPECT_EQ(Copy(tensors[0]), Fp32Bytes({1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Copy(tensors[1]), Fp32Bytes({1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(tensors[2].record.dtype_name, "F16");
  EXPECT_EQ(Copy(tensors[2]), "bbcc");
  EXPECT_EQ(file.substr(tensors[2].record.offset, 4), "bbcc");
}

TEST(TorchFileTest, ReadsArchivesAndTheOlderFormat) {
  ExpectExample(TorchArchive(Example()));
  ExpectExample(TorchArchive(Example(), /*zip64=*/true));
  ExpectExample(OldTorchFile(Example()));
}

TEST(TorchFileTest, ReadsWhatIsNestedUnderModel) {
  TorchContent content = Example();
  content.nested_under = "model";
  ExpectExample(TorchArchive(content));
  content.nested_under = "optimizer";
  EXPECT_THAT(
      Parse(TorchArchive(content)),
      HasReason(Reason::kModelFileInvalid, HasSubstr("a dict of tensors")));
}

TEST(TorchFileTest, ReadsWhatCPythonPickles) {
  for (const char* const name : {"archive.bin", "old.bin"}) {
    const std::string file = testing::ReadFile(
        testing::RepositoryPath(StrCat("tests/data/formats/torch/", name)));
    ASSERT_OK_AND_ASSIGN(const auto tensors, Parse(file));
    ASSERT_EQ(tensors.size(), 4u) << name;
    EXPECT_EQ(tensors[0].record.name, "whole");
    EXPECT_EQ(Copy(tensors[0]), Fp32Bytes({0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(tensors[1].record.name, "transposed");
    EXPECT_EQ(Copy(tensors[1]), Fp32Bytes({0, 3, 1, 4, 2, 5}));
    EXPECT_EQ(tensors[2].record.name, "slice");
    EXPECT_EQ(tensors[2].record.dtype_name, "BF16");
    EXPECT_EQ(Copy(tensors[2]), testing::Bf16Bytes({2, 3}));
    EXPECT_EQ(tensors[3].record.name, "scalar");
    EXPECT_EQ(tensors[3].record.dtype_name, "I64");
    EXPECT_EQ(Copy(tensors[3]), Bytes(7, 8));
  }
}

TEST(TorchFileTest, TensorsOutsideTheirStorageAreRefused) {
  struct Case {
    std::vector<int64_t> sizes, strides;
    int64_t offset;
    const char* message;
  };
  const Case cases[] = {
      {{7}, {1}, 0, "6 elements"},
      {{2, 3}, {3, 1}, 1, "element 1"},
      {{2, 3}, {4, 1}, 0, "6 elements"},
      {{1 << 20, 1 << 20}, {0, 0}, 0, "6 elements"},
      {{2, 3}, {3, 1}, -1, "at least 0"},
      {{-1}, {1}, 0, "[0, 2^60)"},
      {{2}, {-1}, 0, "[0, 2^60)"},
      {{2, 3}, {1}, 0, "as many as sizes"},
      {{int64_t{1} << 40, int64_t{1} << 40}, {0, 1}, 0, "6 elements"},
      {{1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, "at most"},
      {{2}, {int64_t{1} << 59}, 0, "6 elements"},
  };
  for (const Case& c : cases) {
    TorchContent content = Example();
    content.tensors[1].sizes = c.sizes;
    content.tensors[1].strides = c.strides;
    content.tensors[1].offset = c.offset;
    EXPECT_THAT(
        Parse(TorchArchive(content)),
        HasReason(Reason::kModelFileInvalid,
                  AllOf(HasSubstr("m.bin: tensor b"), HasSubstr(c.message))))
        << c.message;
  }
}

TEST(TorchFileTest, BrokenFilesAreRefusedNamingWhatIsWrong) {
  TorchContent missing = Example();
  missing.tensors[0].storage = "9";
  TorchContent twice = Example();
  twice.tensors[1].name = "a";
  TorchContent unknown = Example();
  unknown.tensors[0].storage_class = "QInt8Storage";
  TorchContent shorter = Example();
  shorter.tensors[2].storage_class = "FloatStorage";
  struct Case {
    std::string file;
    const char* message;
  };
  const Case cases[] = {
      {"", "first bytes"},
      {"hello, world", "first bytes"},
      {TorchArchive(missing), "tensor a: storage"},
      {TorchArchive(twice), "tensor a: name"},
      {TorchArchive(unknown), "torch.QInt8Storage"},
      {TorchArchive(shorter), "tensor c: storage"},
      {testing::ZipArchive({{"a/data.pkl", "N."}}), "a dict of tensors"},
      {testing::ZipArchive({{"a/other", "N."}}), "data.pkl"},
      {testing::ZipArchive({{"a/data.pkl", "}."}, {"a/byteorder", "big"}}),
       "byteorder"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(Parse(c.file),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("m.bin"), HasSubstr(c.message))))
        << c.message;
  }
}

TEST(TorchFileTest, EveryPrefixOfAFileIsRefused) {
  for (const std::string& file :
       {TorchArchive(Example()), OldTorchFile(Example())}) {
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_THAT(Parse(file.substr(0, size)),
                  HasReason(Reason::kModelFileInvalid, HasSubstr("m.bin")))
          << size;
    }
  }
}

}  // namespace
}  // namespace caravan::worker
