#include "worker/bench/cell_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/clock.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/bench/ceilings.h"
#include "worker/bench/engine_driver.h"
#include "worker/bench/model_loop.h"
#include "worker/bench/samples.h"
#include "worker/model/model_loader.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/numerics.h"

namespace caravan::worker::bench {
namespace {

// What the matrices of layers are of, in the shape that the cells' figures are
// for, else nothing.
WeightTypes Judged(const LoadedModel& model) {
  const ModelConfig& config = model.description.config;
  const bool known = config.hidden_size == 4096 && config.layers == 32 &&
                     config.heads == 32 && config.kv_heads == 8 &&
                     config.intermediate_size == 14336 &&
                     config.vocab_size == 128256;
  if (!known) return {};
  for (const WeightType codes : {WeightType::kFp8, WeightType::kQ4_0}) {
    if (model.description.weight_types.Has(codes)) return codes;
  }
  return model.description.weight_types;
}

int64_t KeysOf(const Cell& cell) {
  // One more token, in blocks of its stream.
  return int64_t{cell.streams} * (cell.context + 1 + kBlockSlots);
}

class CellBench {
 public:
  explicit CellBench(const CellBenchOptions& options) : options_(options) {}

  using Note = std::function<void(const std::string& line)>;
  absl::StatusOr<std::string> Run(const Note& note) {
    CARAVAN_ASSIGN_OR_RETURN(const CellCeilings ceilings, MeasureCeilings());
    CARAVAN_RETURN_IF_ERROR(Load());
    CARAVAN_RETURN_IF_ERROR(MeasureModel(note));
    CARAVAN_RETURN_IF_ERROR(MeasureGaps(note));
    return CellTable(backend_->NumericsClass(model_->description.weight_types),
                     ceilings, results_, Judged(*model_));
  }

 private:
  absl::StatusOr<CellCeilings> MeasureCeilings() const;
  absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(
      const NumericsOptions& numerics) const;
  absl::Status Load();
  // Cells of the model alone, whatever their order.
  absl::Status MeasureModel(const Note& note);
  absl::Status MeasureCell(ModelLoop& loop, CellResult& result);
  absl::StatusOr<double> Once(ModelLoop& loop, const Cell& cell);
  void AddCosts(CellResult& result) const;
  // Cells of the engine, beside what the model alone took.
  absl::Status MeasureGaps(const Note& note);
  absl::Status MeasureGap(EngineDriver& driver, double alone,
                          CellResult& result);
  std::vector<Cell> CellsOf(bool gaps) const;

