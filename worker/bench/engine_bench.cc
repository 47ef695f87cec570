#include "worker/bench/engine_bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/bench/engine_driver.h"
#include "worker/bench/engine_report.h"
#include "worker/model/model_loader.h"
#include "worker/ops/cpu/int8_probe.h"
#include "worker/ops/numerics.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker::bench {
namespace {

constexpr int32_t kBlockTokens = 16;

// Of this process so far, mapped files included.
double PeakResidentBytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

using Kind = PointReport::Kind;

// What is measured again and again.
struct Point {
  Kind kind = Kind::kDecode;
  int streams = 1;
  int32_t prompt_tokens = 0;
  BracketedSamples samples;
};

std::vector<Point> PointsOf(const EngineBenchOptions& options) {
  std::vector<Point> points;
  const auto add = [&](Kind kind, int streams, int32_t prompt_tokens) {
    for (const Point& point : points) {
      if (point.kind == kind && point.streams == streams &&
          point.prompt_tokens == prompt_tokens) {
        return;
      }
    }
    points.push_back(
        {kind, streams, prompt_tokens, BracketedSamples(options.rules)});
  };
  for (const int batch : options.batches) {
    add(Kind::kDecode, batch, options.prompt_tokens);
  }
  for (const int context : options.contexts) add(Kind::kDecode, 1, context);
  if (options.prefill_tokens > 0) {
    add(Kind::kPrefill, 1, options.prefill_tokens);
  }
  return points;
}

// Blocks for what runs at once, as much again for prompts that the prefix
// cache keeps, and some prompts of the prefill.
int32_t BlocksFor(const EngineBenchOptions& options,
                  const std::vector<Point>& points) {
  int32_t most = 1;
  for (const Point& point : points) {
    const int32_t tokens = point.prompt_tokens + options.output_tokens;
    most = std::max(most, point.streams * (tokens / kBlockTokens + 2));
  }
  return 2 * most + 4 * (options.prefill_tokens / kBlockTokens + 2);
}

PointReport ReportOf(const Point& point) {
  const BracketedSamples& samples = point.samples;
  PointReport report;
  report.kind = point.kind;
  report.streams = point.streams;
  report.prompt_tokens = point.prompt_tokens;
  report.kept_count = samples.kept_count();
  report.dropped_count = samples.dropped_count();
  report.complete = samples.complete();
  report.tokens_per_second = samples.MedianOf(&Sample::tokens_per_second);
  report.spread = samples.SpreadOf(&Sample::tokens_per_second);
  report.step_seconds = samples.MedianOf(&Sample::step_seconds);
  report.bytes_per_second = samples.MedianOf(&Sample::bytes_per_second);
  report.operations_per_second =
      samples.MedianOf(&Sample::operations_per_second);
  report.read_ceiling = samples.MedianOf(&Sample::read_ceiling);
  report.operations_ceiling = samples.MedianOf(&Sample::operations_ceiling);
  report.read_share = samples.MedianOf(&Sample::read_share);
  report.operations_share = samples.MedianOf(&Sample::operations_share);
  report.bound_share = samples.MedianOf(&Sample::bound_share);
  return report;
}

class EngineBench {
 public:
  static absl::StatusOr<std::unique_ptr<EngineBench>> Create(
      const EngineBenchOptions& options);

  using Note = std::function<void(const std::string& line)>;
  absl::StatusOr<EngineBenchReport> Run(const Note& note);
  // Each point once.
  absl::StatusOr<EngineBenchReport> Turn();

 private:
  explicit EngineBench(const EngineBenchOptions& options)
      : options_(options), points_(PointsOf(options)) {}

  absl::Status Load();
  // LoadModel, timed.
  absl::Status LoadTimed(const ModelOptions& model);
  absl::Status MakeDriver();
  MachineReport MeasureMachine();
  MomentCeilings Probe();
  // One round after the other, so that a machine that changes its speed does so
  // under all points alike.
  absl::Status MeasurePoints(const Note& note);
  absl::Status TakeSample(Point& point);
  absl::StatusOr<WholeReport> MeasureWhole(int streams);
  EngineBenchReport EmptyReport();
  std::vector<Cliff> Cliffs() const;

