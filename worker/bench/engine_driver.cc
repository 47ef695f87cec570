#include "worker/bench/engine_driver.h"

#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/sampling/philox.h"
#include "common/status/status_macros.h"

namespace caravan::worker::bench {
namespace {

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double Elements(const PackedMatrix& matrix) {
  return static_cast<double>(matrix.rows) * static_cast<double>(matrix.cols);
}

EngineOptions OptionsOfEngine(const DriverOptions& options) {
  EngineOptions engine;
  engine.block_count = options.block_count;
  engine.max_running = 4096;
  engine.max_waiting = 4096;
  engine.max_step_tokens = options.max_step_tokens;
  engine.max_prefill_chunk = options.max_prefill_chunk;
  engine.max_prefill_tokens = options.max_step_tokens;
  engine.context_length = 1 << 24;  // a benchmark may go past the model's
  engine.depth = options.depth;
  return engine;
}

}  // namespace

StepCosts CostsOf(const LoadedModel& model) {
  StepCosts costs;
  for (const LayerWeights& layer : model.weights.layers) {
    for (const PackedMatrix* matrix : {layer.qkv.get(), layer.output.get(),
                                       layer.gate_up.get(), layer.down.get()}) {
      costs.layer_bytes += static_cast<double>(matrix->data_bytes);
      costs.layer_operations += 2 * Elements(*matrix);
    }
  }
  if (const PackedMatrix* head = model.weights.head.get(); head != nullptr) {
    costs.head_bytes = static_cast<double>(head->data_bytes);
    costs.head_operations = 2 * Elements(*head);
  }
  costs.kv_position_bytes =
      static_cast<double>(model.description.plan.kv_bytes_per_token);
  return costs;
}

// Collects what steps produced.
class EngineDriver::Sink final : public EngineSink {
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

  void Reset() {
    tokens = 0;
    finished = 0;
    first_token_times.clear();
  }

  int64_t tokens = 0;
  int finished = 0;
  absl::Status error;
  std::map<GroupId, double> first_token_times;
};

EngineDriver::EngineDriver(const DriverOptions& options, const StepCosts& costs)
    : options_(options), costs_(costs), sink_(std::make_unique<Sink>()) {}

EngineDriver::~EngineDriver() = default;

absl::StatusOr<std::unique_ptr<EngineDriver>> EngineDriver::Create(
    const DriverOptions& options, const StepCosts& costs, ShardRunner* runner) {
  std::unique_ptr<EngineDriver> driver(new EngineDriver(options, costs));
  CARAVAN_ASSIGN_OR_RETURN(
      driver->engine_,
      Engine::Create(OptionsOfEngine(options), runner, driver->sink_.get(),
                     &SystemClock::Get()));
  return driver;
}

absl::Status EngineDriver::Submit(uint32_t text, int32_t prompt_tokens,
                                  int32_t output_tokens) {
  GroupRequest request;
  request.id = next_group_++;
  auto prompt = std::make_shared<std::vector<TokenId>>();
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    prompt->push_back(static_cast<TokenId>(
        sampling::TokenDraw(options_.seed, static_cast<uint32_t>(i), text) %
        static_cast<uint32_t>(options_.vocabulary)));
  }
  request.prompt = std::move(prompt);
  request.choices = {ChoiceStart{}};
  request.sampling.temperature = 0;
  request.stop.max_tokens = output_tokens;
  request.stop.ignore_eos = true;
  running_.insert(request.id);
  return engine_->Submit(std::move(request));
}

absl::StatusOr<StepReport> EngineDriver::Step() {
  CARAVAN_ASSIGN_OR_RETURN(StepReport report, engine_->Step());
  CARAVAN_RETURN_IF_ERROR(sink_->error);
  return report;
}

absl::Status EngineDriver::Start(int streams, int32_t prompt_tokens,
                                 int32_t output_tokens) {
  sink_->Reset();
  prompt_tokens_ = prompt_tokens;
  for (int s = 0; s < streams; ++s) {
    CARAVAN_RETURN_IF_ERROR(
        Submit(static_cast<uint32_t>(s), prompt_tokens, output_tokens));
  }
  while (sink_->first_token_times.size() < running_.size()) {
    CARAVAN_RETURN_IF_ERROR(Step().status());
  }
  return absl::OkStatus();
}

absl::StatusOr<Work> EngineDriver::Decode(double seconds) {
  Work work;
  const double streams = static_cast<double>(running_.size());
  const double start = Now();
  while (sink_->finished == 0 && (work.steps == 0 || work.seconds < seconds)) {
    const int64_t before = sink_->tokens;
    const double positions =
        streams * prompt_tokens_ + static_cast<double>(before);
    CARAVAN_RETURN_IF_ERROR(Step().status());
    work.seconds = Now() - start;
    work.steps += 1;
    work.tokens += static_cast<double>(sink_->tokens - before);
    work.bytes += costs_.layer_bytes + costs_.head_bytes +
                  positions * costs_.kv_position_bytes;
  }
  work.operations =
      work.tokens * (costs_.layer_operations + costs_.head_operations);
  return work;
}

absl::Status EngineDriver::Stop() {
  for (const GroupId group : running_) engine_->Cancel(group);
  running_.clear();
  while (!engine_->Drained()) CARAVAN_RETURN_IF_ERROR(Step().status());
  return absl::OkStatus();
}

absl::StatusOr<Work> EngineDriver::Prefill(int32_t tokens) {
  sink_->Reset();
  const double start = Now();
  CARAVAN_RETURN_IF_ERROR(Submit(next_text_++, tokens, /*output_tokens=*/1));
  Work work;
  while (sink_->tokens == 0) {
    CARAVAN_RETURN_IF_ERROR(Step().status());
    work.steps += 1;
  }
  work.seconds = Now() - start;
  work.tokens = tokens;
  work.bytes = work.steps * costs_.layer_bytes + costs_.head_bytes;
  work.operations = tokens * costs_.layer_operations;
  CARAVAN_RETURN_IF_ERROR(Stop());
  return work;
}

absl::StatusOr<WholeRun> EngineDriver::RunWhole(int streams,
                                                int32_t prompt_tokens,
                                                int32_t output_tokens) {
  sink_->Reset();
  const double start = Now();
  for (int s = 0; s < streams; ++s) {
    CARAVAN_RETURN_IF_ERROR(Submit(next_text_++, prompt_tokens, output_tokens));
  }
  while (sink_->finished < streams) {
    CARAVAN_RETURN_IF_ERROR(Step().status());
  }
  WholeRun run;
  run.seconds = Now() - start;
  run.tokens = static_cast<double>(sink_->tokens);
  std::vector<double> first;
  for (const auto& [group, time] : sink_->first_token_times) {
    first.push_back(time - start);
  }
  run.first_token_seconds = Median(std::move(first));
  CARAVAN_RETURN_IF_ERROR(Stop());
  return run;
}

}  // namespace caravan::worker::bench