  const CellBenchOptions options_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> model_;
  StepCosts costs_;
  std::vector<CellResult> results_;
  std::vector<double> alone_;  // seconds of the model's step, by gap
};

absl::StatusOr<CellCeilings> CellBench::MeasureCeilings() const {
  CellCeilings found;
  if (options_.device == "cuda") {
    CARAVAN_ASSIGN_OR_RETURN(const cuda::DeviceCeilings card,
                             MeasureCudaCeilings(/*device=*/0));
    found.card = card.card;
    found.read_bytes = card.read_bytes_per_second;
    found.copy_bytes = card.copy_bytes_per_second;
    found.flops = card.gemm_flops > 0 ? card.gemm_flops : card.mma_flops;
    found.flops_of = card.gemm_flops > 0 ? "large GEMM" : "mma.sync";
    return found;
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<Ceilings> machine,
      Ceilings::Create(options_.threads, /*pin=*/false, options_.probe_bytes));
  found.card = StrCat("cpu with ", options_.threads, " threads");
  found.read_bytes = machine->Read().bytes_per_second;
  CARAVAN_ASSIGN_OR_RETURN(const double copied, machine->CopyPerSecond());
  found.copy_bytes = 2 * copied;
  found.flops = machine->OperationsPerSecond(Arithmetic::kFp32);
  found.flops_of = "fp32 FMA";
  return found;
}

absl::StatusOr<std::unique_ptr<Backend>> CellBench::MakeBackend(
    const NumericsOptions& numerics) const {
  if (options_.device == "cpu") {
    return MakeCpuBackend({.numerics = numerics, .threads = options_.threads});
  }
  CudaOptions cuda;
  cuda.numerics = numerics;
  cuda.gemm_algorithms = options_.gemm_algorithms;
  if (options_.profile == "fast") cuda.profile = CudaProfile::kFast;
  return MakeCudaBackend(cuda);
}

absl::Status CellBench::Load() {
  ModelOptions model;
  model.memory.max_step_tokens = options_.max_step_tokens;
  model.threads = options_.threads;
  model.weights = options_.weights;
  CARAVAN_ASSIGN_OR_RETURN(const WeightTypes weights,
                           ReadWeightTypes(options_.model_directory, model));
  CARAVAN_ASSIGN_OR_RETURN(
      const NumericsOptions numerics,
      ParseNumerics(options_.activations, options_.kv, weights));
  CARAVAN_ASSIGN_OR_RETURN(backend_, MakeBackend(numerics));
  CARAVAN_ASSIGN_OR_RETURN(
      model_, LoadModel(options_.model_directory, model, backend_.get()));
  costs_ = CostsOf(*model_);
  return absl::OkStatus();
}

std::vector<Cell> CellBench::CellsOf(bool gaps) const {
  std::vector<Cell> cells;
  for (const Cell& cell : options_.cells) {
    if ((cell.kind == CellKind::kHostGap) == gaps) cells.push_back(cell);
  }
  return cells;
}

void CellBench::AddCosts(CellResult& result) const {
  const Cell& cell = result.cell;
  const double context = cell.context;
  if (cell.kind == CellKind::kPrefill) {
    const double chunks = std::ceil(context / options_.max_step_tokens);
    result.tokens = context;
    result.bytes = chunks * costs_.layer_bytes + costs_.head_bytes;
    result.flops = context * costs_.layer_operations + costs_.head_operations;
    return;
  }
  result.tokens = cell.streams;
  result.bytes = costs_.layer_bytes + costs_.head_bytes +
                 cell.streams * (context + 1) * costs_.kv_position_bytes;
  result.flops =
      cell.streams * (costs_.layer_operations + costs_.head_operations);
}

absl::StatusOr<double> CellBench::Once(ModelLoop& loop, const Cell& cell) {
  return cell.kind == CellKind::kPrefill
             ? loop.Prefill(cell.context)
             : loop.Decode(cell.streams, cell.context, options_.steps);
}

absl::Status CellBench::MeasureCell(ModelLoop& loop, CellResult& result) {
  CARAVAN_RETURN_IF_ERROR(Once(loop, result.cell).status());  // not counted
  std::vector<double> seconds;
  for (int i = 0; i < options_.blocks; ++i) {
    CARAVAN_ASSIGN_OR_RETURN(const double block, Once(loop, result.cell));
    seconds.push_back(block);
  }
  const double median = Median(seconds);
  const auto [least, most] =
      std::minmax_element(seconds.begin(), seconds.end());
  result.value = 1e3 * median;
  result.spread = median > 0 ? (*most - *least) / 2 / median : 0;
  AddCosts(result);
  return absl::OkStatus();
}

absl::Status CellBench::MeasureModel(const Note& note) {
  ModelLoopOptions loop;
  loop.max_step_tokens = options_.max_step_tokens;
  for (const Cell& cell : options_.cells) {
    loop.max_keys = std::max(loop.max_keys, KeysOf(cell));
    loop.max_streams = std::max(loop.max_streams, cell.streams);
  }
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<ModelLoop> model,
                           ModelLoop::Create(model_.get(), backend_.get(),
                                             &SystemClock::Get(), loop));
  for (const Cell& cell : CellsOf(/*gaps=*/false)) {
    CellResult& result = results_.emplace_back();
    result.cell = cell;
    CARAVAN_RETURN_IF_ERROR(MeasureCell(*model, result));
    if (note) note(StrCat(std::string(cell.name), " measured"));
  }
  for (const Cell& cell : CellsOf(/*gaps=*/true)) {
    CellResult step;
    step.cell = cell;
    CARAVAN_RETURN_IF_ERROR(MeasureCell(*model, step));
    alone_.push_back(step.value / 1e3);
  }
  return absl::OkStatus();
}

absl::Status CellBench::MeasureGaps(const Note& note) {
  const std::vector<Cell> cells = CellsOf(/*gaps=*/true);
  if (cells.empty()) return absl::OkStatus();
  // Streams grow by what they decode in all blocks.
  const int32_t output = options_.steps * (options_.blocks + 2);
  DriverOptions driver;
  driver.max_step_tokens = options_.max_step_tokens;
  driver.max_prefill_chunk = options_.max_step_tokens;
  driver.depth = options_.device == "cuda" ? 2 : 1;
  driver.vocabulary = model_->description.config.vocab_size;
  int most_streams = 1;
  for (const Cell& cell : cells) {
    const int32_t tokens = cell.context + output;
    most_streams = std::max(most_streams, cell.streams);
    driver.block_count =
        std::max(driver.block_count, cell.streams * (tokens / kBlockSlots + 2));
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<ShardRunner> runner,
      ShardRunner::Create(model_.get(), backend_.get(),
                          {.block_count = driver.block_count,
                           .max_step_tokens = options_.max_step_tokens,
                           .max_logits_rows = most_streams,
                           .max_in_flight = driver.depth}));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<EngineDriver> engine,
                           EngineDriver::Create(driver, costs_, runner.get()));
  for (size_t i = 0; i < cells.size(); ++i) {
    CellResult& result = results_.emplace_back();
    result.cell = cells[i];
    CARAVAN_RETURN_IF_ERROR(
        engine->Start(cells[i].streams, cells[i].context, output));
    CARAVAN_RETURN_IF_ERROR(MeasureGap(*engine, alone_[i], result));
    CARAVAN_RETURN_IF_ERROR(engine->Stop());
    if (note) note(StrCat(std::string(cells[i].name), " measured"));
  }
  return absl::OkStatus();
}