  const EngineBenchOptions options_;
  std::vector<Point> points_;
  std::unique_ptr<Ceilings> ceilings_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ShardRunner> runner_;
  std::unique_ptr<EngineDriver> driver_;
  StepCosts costs_;
  Arithmetic arithmetic_ = Arithmetic::kFp32;
  LoadReport load_;
};

absl::StatusOr<std::unique_ptr<EngineBench>> EngineBench::Create(
    const EngineBenchOptions& options) {
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<EngineBench> bench(new EngineBench(options));
  CARAVAN_RETURN_IF_ERROR(bench->Load());
  CARAVAN_RETURN_IF_ERROR(bench->MakeDriver());
  bench->load_.peak_bytes = PeakResidentBytes();
  CARAVAN_ASSIGN_OR_RETURN(
      bench->ceilings_, Ceilings::Create(options.cpu.threads, options.cpu.pin,
                                         options.probe_bytes));
  return bench;
}

absl::Status EngineBench::Load() {
  ModelOptions model;
  model.memory.max_step_tokens = options_.max_step_tokens;
  model.weights = options_.weights;
  model.threads = options_.cpu.threads;
  CARAVAN_ASSIGN_OR_RETURN(const WeightTypes weights,
                           ReadWeightTypes(options_.model_directory, model));
  CpuOptions cpu = options_.cpu;
  CARAVAN_ASSIGN_OR_RETURN(
      cpu.numerics, ParseNumerics(options_.activations, options_.kv, weights));
  CARAVAN_ASSIGN_OR_RETURN(backend_, MakeCpuBackend(cpu));
  CARAVAN_RETURN_IF_ERROR(LoadTimed(model));
  costs_ = CostsOf(*model_);
  arithmetic_ =
      ArithmeticOf(backend_->NumericsClass(model_->description.weight_types));
  return absl::OkStatus();
}

absl::Status EngineBench::LoadTimed(const ModelOptions& model) {
  const auto start = std::chrono::steady_clock::now();
  CARAVAN_ASSIGN_OR_RETURN(
      model_, LoadModel(options_.model_directory, model, backend_.get()));
  const MemoryPlan& plan = model_->description.plan;
  load_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  load_.checkpoint_bytes = static_cast<double>(plan.checkpoint_bytes);
  load_.packed_bytes = static_cast<double>(model_->weights.bytes);
  load_.planned_weight_bytes = static_cast<double>(plan.weight_bytes);
  load_.planned_bytes = static_cast<double>(plan.fixed_bytes());
  return absl::OkStatus();
}

absl::Status EngineBench::MakeDriver() {
  const DriverOptions driver = {
      .block_count = BlocksFor(options_, points_),
      .max_step_tokens = options_.max_step_tokens,
      .max_prefill_chunk = options_.max_prefill_chunk,
      .depth = options_.depth,
      .vocabulary = model_->description.config.vocab_size,
      .seed = options_.seed};
  CARAVAN_ASSIGN_OR_RETURN(
      runner_, ShardRunner::Create(model_.get(), backend_.get(),
                                   {.block_count = driver.block_count,
                                    .max_step_tokens = options_.max_step_tokens,
                                    .max_in_flight = options_.depth}));
  CARAVAN_ASSIGN_OR_RETURN(driver_,
                           EngineDriver::Create(driver, costs_, runner_.get()));
  return absl::OkStatus();
}

MachineReport EngineBench::MeasureMachine() {
  return {.read = ceilings_->Read(options_.probe_seconds),
          .fp32 = ceilings_->OperationsPerSecond(Arithmetic::kFp32),
          .bf16 = ceilings_->OperationsPerSecond(Arithmetic::kBf16),
          .int8 = ceilings_->OperationsPerSecond(Arithmetic::kInt8),
          .int8_instructions = cpu::BestInt8Probe().name};
}

MomentCeilings EngineBench::Probe() {
  return {.read_bytes_per_second =
              ceilings_->Read(options_.probe_seconds).bytes_per_second,
          .operations_per_second = ceilings_->OperationsPerSecond(
              arithmetic_, options_.probe_seconds / 4)};
}

absl::Status EngineBench::TakeSample(Point& point) {
  const bool decode = point.kind == Kind::kDecode;
  if (decode) {
    CARAVAN_RETURN_IF_ERROR(driver_->Start(point.streams, point.prompt_tokens,
                                           options_.output_tokens));
  }
  const MomentCeilings before = Probe();
  CARAVAN_ASSIGN_OR_RETURN(const Work work,
                           decode ? driver_->Decode(options_.sample_seconds)
                                  : driver_->Prefill(point.prompt_tokens));
  point.samples.Add(before, work, Probe());
  return decode ? driver_->Stop() : absl::OkStatus();
}

absl::Status EngineBench::MeasurePoints(const Note& note) {
  for (bool more = true; more;) {
    more = false;
    for (Point& point : points_) {
      if (!point.samples.wants_more()) continue;
      CARAVAN_RETURN_IF_ERROR(TakeSample(point));
      if (point.samples.wants_more()) {
        more = true;
      } else if (note) {
        note(LineOf(ReportOf(point)));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<WholeReport> EngineBench::MeasureWhole(int streams) {
  std::vector<double> rates;
  std::vector<double> first;
  for (int i = 0; i < options_.whole_runs; ++i) {
    CARAVAN_ASSIGN_OR_RETURN(const WholeRun run,
                             driver_->RunWhole(streams, options_.prompt_tokens,
                                               options_.output_tokens));
    rates.push_back(run.tokens / run.seconds);
    first.push_back(run.first_token_seconds);
  }
  return WholeReport{.streams = streams,
                     .tokens_per_second = Median(std::move(rates)),
                     .first_token_seconds = Median(std::move(first))};
}

EngineBenchReport EngineBench::EmptyReport() {
  EngineBenchReport report;
  report.numerics_class =
      backend_->NumericsClass(model_->description.weight_types);
  report.checkpoint = model_->description.checkpoint;
  report.threads = options_.cpu.threads;
  report.parameters = model_->description.plan.parameters;
  report.arithmetic = arithmetic_;
  report.step_bytes = costs_.layer_bytes + costs_.head_bytes;
  report.kv_position_bytes = costs_.kv_position_bytes;
  report.prefill_operations = costs_.layer_operations;
  return report;
}

// Of the batches, which all have prompts of one length.
std::vector<Cliff> EngineBench::Cliffs() const {
  std::vector<BatchRate> rates;
  for (const Point& point : points_) {
    if (point.kind != Kind::kDecode ||
        point.prompt_tokens != options_.prompt_tokens) {
      continue;
    }
    rates.push_back({point.streams,
                     point.samples.MedianOf(&Sample::tokens_per_second),
                     point.samples.SpreadOf(&Sample::tokens_per_second)});
  }
  return FindCliffs(std::move(rates));
}

absl::StatusOr<EngineBenchReport> EngineBench::Run(const Note& note) {
  EngineBenchReport report = EmptyReport();
  report.machine = MeasureMachine();
  report.load = load_;
  CARAVAN_ASSIGN_OR_RETURN(const double copied, ceilings_->CopyPerSecond());
  report.load.floor_seconds =
      std::max(load_.checkpoint_bytes, load_.packed_bytes) / copied;
  CARAVAN_RETURN_IF_ERROR(MeasurePoints(note));
  for (const Point& point : points_) report.points.push_back(ReportOf(point));
  report.cliffs = Cliffs();
  if (options_.whole_runs == 0) return report;
  for (const int batch : options_.batches) {
    CARAVAN_ASSIGN_OR_RETURN(const WholeReport whole, MeasureWhole(batch));
    report.whole.push_back(whole);
  }
  return report;
}

absl::StatusOr<EngineBenchReport> EngineBench::Turn() {
  points_ = PointsOf(options_);
  CARAVAN_RETURN_IF_ERROR(MeasurePoints(/*note=*/nullptr));
  EngineBenchReport report = EmptyReport();
  report.load = load_;
  for (const Point& point : points_) report.points.push_back(ReportOf(point));
  return report;
}

template <typename T>
absl::Status CheckWithin(const char* field, T value, T least, T most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, StrCat("in [", least, ", ", most, "]"),
                    StrCat(value));
}

absl::Status CheckAll(const char* field, const std::vector<int>& values,
                      int most) {
  CARAVAN_RETURN_IF_ERROR(
      CheckWithin<int64_t>(field, std::ssize(values), 0, 256));
  for (const int value : values) {
    CARAVAN_RETURN_IF_ERROR(CheckWithin(field, value, 1, most));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EngineBenchOptions::Validate() const {
  const struct {
    const char* field;
    int64_t value;
    int64_t least;
    int64_t most;
  } fields[] = {{"prefill_tokens", prefill_tokens, 0, 1 << 20},
                {"prompt_tokens", prompt_tokens, 1, 1 << 20},
                {"output_tokens", output_tokens, 2, 1 << 20},
                {"whole_runs", whole_runs, 0, 1000},
                {"max_step_tokens", max_step_tokens, 1, 1 << 20},
                {"max_prefill_chunk", max_prefill_chunk, 1, 1 << 20},
                {"depth", depth, 1, 16},
                {"samples", rules.wanted, 1, 1000},
                {"attempts", rules.most_attempts, rules.wanted, 100'000}};
  for (const auto& [field, value, least, most] : fields) {
    CARAVAN_RETURN_IF_ERROR(CheckWithin(field, value, least, most));
  }
  CARAVAN_RETURN_IF_ERROR(
      CheckWithin("sample_seconds", sample_seconds, 0.0, 60.0));
  CARAVAN_RETURN_IF_ERROR(
      CheckWithin("probe_seconds", probe_seconds, 0.0, 10.0));
  CARAVAN_RETURN_IF_ERROR(CheckAll("batches", batches, max_step_tokens));
  CARAVAN_RETURN_IF_ERROR(CheckAll("contexts", contexts, 1 << 20));
  if (batches.empty() && contexts.empty() && prefill_tokens == 0) {
    return FieldError("batches", "a list, where nothing else is measured", "");
  }
  return absl::OkStatus();
}

absl::StatusOr<EngineBenchReport> RunEngineBench(
    const EngineBenchOptions& options,
    const std::function<void(const std::string& line)>& note) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<EngineBench> bench,
                           EngineBench::Create(options));
  return bench->Run(note);
}

absl::Status RunEngineBenchTurns(
    const EngineBenchOptions& options, const std::function<bool()>& next,
    const std::function<void(const EngineBenchReport& report)>& hand_over) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<EngineBench> bench,
                           EngineBench::Create(options));
  while (next()) {
    CARAVAN_ASSIGN_OR_RETURN(const EngineBenchReport report, bench->Turn());
    hand_over(report);
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker::bench
