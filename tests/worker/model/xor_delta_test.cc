#include "worker/model/xor_delta.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "worker/model/hashing.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::ReadFile;
using testing::TemporaryDirectory;

constexpr size_t kChunk = size_t{10} << 20;

std::string Pattern(size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (char& c : text) {
    seed = seed * 1664525u + 1013904223u;
    c = static_cast<char>(seed >> 24);
  }
  return text;
}

// The 32 bytes of a sum in hex.
std::string Raw(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// What BELLE's tool makes, written from its description: byte i of a chunk of
// the data meets byte i of the key's chunk, cyclically.
std::string Encrypt(const std::string& plain, const std::string& key) {
  const size_t key_chunks = (key.size() + kChunk - 1) / kChunk;
  std::string out = Raw(Sha256Hex(plain));
  for (size_t i = 0; i < plain.size(); ++i) {
    const size_t chunk = i / kChunk % key_chunks;
    const size_t size = std::min(kChunk, key.size() - chunk * kChunk);
    out +=
        static_cast<char>(plain[i] ^ key[chunk * kChunk + i % kChunk % size]);
  }
  return out;
}

TEST(XorDeltaTest, EncryptedFilesAreRestoredAndVerified) {
  const TemporaryDirectory base, delta, out;
  const std::string key = Pattern(kChunk + 1000, 1);
  const std::string plain = Pattern(3 * kChunk + 7, 2);
  base.Write("consolidated.00.pth", key);
  delta.Write(StrCat("model.bin.", std::string(64, 'a'), ".enc"),
              Encrypt(plain, key));
  delta.Write("config.json", "{}");
  ASSERT_OK_AND_ASSIGN(const XorReport report,
                       ApplyXor(base.path(), delta.path(), out.File("a")));
  EXPECT_EQ(report.checked_files, 1);
  EXPECT_EQ(report.copied_files, 1);
  EXPECT_EQ(report.bytes, plain.size() + 2);
  EXPECT_TRUE(ReadFile(out.File("a/model.bin")) == plain);
  EXPECT_EQ(ReadFile(out.File("a/config.json")), "{}");
}

TEST(XorDeltaTest, TheWrongBaseIsAnErrorAndLeavesNoFile) {
  const TemporaryDirectory base, delta, out;
  const std::string path =
      delta.Write(StrCat("m.bin.", std::string(64, '0'), ".enc"),
                  Encrypt("weights", "key"));
  const std::string key = base.Write("key", "other");
  EXPECT_THAT(ApplyXor(key, path, out.File("a")),
              HasReason(Reason::kModelFileInvalid,
                        AllOf(HasSubstr("SHA-256"), HasSubstr(key))));
  EXPECT_FALSE(std::filesystem::exists(out.File("a/m.bin")));
  ASSERT_OK(ApplyXor(base.Write("key", "key"), path, out.File("b")));
  EXPECT_EQ(ReadFile(out.File("b/m.bin")), "weights");
}

TEST(XorDeltaTest, FilesOfOneNameMeetEachOther) {
  const TemporaryDirectory base, delta, out;
  base.Write("a.bin", "\x01\x02\x03");
  delta.Write("a.bin", "\x10\x20\x30\x40");
  delta.Write("b.bin", "as it is");
  ASSERT_OK_AND_ASSIGN(const XorReport report,
                       ApplyXor(base.path(), delta.path(), out.File("a")));
  EXPECT_EQ(report.xored_files, 1);
  EXPECT_EQ(report.copied_files, 1);
  EXPECT_EQ(ReadFile(out.File("a/a.bin")), "\x11\x22\x33\x40");
  EXPECT_EQ(ReadFile(out.File("a/b.bin")), "as it is");
}

TEST(XorDeltaTest, WhatCannotBeMeantIsRefused) {
  const TemporaryDirectory base, delta, out;
  base.Write("a.bin", "123");
  delta.Write("a.bin", "\x1f\x8b\x08");
  EXPECT_THAT(ApplyXor(base.path(), delta.path(), out.File("a")),
              HasReason(Reason::kModelFileInvalid, HasSubstr("compressed")));
  EXPECT_THAT(ApplyXor(base.path(), delta.path(), base.path()),
              HasReason(Reason::kInvalidField, HasSubstr("DST")));
  EXPECT_THAT(ApplyXor(base.File("none"), delta.path(), out.File("b")),
              HasReason(Reason::kModelFileInvalid, HasSubstr("none")));
  EXPECT_THAT(ApplyXor(base.path(), delta.File("none"), out.File("c")),
              HasReason(Reason::kModelFileInvalid, HasSubstr("none")));
}

}  // namespace
}  // namespace caravan::worker