absl::Status CellBench::MeasureGap(EngineDriver& driver, double alone,
                                   CellResult& result) {
  std::vector<double> gaps;
  for (int i = 0; i < options_.blocks; ++i) {
    CARAVAN_ASSIGN_OR_RETURN(const Work work,
                             driver.Decode(alone * options_.steps));
    gaps.push_back(work.seconds / work.steps / alone - 1);
  }
  const auto [least, most] = std::minmax_element(gaps.begin(), gaps.end());
  result.value = Median(gaps);
  result.spread = (*most - *least) / 2;
  return absl::OkStatus();
}

}  // namespace

absl::Status CellBenchOptions::Validate() const {
  const auto within = [](const char* field, int64_t value, int64_t least,
                         int64_t most) {
    if (value >= least && value <= most) return absl::OkStatus();
    return FieldError(field, StrCat("in [", least, ", ", most, "]"),
                      StrCat(value));
  };
  if (device != "cuda" && device != "cpu") {
    return FieldError("--device", "cuda or cpu", device);
  }
  if (profile != "exact" && (profile != "fast" || device != "cuda")) {
    return FieldError("--profile", "exact, or fast on cuda", profile);
  }
  CARAVAN_RETURN_IF_ERROR(within("cells", std::ssize(cells), 1, 64));
  CARAVAN_RETURN_IF_ERROR(within("blocks", blocks, 1, 100));
  CARAVAN_RETURN_IF_ERROR(within("steps", steps, 1, 10000));
  for (const Cell& cell : cells) {
    CARAVAN_RETURN_IF_ERROR(
        within("--max-step-tokens", max_step_tokens, cell.streams, 65536));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RunCellBench(
    const CellBenchOptions& options,
    const std::function<void(const std::string& line)>& note) {
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return CellBench(options).Run(note);
}

}  // namespace caravan::worker::bench
