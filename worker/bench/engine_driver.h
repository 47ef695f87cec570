// An engine that a benchmark drives step by step, and what its steps cost at
// least: bytes that must be read and operations that must be done.
#ifndef CARAVAN_WORKER_BENCH_ENGINE_DRIVER_H_
#define CARAVAN_WORKER_BENCH_ENGINE_DRIVER_H_

#include <cstdint>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/bench/samples.h"
#include "worker/engine/engine.h"
#include "worker/model/model_loader.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker::bench {

// The floor of a step. Attention's arithmetic and the vectors are left out.
struct StepCosts {
  double layer_bytes = 0;        // of packed matrices, padding of rows included
  double head_bytes = 0;         // of the output head
  double kv_position_bytes = 0;  // of one position's keys and values
  double layer_operations = 0;   // of one token, 2 per weight
  double head_operations = 0;    // of one token that is sampled
};

// From the weights as packed and from the plan of the KV cache.
StepCosts CostsOf(const LoadedModel& model);

struct DriverOptions {
  int32_t block_count = 0;
  int32_t max_step_tokens = 512;
  int32_t max_prefill_chunk = 512;
  int32_t depth = 1;
  int32_t vocabulary = 0;
  uint64_t seed = 1;
};

// A run from submit to the last token, prefill included.
struct WholeRun {
  double seconds = 0;
  double tokens = 0;
  double first_token_seconds = 0;  // median over streams
};

// Not thread-safe.
class EngineDriver {
 public:
  // `runner` must outlive the driver. Errors are those of the engine.
  static absl::StatusOr<std::unique_ptr<EngineDriver>> Create(
      const DriverOptions& options, const StepCosts& costs,
      ShardRunner* runner);
  ~EngineDriver();

  // Steps until `streams` prompts of `prompt_tokens` have their first token.
  // The prompts are the same at every call, so that the prefix cache makes the
  // next call short. Nothing may run.
  absl::Status Start(int streams, int32_t prompt_tokens, int32_t output_tokens);
  // Steps that decode all streams, at least one and for at least `seconds`, or
  // until the first stream ends.
  absl::StatusOr<Work> Decode(double seconds);
  // Ends all streams and frees their blocks.
  absl::Status Stop();

  // A prompt that was not seen before, from submit to its first token. Nothing
  // may run.
  absl::StatusOr<Work> Prefill(int32_t tokens);

  // `streams` prompts that were not seen before, until all have ended.
  absl::StatusOr<WholeRun> RunWhole(int streams, int32_t prompt_tokens,
                                    int32_t output_tokens);

 private:
  class Sink;

  EngineDriver(const DriverOptions& options, const StepCosts& costs);
  // `text` names the prompt: equal texts begin with the same ids.
  absl::Status Submit(uint32_t text, int32_t prompt_tokens,
                      int32_t output_tokens);
  absl::StatusOr<StepReport> Step();

  const DriverOptions options_;
  const StepCosts costs_;
  std::unique_ptr<Sink> sink_;
  std::unique_ptr<Engine> engine_;
  std::set<GroupId> running_;
  int32_t prompt_tokens_ = 0;  // of the streams that run
  GroupId next_group_ = 1;
  uint32_t next_text_ = 1 << 20;
};

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_ENGINE_DRIVER_H_
