#include "worker/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>

#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;

// A file of `header` and `data`, its length field optionally another one.
std::string File(std::string_view header, std::string_view data,
                 std::optional<uint64_t> claimed = {}) {
  const uint64_t length = claimed.value_or(header.size());
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i));
  return StrCat(bytes, header, data);
}

absl::StatusOr<std::vector<TensorRecord>> Parse(const std::string& bytes) {
  return ParseSafetensors(std::as_bytes(std::span(bytes)), "m.safetensors");
}

std::string Entry(std::string_view name, std::string_view dtype,
                  std::string_view shape, int begin, int end) {
  return StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                ",\"data_offsets\":[", begin, ",", end, "]}");
}

TEST(SafetensorsTest, ReadsTensorsInAnyOrderOfTheHeader) {
  const std::string bytes =
      File(StrCat("{\"__metadata__\":{\"format\":\"pt\"},",
                  Entry("b", "BF16", "[2,2]", 4, 12), ",",
                  Entry("a", "F32", "[1]", 0, 4), "}  "),
           "0123456789ab");
  ASSERT_OK_AND_ASSIGN(const auto tensors, Parse(bytes));
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype(), DType::kFp32);
  EXPECT_EQ(static_cast<char>(tensors[0].data[0]), '0');
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(static_cast<char>(tensors[1].data[0]), '4');
}

TEST(SafetensorsTest, ScalarsAndEmptyTensorsAreLegal) {
  ASSERT_OK_AND_ASSIGN(
      const auto tensors,
      Parse(File(StrCat("{", Entry("s", "F32", "[]", 0, 4), ",",
                        Entry("e", "F32", "[0,5]", 4, 4), ",",
                        Entry("i", "I64", "[1]", 4, 12), "}"),
                 "0123456789ab")));
  EXPECT_EQ(tensors.size(), 3u);
  EXPECT_FALSE(tensors[2].dtype().has_value());
}

