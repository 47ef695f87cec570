#include "worker/bench/cells.h"

#include <gtest/gtest.h>

#include "common/status/errors.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/bench/cell_bench.h"

namespace caravan::worker::bench {
namespace {

TEST(CellsTest, FiguresGetHarderFromGoodToLeadToRoof) {
  for (const Cell& cell : ModelCells()) {
    EXPECT_LT(cell.lead, cell.good) << cell.name;
    EXPECT_LT(cell.roof, cell.lead) << cell.name;
  }
}

TEST(CellsTest, NamesChooseCells) {
  ASSERT_OK_AND_ASSIGN(const std::vector<Cell> all, CellsNamed(""));
  EXPECT_EQ(all.size(), ModelCells().size() - 4);  // fp8 and q4_0
  ASSERT_OK_AND_ASSIGN(const std::vector<Cell> fp8, CellsNamed("C5"));
  ASSERT_EQ(fp8.size(), 2u);
  EXPECT_EQ(fp8[1].weights, WeightTypes(WeightType::kFp8));
  ASSERT_OK_AND_ASSIGN(const std::vector<Cell> two, CellsNamed("C7,C1"));
  ASSERT_EQ(two.size(), 3u);
  EXPECT_EQ(two[1].context, 8192);
  EXPECT_EQ(two[2].name, "C1");
  for (const char* wrong : {"C8", "C1,", ",", "c1", "C1 "}) {
    EXPECT_EQ(ReasonOf(CellsNamed(wrong).status()), Reason::kInvalidField)
        << wrong;
  }
}

TEST(CellsTest, GradesFollowTheFigures) {
  CellResult result;
  result.cell = ModelCells()[0];
  result.value = result.cell.lead;
  EXPECT_EQ(GradeOf(result), "lead");
  result.value = result.cell.good;
  EXPECT_EQ(GradeOf(result), "good");
  result.value = result.cell.good + 0.01;
  EXPECT_EQ(GradeOf(result), "below");
  result.error = "no memory";
  EXPECT_EQ(GradeOf(result), "");
}

TEST(CellsTest, TheTableSaysWhatTheSharesAreOf) {
  CellResult step;
  step.cell = ModelCells()[0];
  step.value = 5.0;
  step.tokens = 1;
  step.bytes = 15e9;
  step.flops = 16e9;
  CellResult gap;
  gap.cell = CellsNamed("C12")->front();
  gap.value = 0.025;
  const CellCeilings ceilings = {"a card", 3e12, 2.8e12, 6.4e14, "large GEMM"};
  const std::vector<CellResult> results = {step, gap};
  const std::string table =
      CellTable("class", ceilings, results, WeightType::kBf16);
  for (const char* part :
       {"class on a card", "read 3000.0 GB/s", "copy 2800.0 GB/s",
        "large GEMM 640.00 TFLOP/s", "decode 1 x 512", "5.000 ms 90%",
        "200 tok/s", "3000.0 GB/s 100 %", "3.20 TF/s   0 %", "lead",
        "host gap 1 x 512", "2.5 %", "3.0 % / 1.0 %", "good", "not here: C9"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  }
  for (const WeightTypes judged :
       {WeightTypes(), WeightTypes(WeightType::kFp8)}) {
    const std::string other = CellTable("class", ceilings, results, judged);
    EXPECT_EQ(other.find("3.0 % / 1.0 %"), std::string::npos) << other;
  }
}

TEST(CellsTest, ASmallModelIsMeasuredOnTheProcessor) {
  CellBenchOptions options;
  options.model_directory = testing::RepositoryPath("deploy/demo-model");
  options.device = "cpu";
  options.blocks = 2;
  options.steps = 2;
  options.max_step_tokens = 16;
  options.probe_bytes = size_t{1} << 22;
  options.cells = {{"D1", CellKind::kDecode, 2, 20, 0, 0, 0},
                   {"P1", CellKind::kPrefill, 1, 40, 0, 0, 0},
                   {"G1", CellKind::kHostGap, 2, 20, 0, 0, 0}};
  int notes = 0;
  ASSERT_OK_AND_ASSIGN(
      const std::string table,
      RunCellBench(options, [&](const std::string&) { ++notes; }));
  EXPECT_EQ(notes, 3);
  for (const char* part : {"decode 2 x 20", "prefill 40", "host gap 2 x 20"}) {
    EXPECT_NE(table.find(part), std::string::npos) << table;
  }
  options.max_step_tokens = 1;
  EXPECT_EQ(ReasonOf(RunCellBench(options, nullptr).status()),
            Reason::kInvalidField);
  options.device = "tpu";
  EXPECT_EQ(ReasonOf(RunCellBench(options, nullptr).status()),
            Reason::kInvalidField);
}

}  // namespace
}  // namespace caravan::worker::bench
