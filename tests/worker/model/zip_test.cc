#include "worker/model/zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/torch_file_writer.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::ZipArchive;

absl::StatusOr<std::vector<ZipMember>> Parse(const std::string& bytes) {
  return ParseZip(std::as_bytes(std::span(bytes)), "m.pth");
}

TEST(ZipTest, MembersAreWhereTheDirectorySays) {
  for (const bool zip64 : {false, true}) {
    const std::string bytes =
        ZipArchive({{"a/data.pkl", "pickle"}, {"a/data/0", "0123"}}, zip64);
    ASSERT_OK_AND_ASSIGN(const auto members, Parse(bytes));
    ASSERT_EQ(members.size(), 2u);
    EXPECT_EQ(members[0].name, "a/data.pkl");
    EXPECT_EQ(bytes.substr(members[0].offset, members[0].bytes), "pickle");
    EXPECT_EQ(bytes.substr(members[1].offset, members[1].bytes), "0123");
  }
}

TEST(ZipTest, ACommentBehindTheDirectoryIsReadOver) {
  std::string bytes = ZipArchive({{"a", "1"}});
  bytes.replace(bytes.size() - 2, 2, Bytes(5, 2));
  ASSERT_OK_AND_ASSIGN(const auto members, Parse(bytes + "hello"));
  EXPECT_EQ(members.size(), 1u);
}

TEST(ZipTest, CompressedMembersAreRefusedByName) {
  EXPECT_THAT(Parse(ZipArchive({{"a/data.pkl", "x", /*method=*/8}})),
              HasReason(Reason::kModelFileInvalid,
                        AllOf(HasSubstr("m.pth"), HasSubstr("a/data.pkl"),
                              HasSubstr("method 8"))));
}

TEST(ZipTest, MembersOfOneNameAreRefused) {
  EXPECT_THAT(Parse(ZipArchive({{"a", "1"}, {"a", "2"}})),
              HasReason(Reason::kModelFileInvalid, HasSubstr("another")));
}

TEST(ZipTest, MembersThatShareBytesAreRefused) {
  std::string bytes = ZipArchive({{"a", "1"}, {"b", "2"}});
  const size_t second = bytes.rfind(Bytes(0x02014b50, 4));
  bytes.replace(second + 42, 4, Bytes(0, 4));  // b's header is a's
  EXPECT_THAT(Parse(bytes),
              HasReason(Reason::kModelFileInvalid, HasSubstr("overlap")));
}

TEST(ZipTest, AMemberThatReachesIntoTheDirectoryIsRefused) {
  std::string bytes = ZipArchive({{"a", "1234"}});
  const size_t entry = bytes.rfind(Bytes(0x02014b50, 4));
  bytes.replace(entry + 20, 4, Bytes(5, 4));
  bytes.replace(entry + 24, 4, Bytes(5, 4));
  EXPECT_THAT(Parse(bytes), HasReason(Reason::kModelFileInvalid,
                                      HasSubstr("before the directory")));
}

TEST(ZipTest, EveryPrefixOfAnArchiveIsRefused) {
  for (const bool zip64 : {false, true}) {
    const std::string bytes = ZipArchive({{"a", "12"}, {"b", "3"}}, zip64);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_THAT(Parse(bytes.substr(0, size)),
                  HasReason(Reason::kModelFileInvalid, HasSubstr("m.pth")))
          << size;
    }
  }
}

}  // namespace
}  // namespace caravan::worker
