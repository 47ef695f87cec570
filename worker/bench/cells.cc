#include "worker/bench/cells.h"

#include <array>
#include <cstdio>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker::bench {
namespace {

const std::array<Cell, 12> kCells = {{
    {"C1", CellKind::kDecode, 1, 512, 4.50, 6.25, 5.6},
    {"C2", CellKind::kDecode, 8, 2048, 5.12, 7.5, 6.7},
    {"C3", CellKind::kDecode, 64, 2048, 9.61, 14.1, 12.6},
    {"C4", CellKind::kDecode, 256, 512, 9.61, 16.0, 13.7},
    {"C5", CellKind::kDecode, 1, 512, 2.41, 3.9, 3.45, WeightType::kFp8},
    {"C5", CellKind::kDecode, 64, 2048, 4.96, 8.55, 7.3, WeightType::kFp8},
    {"C6", CellKind::kDecode, 1, 512, 1.41, 2.8, 2.27, WeightType::kQ4_0},
    {"C6", CellKind::kDecode, 16, 512, 1.71, 3.8, 3.1, WeightType::kQ4_0},
    {"C7", CellKind::kPrefill, 1, 2048, 37.2, 49.6, 43.8},
    {"C7", CellKind::kPrefill, 1, 8192, 165, 220, 194},
    {"C12", CellKind::kHostGap, 1, 512, 0, 0.03, 0.01},
    {"C12", CellKind::kHostGap, 64, 2048, 0, 0.03, 0.01},
}};

constexpr std::array<std::string_view, 4> kOthers = {
    "C8: attention of one layer, by gpu_bench",
    "C9: serving, by caravan bench on a running suite",
    "C10: the quotient of C1 and C3 with --profile exact and fast",
    "C11: sampling, by gpu_bench",
};

// A row of the table. Columns are as wide as the head's.
std::string Row(const char* cell, const char* what, const std::string& value,
                const std::string& spread, const std::string& rate,
                const std::string& shares, const std::string& figures,
                const std::string& grade) {
  char line[256];
  std::snprintf(line, sizeof(line),
                "%-4s %-22s %10s %7s %11s  %-33s %-22s %s\n", cell, what,
                value.c_str(), spread.c_str(), rate.c_str(), shares.c_str(),
                figures.c_str(), grade.c_str());
  return line;
}

std::string Number(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string WhatOf(const Cell& cell) {
  switch (cell.kind) {
    case CellKind::kDecode:
      return StrCat("decode ", cell.streams, " x ", cell.context);
    case CellKind::kPrefill:
      return StrCat("prefill ", cell.context);
    case CellKind::kHostGap:
      return StrCat("host gap ", cell.streams, " x ", cell.context);
  }
  return "";
}

std::string InUnit(const Cell& cell, double value) {
  return cell.kind == CellKind::kHostGap ? Number("%.1f %%", 100 * value)
                                         : Number("%.3f ms", value);
}

std::string Share(double rate, double ceiling) {
  return ceiling > 0 ? Number("%3.0f %%", 100 * rate / ceiling) : "  -";
}

// "2510 GB/s 83 %, 12.3 TFLOP/s 2 %".
std::string SharesOf(const CellResult& result, const CellCeilings& ceilings) {
  if (result.cell.kind == CellKind::kHostGap) return "";
  const double seconds = result.value / 1e3;
  const double bytes = result.bytes / seconds;
  const double flops = result.flops / seconds;
  return StrCat(
      Number("%.1f GB/s ", bytes / 1e9), Share(bytes, ceilings.read_bytes),
      Number(", %.2f TF/s ", flops / 1e12), Share(flops, ceilings.flops));
}

std::string RowOf(const CellResult& result, const CellCeilings& ceilings,
                  WeightTypes of) {
  const Cell& cell = result.cell;
  const bool judged = !of.empty() && of == cell.weights;
  const std::string name(cell.name);
  const std::string what = WhatOf(cell);
  if (!result.error.empty()) {
    return StrCat(name, " ", what, ": ", result.error, "\n");
  }
  const bool gap = cell.kind == CellKind::kHostGap;
  std::string figures;
  if (judged) {
    figures = StrCat(InUnit(cell, cell.good), " / ", InUnit(cell, cell.lead));
  }
  std::string value = InUnit(cell, result.value);
  if (judged && !gap) {
    StrAppend(&value, Number(" %.0f%%", 100 * cell.roof / result.value));
  }
  return Row(
      name.c_str(), what.c_str(), value, Number("%.1f %%", 100 * result.spread),
      gap ? "" : Number("%.0f tok/s", 1e3 * result.tokens / result.value),
      SharesOf(result, ceilings), figures,
      judged ? std::string(GradeOf(result)) : "");
}

}  // namespace

std::span<const Cell> ModelCells() { return kCells; }

std::span<const std::string_view> OtherCells() { return kOthers; }

absl::StatusOr<std::vector<Cell>> CellsNamed(std::string_view names) {
  std::vector<Cell> cells;
  if (names.empty()) {
    for (const Cell& cell : kCells) {
      if (cell.weights == WeightTypes(WeightType::kBf16)) cells.push_back(cell);
    }
    return cells;
  }
  while (true) {
    const size_t end = names.find(',');
    const std::string_view name = names.substr(0, end);
    const size_t before = cells.size();
    for (const Cell& cell : kCells) {
      if (cell.name == name) cells.push_back(cell);
    }
    if (cells.size() == before) {
      return FieldError("--cells", "C1 to C7 or C12", name);
    }
    if (end == std::string_view::npos) return cells;
    names.remove_prefix(end + 1);
  }
}

std::string_view GradeOf(const CellResult& result) {
  if (!result.error.empty()) return "";
  if (result.value <= result.cell.lead) return "lead";
  return result.value <= result.cell.good ? "good" : "below";
}

std::string CellTable(const std::string& numerics_class,
                      const CellCeilings& ceilings,
                      std::span<const CellResult> results, WeightTypes judged) {
  std::string text = StrCat(
      numerics_class, " on ", ceilings.card, "\nceilings of this run: read ",
      Number("%.1f GB/s", ceilings.read_bytes / 1e9), ", copy ",
      Number("%.1f GB/s", ceilings.copy_bytes / 1e9), ", ", ceilings.flops_of,
      " ", Number("%.2f TFLOP/s", ceilings.flops / 1e12), "\n");
  StrAppend(&text, Row("cell", "what", judged.empty() ? "time" : "time, roof",
                       "spread", "rate", "of the ceilings",
                       judged.empty() ? "" : "good / lead", ""));
  for (const CellResult& result : results) {
    StrAppend(&text, RowOf(result, ceilings, judged));
  }
  for (const std::string_view other : OtherCells()) {
    StrAppend(&text, "not here: ", other, "\n");
  }
  return text;
}

}  // namespace caravan::worker::bench