TEST(SafetensorsTest, HostileFilesAreRefusedNamingFileTensorAndOffset) {
  const std::string ok = StrCat("{", Entry("a", "F32", "[2]", 0, 8), "}");
  struct Case {
    const char* what;
    std::string bytes;
    const char* message;
  };
  const Case cases[] = {
      {"empty", "", "at least 8 bytes; got 0"},
      {"cut in the length", "abc", "got 3"},
      {"huge header", File(ok, "", uint64_t{1} << 60), "1152921504606846976"},
      {"header just too long", File(ok, "", 100'000'001), "100000000"},
      {"header past the end", File(ok, "", 5000), "inside the file"},
      {"no JSON", File("{\"a\":", ""), "broken JSON"},
      {"no object", File("[1]", ""), "a JSON object"},
      {"too deep", File("{\"a\":[[[[[]]]]]}", ""), "depth"},
      {"truncated data", File(ok, "1234567"), "inside the data of 7 bytes"},
      {"data after the last tensor", File(ok, "123456789"), "the file's end"},
      {"overlap",
       File(StrCat("{", Entry("a", "F32", "[2]", 0, 8), ",",
                   Entry("b", "F32", "[2]", 4, 12), "}"),
            "0123456789ab"),
       "overlap"},
      {"hole",
       File(StrCat("{", Entry("a", "F32", "[1]", 0, 4), ",",
                   Entry("b", "F32", "[1]", 8, 12), "}"),
            "0123456789ab"),
       "hole"},
      {"unknown dtype",
       File(StrCat("{", Entry("a", "F31", "[2]", 0, 8), "}"), "01234567"),
       "tensor a: dtype"},
      {"size unlike shape",
       File(StrCat("{", Entry("a", "F32", "[3]", 0, 8), "}"), "01234567"),
       "12 bytes by shape"},
      {"shape that overflows",
       File(
           StrCat("{",
                  Entry("a", "F32", "[4294967296,4294967296,4294967296]", 0, 8),
                  "}"),
           "01234567"),
       "2^62"},
      {"negative size",
       File(StrCat("{", Entry("a", "F32", "[-2]", 0, 8), "}"), "01234567"),
       "shape"},
      {"negative offset",
       File(StrCat("{", Entry("a", "F32", "[2]", -8, 8), "}"), "01234567"),
       "data_offsets"},
      {"end before begin",
       File(StrCat("{", Entry("a", "F32", "[0]", 8, 0), "}"), "01234567"),
       "data_offsets"},
      {"entry is no object", File("{\"a\":3}", ""), "entry"},
      {"no offsets", File("{\"a\":{\"dtype\":\"F32\",\"shape\":[0]}}", ""),
       "data_offsets"},
      {"fractional shape",
       File(StrCat("{", Entry("a", "F32", "[2.0]", 0, 8), "}"), "01234567"),
       "shape"},
      {"nine dimensions",
       File(StrCat("{", Entry("a", "F32", "[1,1,1,1,1,1,1,1,2]", 0, 8), "}"),
            "01234567"),
       "at most 8 sizes"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(Parse(c.bytes), HasReason(Reason::kModelFileInvalid,
                                          AllOf(HasSubstr("m.safetensors"),
                                                HasSubstr(c.message))))
        << c.what;
  }
}

TEST(SafetensorsTest, EveryPrefixOfAFileIsRefused) {
  const std::string bytes = testing::ReadFile(testing::RepositoryPath(
      "tests/data/tiny/sharded/model-00003-of-00003.safetensors"));
  ASSERT_OK(Parse(bytes));
  for (size_t size = 0; size < bytes.size(); size += size < 2000 ? 1 : 997) {
    EXPECT_THAT(Parse(bytes.substr(0, size)),
                HasReason(Reason::kModelFileInvalid))
        << size;
  }
}

class CheckpointTest : public ::testing::Test {
 protected:
  // Two shards, each with one tensor, and an index with this weight map.
  absl::Status Open(std::string_view weight_map) {
    directory_.Write(
        "one.safetensors",
        File(StrCat("{", Entry("a", "F32", "[1]", 0, 4), "}"), "0123"));
    directory_.Write(
        "two.safetensors",
        File(StrCat("{", Entry("b", "F32", "[1]", 0, 4), "}"), "4567"));
    directory_.Write("model.safetensors.index.json",
                     StrCat("{\"weight_map\":", weight_map, "}"));
    return Checkpoint::Open(directory_.path()).status();
  }

  testing::TemporaryDirectory directory_;
};

TEST_F(CheckpointTest, ShardsAreJoined) {
  EXPECT_OK(Open(R"({"a":"one.safetensors","b":"two.safetensors"})"));
}

TEST_F(CheckpointTest, IndexThatLiesIsRefused) {
  EXPECT_THAT(Open(R"({"a":"two.safetensors","b":"two.safetensors"})"),
              HasReason(Reason::kModelFileInvalid, HasSubstr("tensor a")));
  EXPECT_THAT(
      Open(R"({"a":"three.safetensors"})"),
      HasReason(Reason::kModelFileInvalid, HasSubstr("three.safetensors")));
  EXPECT_THAT(Open(R"({"a":"../../etc/passwd"})"),
              HasReason(Reason::kModelFileInvalid, HasSubstr("same folder")));
  EXPECT_THAT(Open(R"({"a":3})"),
              HasReason(Reason::kModelFileInvalid, HasSubstr("tensor a")));
  EXPECT_THAT(Open("3"),
              HasReason(Reason::kModelFileInvalid, HasSubstr("weight_map")));
}

TEST_F(CheckpointTest, TensorInTwoFilesIsRefused) {
  directory_.Write("three.safetensors",
                   File(StrCat("{", Entry("a", "F32", "[1]", 0, 4), ",",
                               Entry("c", "F32", "[1]", 4, 8), "}"),
                        "01234567"));
  EXPECT_THAT(Open(R"({"a":"one.safetensors","c":"three.safetensors"})"),
              HasReason(Reason::kModelFileInvalid, HasSubstr("tensor a")));
}

TEST_F(CheckpointTest, DirectoryWithoutWeightsIsNotFound) {
  EXPECT_THAT(Checkpoint::Open(directory_.path()),
              HasReason(Reason::kNotFound, HasSubstr("model.safetensors")));
}

TEST_F(CheckpointTest, FolderInPlaceOfAFileIsRefused) {
  std::filesystem::create_directory(directory_.File("model.safetensors"));
  EXPECT_THAT(Checkpoint::Open(directory_.path()),
              HasReason(Reason::kModelFileInvalid));
}

}  // namespace
}  // namespace caravan::worker
