#include "worker/ops/cuda/gemm_algorithms.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace caravan::worker::cuda {
namespace {

GemmSite Site() { return {"cublasLt 130100", "13000", "H100, sm90, 132 SMs"}; }

GemmAlgorithms Measured() {
  GemmAlgorithms algorithms(Site());
  algorithms.Put({.rows = 6144, .columns = 4096, .tokens = 8},
                 {{{1, 2, 3, 4, 5, 6, 7, ~uint64_t{0}}, 1 << 20}, 21.5e-6});
  algorithms.Put({.rows = 4096, .columns = 14336, .tokens = 96, .adds = true},
                 {{{9}, 0}, 0.1 + 0.2});
  return algorithms;
}

// The file after `change`, with a sum that is right.
template <typename Change>
std::string Forged(Change change) {
  std::string text = Measured().Serialize();
  text.resize(text.rfind("crc32c "));
  change(text);
  char sum[24];
  std::snprintf(sum, sizeof(sum), "crc32c %08x\n",
                Crc32c(std::as_bytes(std::span(text))));
  return text + sum;
}

void Replace(std::string& text, const std::string& from,
             const std::string& to) {
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
}

absl::Status ParseStatus(const std::string& text) {
  return GemmAlgorithms::Parse(text, "FILE", Site()).status();
}

TEST(GemmAlgorithmsTest, BucketsAreRoundedUpAndStayWhereTheyAre) {
  EXPECT_EQ(
      GemmTokenBuckets(200),
      (std::vector<int32_t>{1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256}));
  EXPECT_EQ(GemmTokenBucket(33), 48);
  EXPECT_EQ(GemmTokenBucket(49), 64);
  for (int32_t tokens = 1; tokens <= kMaxGemmTokens; ++tokens) {
    const int32_t bucket = GemmTokenBucket(tokens);
    ASSERT_GE(bucket, tokens);
    ASSERT_EQ(GemmTokenBucket(bucket), bucket);
  }
  EXPECT_EQ(GemmTokenBuckets(1 << 20).back(), kMaxGemmTokens);
  EXPECT_TRUE(GemmTokenBuckets(0).empty());
}

TEST(GemmAlgorithmsTest, NoiseDoesNotOverruleTheLibrarysGuess) {
  EXPECT_EQ(FastestOf(std::vector<double>{1.0, 0.995, 1.2}), 0u);
  EXPECT_EQ(FastestOf(std::vector<double>{1.0, 0.9, 0.895}), 1u);
  EXPECT_EQ(FastestOf(std::vector<double>{3.0, 2.0, 1.0}), 2u);
}

TEST(GemmAlgorithmsTest, AFileGivesBackWhatWasMeasured) {
  const testing::TemporaryDirectory directory;
  const std::string path = StrCat(directory.path(), "/algorithms");
  ASSERT_OK(Measured().Save(path));
  ASSERT_OK_AND_ASSIGN(const GemmAlgorithms read,
                       GemmAlgorithms::Load(path, Site()));
  EXPECT_EQ(read, Measured());
  EXPECT_EQ(read.Find({.rows = 6144, .columns = 4096, .tokens = 16}), nullptr);
  EXPECT_EQ(ReasonOf(GemmAlgorithms::Load(path + "x", Site()).status()),
            Reason::kNotFound);
  EXPECT_FALSE(Measured().Save(path + "/below/a/file").ok());
}

TEST(GemmAlgorithmsTest, TheDigestTellsAlgorithmsAndSitesApartButNotTimes) {
  const std::string digest = Measured().Digest();
  EXPECT_EQ(digest.size(), 8U);
  const GemmKey key = {.rows = 6144, .columns = 4096, .tokens = 8};
  GemmAlgorithms slower = Measured();
  GemmAlgorithms::Entry entry = *slower.Find(key);
  entry.seconds *= 2;
  slower.Put(key, entry);
  EXPECT_EQ(slower.Digest(), digest);
  entry.algorithm.words[0] = 77;
  slower.Put(key, entry);
  EXPECT_NE(slower.Digest(), digest);
  EXPECT_NE(GemmAlgorithms(Site()).Digest(),
            GemmAlgorithms({"cublasLt 130200", "13000", "H100"}).Digest());
}

TEST(GemmAlgorithmsTest, FilesOfAnotherSiteAreRefusedByName) {
  GemmSite site = Site();
  site.driver = "13010";
  site.card = "H200";
  const absl::Status status =
      GemmAlgorithms::Parse(Measured().Serialize(), "FILE", site).status();
  EXPECT_EQ(ReasonOf(status), Reason::kIdentityMismatch);
  EXPECT_EQ(status.message(),
            "FILE: measured with driver 13000 (here 13010), card H100, sm90, "
            "132 SMs (here H200)");
}

TEST(GemmAlgorithmsTest, EveryTornOrChangedFileIsRefused) {
  const std::string whole = Measured().Serialize();
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(ReasonOf(ParseStatus(whole.substr(0, bytes))),
              Reason::kInvalidField)
        << bytes;
    std::string changed = whole;
    changed[bytes] ^= 1;
    EXPECT_EQ(ReasonOf(ParseStatus(changed)), Reason::kInvalidField) << bytes;
  }
  EXPECT_FALSE(ParseStatus(whole + "\n").ok());
  EXPECT_FALSE(ParseStatus(std::string(2 << 20, 'x')).ok());
}

