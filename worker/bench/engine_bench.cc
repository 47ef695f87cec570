#include "worker/bench/engine_bench.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/sampling/philox.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/bench/ceilings.h"
#include "worker/engine/engine.h"
#include "worker/model/model_loader.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker::bench {
namespace {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

// Collects what a run produced.
class CountingSink final : public EngineSink {
 public:
  void Emit(const StepReport& report) override {
    const double now = Now();
    for (const TokenEvent& event : report.tokens) {
      ++tokens;
      first_token_times.try_emplace(event.group, now);
    }
    finished += static_cast<int>(report.finishes.size());
    for (const ErrorEvent& event : report.errors) error = event.status;
  }

  int64_t tokens = 0;
  int finished = 0;
  absl::Status error;
  std::map<GroupId, double> first_token_times;
};

// One run: some streams, submitted together, until all have ended.
struct RunResult {
  double seconds = 0;
  int64_t tokens = 0;
  double first_token_seconds = 0;
  std::vector<double> decode_step_seconds;
};

class EngineBench {
 public:
  static absl::StatusOr<std::unique_ptr<EngineBench>> Create(
      const EngineBenchOptions& options);

  absl::StatusOr<PrefillSample> MeasurePrefill();
  absl::StatusOr<DecodeSample> MeasureDecode(int batch);
  EngineBenchReport EmptyReport() const;

 private:
  explicit EngineBench(const EngineBenchOptions& options) : options_(options) {}

  EngineOptions OptionsOfEngine() const;
  GroupRequest MakeRequest(int32_t prompt_tokens, int32_t output_tokens);
  absl::StatusOr<RunResult> Run(int streams, int32_t prompt_tokens,
                                int32_t output_tokens);
  // The greater of what is measured now and `before`.
  MomentCeilings Measure(const MomentCeilings& before = {});
  double OperationsPerToken() const;
  double StepBytes() const;

  const EngineBenchOptions options_;
  std::unique_ptr<Ceilings> ceilings_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ShardRunner> runner_;
  int32_t block_count_ = 0;
  uint64_t next_group_ = 1;
};

absl::StatusOr<std::unique_ptr<EngineBench>> EngineBench::Create(
    const EngineBenchOptions& options) {
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  auto bench = std::unique_ptr<EngineBench>(new EngineBench(options));
  CARAVAN_ASSIGN_OR_RETURN(bench->ceilings_,
                           Ceilings::Create(options.cpu.threads));
  CARAVAN_ASSIGN_OR_RETURN(bench->backend_, MakeCpuBackend(options.cpu));
  ModelOptions model;
  model.memory.max_step_tokens = options.max_step_tokens;
  CARAVAN_ASSIGN_OR_RETURN(
      bench->model_,
      LoadModel(options.model_directory, model, bench->backend_.get()));
  const int32_t per_stream =
      (options.prompt_tokens + options.output_tokens) / 16 + 1;
  const int most =
      *std::max_element(options.batches.begin(), options.batches.end());
  bench->block_count_ =
      std::max(per_stream * most, options.prefill_tokens / 16 + 2);
  CARAVAN_ASSIGN_OR_RETURN(
      bench->runner_,
      ShardRunner::Create(bench->model_.get(), bench->backend_.get(),
                          {.block_count = bench->block_count_,
                           .max_step_tokens = options.max_step_tokens,
                           .max_in_flight = options.depth}));
  return bench;
}

EngineOptions EngineBench::OptionsOfEngine() const {
  EngineOptions engine;
  engine.block_count = block_count_;
  engine.max_running = 4096;
  engine.max_waiting = 4096;
  engine.max_step_tokens = options_.max_step_tokens;
  engine.max_prefill_chunk = options_.max_prefill_chunk;
  engine.context_length = 1 << 24;  // a benchmark may go past the model's
  engine.depth = options_.depth;
  engine.prefix_cache = false;
  return engine;
}

GroupRequest EngineBench::MakeRequest(int32_t prompt_tokens,
                                      int32_t output_tokens) {
  GroupRequest request;
  request.id = next_group_++;
  auto prompt = std::make_shared<std::vector<TokenId>>();
  const uint32_t vocabulary =
      static_cast<uint32_t>(model_->description.config.vocab_size);
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    prompt->push_back(static_cast<TokenId>(
        sampling::TokenDraw(options_.seed, static_cast<uint32_t>(i),
                            static_cast<uint32_t>(request.id)) %
        vocabulary));
  }
  request.prompt = std::move(prompt);
  request.choices = {ChoiceStart{}};
  request.sampling.temperature = 0;
  request.stop.max_tokens = output_tokens;
  request.stop.ignore_eos = true;
  return request;
}

