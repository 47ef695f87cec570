#include "worker/bench/engine_bench.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/bench/ceilings.h"

namespace caravan::worker::bench {
namespace {

using caravan::testing::HasReason;
using caravan::testing::RepositoryPath;

EngineBenchOptions Small() {
  EngineBenchOptions options;
  options.model_directory = RepositoryPath("deploy/demo-model");
  options.cpu.threads = 2;
  options.batches = {1, 3};
  options.prefill_tokens = 40;
  options.prompt_tokens = 9;
  options.output_tokens = 6;
  return options;
}

TEST(EngineBenchTest, ReportsEverySampleBesideItsCeilings) {
  std::vector<std::string> lines;
  ASSERT_OK_AND_ASSIGN(const EngineBenchReport report,
                       RunEngineBench(Small(), [&](const std::string& line) {
                         lines.push_back(line);
                       }));
  ASSERT_EQ(report.decode.size(), 2u);
  ASSERT_EQ(report.prefill.size(), 1u);
  EXPECT_EQ(lines.size(), 3u);
  for (const DecodeSample& sample : report.decode) {
    EXPECT_GT(sample.tokens_per_second, 0);
    EXPECT_GT(sample.whole_tokens_per_second, 0);
    EXPECT_GT(sample.ceilings.read_bytes_per_second, 0);
    EXPECT_GT(sample.ceilings.fma_per_second, 0);
  }
  EXPECT_GT(report.prefill[0].tokens_per_second, 0);
  EXPECT_THAT(ToText(report), ::testing::HasSubstr("a:fp32/kv:fp32"));
  EXPECT_THAT(ToJson(report), ::testing::HasSubstr("\"streams\":3"));
}

TEST(EngineBenchTest, RefusesFieldsOutOfRange) {
  EngineBenchOptions options = Small();
  options.output_tokens = 1;
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
  options = Small();
  options.batches = {0};
  EXPECT_THAT(options.Validate(), HasReason(Reason::kInvalidField));
}

TEST(CeilingsTest, NamesTheBestPatternOfReading) {
  ASSERT_OK_AND_ASSIGN(const auto ceilings,
                       Ceilings::Create(2, size_t{8} << 20));
  const ReadCeiling read = ceilings->Read(1);
  EXPECT_GT(read.bytes_per_second, 1e8);
  EXPECT_FALSE(read.pattern.empty());
}

}  // namespace
}  // namespace caravan::worker::bench
