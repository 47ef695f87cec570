// The cells by which a card is judged for a Llama of 8 billion parameters:
// their roofs on one H100 by the datasheet, what is good and what would lead,
// and the table of what was measured. Plain data.
#ifndef CARAVAN_WORKER_BENCH_CELLS_H_
#define CARAVAN_WORKER_BENCH_CELLS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker::bench {

enum class CellKind {
  kDecode,   // a step of `streams` tokens, each behind `context` keys
  kPrefill,  // one prompt of `context` tokens
  kHostGap,  // the engine's steps beside the model's alone, as a share
};

struct Cell {
  std::string_view name;  // "C1"
  CellKind kind;
  int streams;
  int32_t context;
  // In milliseconds, or shares where the kind is kHostGap.
  double roof;
  double good;
  double lead;
  // What matrices of layers must be of for the figures to count.
  WeightTypes weights = WeightType::kBf16;
};

// Of the cells C1 to C12 those that a model and an engine alone can measure.
std::span<const Cell> ModelCells();
// Why the others are not in the table, a line each.
std::span<const std::string_view> OtherCells();

// The cells with these names ("C1,C7"; "": all of bf16), a name may be several
// cells.
// kInvalidField for a name that is none.
absl::StatusOr<std::vector<Cell>> CellsNamed(std::string_view names);

// What was measured of one cell.
struct CellResult {
  Cell cell;
  double value = 0;   // as the cell's figures: ms, or a share
  double spread = 0;  // half the range of the blocks, relative
  double tokens = 0;  // of a step or prompt
  double bytes = 0;   // that must be read
  double flops = 0;   // that must be done
  std::string error;  // in place of a value
};

// Ceilings of the same run, per second.
struct CellCeilings {
  std::string card;
  double read_bytes = 0;
  double copy_bytes = 0;
  double flops = 0;
  std::string flops_of;  // "large GEMM" or what stood for it
};

// "lead", "good", "below" by the cell's figures; "" where there is no value.
std::string_view GradeOf(const CellResult& result);

// `judged`: whose figures the model has matrices for, if it is of the shape
// that they are for; of others neither figures nor grades are printed.
std::string CellTable(const std::string& numerics_class,
                      const CellCeilings& ceilings,
                      std::span<const CellResult> results, WeightTypes judged);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_CELLS_H_