absl::StatusOr<RunResult> EngineBench::Run(int streams, int32_t prompt_tokens,
                                           int32_t output_tokens) {
  CountingSink sink;
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                           Engine::Create(OptionsOfEngine(), runner_.get(),
                                          &sink, &SystemClock::Get()));
  RunResult result;
  const double start = Now();
  for (int s = 0; s < streams; ++s) {
    CARAVAN_RETURN_IF_ERROR(
        engine->Submit(MakeRequest(prompt_tokens, output_tokens)));
  }
  double before = start;
  while (sink.finished < streams) {
    CARAVAN_ASSIGN_OR_RETURN(const StepReport report, engine->Step());
    CARAVAN_RETURN_IF_ERROR(sink.error);
    const double after = Now();
    const bool only_decodes = report.counters.prefill_rows == 0 &&
                              report.counters.decode_tokens == streams;
    if (only_decodes) result.decode_step_seconds.push_back(after - before);
    before = after;
  }
  result.seconds = Now() - start;
  result.tokens = sink.tokens;
  std::vector<double> first;
  for (const auto& [group, time] : sink.first_token_times) {
    first.push_back(time - start);
  }
  result.first_token_seconds = Median(std::move(first));
  return result;
}

MomentCeilings EngineBench::Measure(const MomentCeilings& before) {
  return {std::max(before.read_bytes_per_second,
                   ceilings_->Read().bytes_per_second),
          std::max(before.fma_per_second, ceilings_->FmaPerSecond())};
}

// Two for each weight that a token meets in a layer; the head is only met by
// tokens that are sampled.
double EngineBench::OperationsPerToken() const {
  double weights = 0;
  for (const LayerWeights& layer : model_->weights.layers) {
    for (const PackedMatrix* matrix : {layer.qkv.get(), layer.output.get(),
                                       layer.gate_up.get(), layer.down.get()}) {
      weights += static_cast<double>(matrix->rows * matrix->cols);
    }
  }
  return 2 * weights;
}

double EngineBench::StepBytes() const {
  const Weights& weights = model_->weights;
  const size_t embedding =
      weights.embedding == nullptr ? 0 : weights.embedding->bytes;
  return static_cast<double>(weights.bytes - embedding);
}

absl::StatusOr<PrefillSample> EngineBench::MeasurePrefill() {
  PrefillSample sample;
  sample.tokens = options_.prefill_tokens;
  sample.ceilings = Measure();
  std::vector<double> seconds;
  for (int repeat = 0; repeat < options_.repeats; ++repeat) {
    CARAVAN_ASSIGN_OR_RETURN(const RunResult run,
                             Run(1, options_.prefill_tokens, 1));
    seconds.push_back(run.seconds);
  }
  sample.ceilings = Measure(sample.ceilings);
  sample.tokens_per_second = sample.tokens / Median(std::move(seconds));
  sample.operations_per_second =
      sample.tokens_per_second * OperationsPerToken();
  return sample;
}

absl::StatusOr<DecodeSample> EngineBench::MeasureDecode(int batch) {
  DecodeSample sample;
  sample.batch = batch;
  sample.ceilings = Measure();
  std::vector<double> steps;
  std::vector<double> whole;
  std::vector<double> first;
  for (int repeat = 0; repeat < options_.repeats; ++repeat) {
    CARAVAN_ASSIGN_OR_RETURN(RunResult run, Run(batch, options_.prompt_tokens,
                                                options_.output_tokens));
    steps.push_back(Median(std::move(run.decode_step_seconds)));
    whole.push_back(static_cast<double>(run.tokens) / run.seconds);
    first.push_back(run.first_token_seconds);
  }
  sample.ceilings = Measure(sample.ceilings);
  sample.step_seconds = Median(std::move(steps));
  sample.tokens_per_second = batch / sample.step_seconds;
  sample.whole_tokens_per_second = Median(std::move(whole));
  sample.first_token_seconds = Median(std::move(first));
  sample.bytes_per_second = StepBytes() / sample.step_seconds;
  const PackedMatrix& head = *model_->weights.head;
  sample.operations_per_second =
      sample.tokens_per_second *
      (OperationsPerToken() + 2 * static_cast<double>(head.rows * head.cols));
  return sample;
}

EngineBenchReport EngineBench::EmptyReport() const {
  EngineBenchReport report;
  report.numerics_class = backend_->NumericsClass(model_->description.dtype);
  report.threads = options_.cpu.threads;
  report.parameters = model_->description.plan.parameters;
  report.step_bytes = StepBytes();
  return report;
}

template <typename... Args>
std::string Format(const char* format, Args... args) {
  char line[256];
  std::snprintf(line, sizeof(line), format, args...);
  return line;
}