TEST(GemmAlgorithmsTest, HostileFieldsAreRefusedByTheirLine) {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"bf16 6144", "fp64 6144"},
      {"6144 4096", "0 4096"},
      {"6144 4096", "6144 99999999"},
      {"6144 4096", "6144 -1"},
      {"6144 4096", "6144  4096"},
      {"4096 8 ", "4096 7 9 "},
      {"4096 8 ", "4096 5000 "},
      {"4096 8 ", "4096 33 "},
      {" store ", " erase "},
      {" 2.15e-05 ", " -1 "},
      {" 2.15e-05 ", " nan "},
      {" 2.15e-05 ", " inf "},
      {" 2.15e-05 ", " 0 "},
      {" 1048576 ", " -1 "},
      {" 1048576 ", " 33554433 "},
      {" 1048576 ", " 1e6 "},
      {"ffffffffffffffff", "fffffff"},
      {"ffffffffffffffff", "fffffffffffffffg"},
      {"ffffffffffffffff\n", "ffffffffffffffff 0\n"},
  };
  for (const auto& [from, to] : changes) {
    const absl::Status status = ParseStatus(
        Forged([&](std::string& text) { Replace(text, from, to); }));
    EXPECT_EQ(ReasonOf(status), Reason::kInvalidField) << to;
    EXPECT_TRUE(status.message().find("FILE: line 6") !=
                absl::string_view::npos)
        << to << ": " << status;
  }
}

TEST(GemmAlgorithmsTest, ProductsStandInAFileOnceAndAreNotTooMany) {
  const auto repeat = [](int count) {
    return Forged([&](std::string& text) {
      const size_t line = text.find("bf16 6144");
      for (int i = 0; i < count; ++i) text += text.substr(line);
    });
  };
  EXPECT_FALSE(ParseStatus(repeat(1)).ok());
  GemmAlgorithms many(Site());
  for (int32_t rows = 1; rows <= 4097; ++rows) {
    many.Put({.rows = rows, .columns = 1, .tokens = 1}, {{}, 1.0});
  }
  EXPECT_FALSE(ParseStatus(many.Serialize()).ok());
}

TEST(GemmAlgorithmsTest, FilesWithoutTheirHeadAreRefused) {
  for (const std::string what :
       {"caravan gemm", "library ", "driver ", "card "}) {
    const absl::Status status = ParseStatus(
        Forged([&](std::string& text) { Replace(text, what, "other "); }));
    EXPECT_EQ(ReasonOf(status), Reason::kInvalidField) << what;
  }
}

}  // namespace
}  // namespace caravan::worker::cuda