std::string LineOf(const PrefillSample& sample) {
  return Format(
      "prefill %5d tokens: %8.1f tok/s  %6.1f GFLOP/s, %3.0f %% of %.0f",
      sample.tokens, sample.tokens_per_second,
      sample.operations_per_second / 1e9,
      100 * sample.operations_per_second / sample.ceilings.fma_per_second,
      sample.ceilings.fma_per_second / 1e9);
}

std::string LineOf(const DecodeSample& sample) {
  return Format(
      "decode %3d streams: %8.1f tok/s  (%.1f with prefill)  step %.2f ms  "
      "%5.1f GB/s, %3.0f %% of %.1f  %5.1f GFLOP/s, %3.0f %% of %.0f",
      sample.batch, sample.tokens_per_second, sample.whole_tokens_per_second,
      sample.step_seconds * 1e3, sample.bytes_per_second / 1e9,
      100 * sample.bytes_per_second / sample.ceilings.read_bytes_per_second,
      sample.ceilings.read_bytes_per_second / 1e9,
      sample.operations_per_second / 1e9,
      100 * sample.operations_per_second / sample.ceilings.fma_per_second,
      sample.ceilings.fma_per_second / 1e9);
}

nlohmann::json ToJson(const MomentCeilings& ceilings) {
  return {{"read_bytes_per_second", ceilings.read_bytes_per_second},
          {"fma_per_second", ceilings.fma_per_second}};
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
                {"max_step_tokens", max_step_tokens, 1, 1 << 20},
                {"max_prefill_chunk", max_prefill_chunk, 1, 1 << 20},
                {"depth", depth, 1, 16},
                {"repeats", repeats, 1, 1000},
                {"batches", static_cast<int64_t>(batches.size()), 1, 64}};
  for (const auto& [field, value, least, most] : fields) {
    if (value < least || value > most) {
      return FieldError(field, StrCat("in [", least, ", ", most, "]"),
                        StrCat(value));
    }
  }
  for (const int batch : batches) {
    if (batch < 1 || batch > max_step_tokens) {
      return FieldError("batches", StrCat("in [1, ", max_step_tokens, "]"),
                        StrCat(batch));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<EngineBenchReport> RunEngineBench(
    const EngineBenchOptions& options,
    const std::function<void(const std::string& line)>& note) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<EngineBench> bench,
                           EngineBench::Create(options));
  EngineBenchReport report = bench->EmptyReport();
  for (const int batch : options.batches) {
    CARAVAN_ASSIGN_OR_RETURN(const DecodeSample sample,
                             bench->MeasureDecode(batch));
    report.decode.push_back(sample);
    if (note) note(LineOf(sample));
  }
  if (options.prefill_tokens == 0) return report;
  CARAVAN_ASSIGN_OR_RETURN(const PrefillSample sample, bench->MeasurePrefill());
  report.prefill.push_back(sample);
  if (note) note(LineOf(sample));
  return report;
}

std::string ToText(const EngineBenchReport& report) {
  std::string text = Format(
      "%s, %d threads, %.3f billion parameters, %.3f GB per step\n",
      report.numerics_class.c_str(), report.threads,
      static_cast<double>(report.parameters) / 1e9, report.step_bytes / 1e9);
  for (const DecodeSample& sample : report.decode) {
    StrAppend(&text, LineOf(sample), "\n");
  }
  for (const PrefillSample& sample : report.prefill) {
    StrAppend(&text, LineOf(sample), "\n");
  }
  return text;
}

std::string ToJson(const EngineBenchReport& report) {
  nlohmann::json json = {{"numerics_class", report.numerics_class},
                         {"threads", report.threads},
                         {"parameters", report.parameters},
                         {"step_bytes", report.step_bytes},
                         {"decode", nlohmann::json::array()},
                         {"prefill", nlohmann::json::array()}};
  for (const DecodeSample& sample : report.decode) {
    json["decode"].push_back(
        {{"streams", sample.batch},
         {"step_seconds", sample.step_seconds},
         {"tokens_per_second", sample.tokens_per_second},
         {"whole_tokens_per_second", sample.whole_tokens_per_second},
         {"first_token_seconds", sample.first_token_seconds},
         {"bytes_per_second", sample.bytes_per_second},
         {"operations_per_second", sample.operations_per_second},
         {"ceilings", ToJson(sample.ceilings)}});
  }
  for (const PrefillSample& sample : report.prefill) {
    json["prefill"].push_back(
        {{"tokens", sample.tokens},
         {"tokens_per_second", sample.tokens_per_second},
         {"operations_per_second", sample.operations_per_second},
         {"ceilings", ToJson(sample.ceilings)}});
  }
  return json.dump();
}

}  // namespace caravan::worker::bench
