// Continuous batching over a ModelRunner: takes groups of sequences (the
// choices of one prompt), plans steps, commits their tokens, keeps the books
// of the KV blocks.
//
// One thread, inside Run() or a caller of Step(), owns all sequences, plans
// and blocks. Submit, Cancel and the accessors named so are thread-safe; they
// reach that thread through a bounded inbox. Reports leave through the sink.
#ifndef CARAVAN_WORKER_ENGINE_ENGINE_H_
#define CARAVAN_WORKER_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/kv/block_hash.h"
#include "common/sampling/params.h"
#include "worker/engine/batch_plan.h"
#include "worker/engine/model_runner.h"

namespace caravan::worker {

// Names the choices of one submit; never used twice in a process.
using GroupId = uint64_t;

// A choice of the prompt, and what it has produced so far.
struct ChoiceStart {
  int32_t index = 0;
  std::vector<TokenId> output;
};

// One submit. All fields validated by the caller against the model's limits;
// the engine checks what it needs for its own invariants.
struct GroupRequest {
  GroupId id = 0;
  std::string request_id;  // for logs
  int32_t priority = 0;    // higher runs first
  // Whoever pays for it has had more than a fair part: within its priority it
  // yields to those that have not.
  bool over_share = false;
  std::shared_ptr<const std::vector<TokenId>> prompt;  // at least one token
  std::vector<ChoiceStart> choices;                    // at least one
  sampling::SamplingParams sampling;
  sampling::StopCriteria stop;  // `stop` texts are the gateway's
  // Ids that end a choice: the model's own (unless ignore_eos) and the
  // request's. Masked before min_tokens.
  std::vector<TokenId> end_ids;
  absl::Time deadline = absl::InfiniteFuture();
  std::string tenant_salt;
};

// How many prompt tokens of the request a newcomer waits for: next to none of
// one that is over its share, since it yields. Not none, so that what is over
// its share as well finds where there is least of it.
inline int64_t WaitFor(const GroupRequest& request, int64_t tokens) {
  constexpr int64_t kYielding = 64;
  return request.over_share ? tokens / kYielding : tokens;
}

// A new token.
struct TokenEvent {
  GroupId group = 0;
  int32_t choice = 0;
  int32_t position = 0;  // in the output, resumed tokens included
  ScoredToken token;
};

// A prompt was computed (once per group, when its first choice has its KV), or
// some of its scores are there.
struct PromptEvent {
  GroupId group = 0;
  int32_t cached_token_count = 0;
  int32_t first_scored_position = 0;
  std::vector<ScoredToken> scores;
};

enum class ChoiceEnd { kStop, kLength };

struct FinishEvent {
  GroupId group = 0;
  int32_t choice = 0;
  ChoiceEnd end = ChoiceEnd::kStop;
  std::optional<TokenId> stop_token_id;
  int32_t output_token_count = 0;
};

// The group failed as a whole; its blocks are free.
struct ErrorEvent {
  GroupId group = 0;
  absl::Status status;
};

// What a sequence took, told once, when it ends for whatever cause; rows that
// were in flight then are not in it. One that generated tokens, and never
// parked, had `reused` + `prefilled` == prompt + resumed, and each token behind
// its first took one decoded position.
struct SequenceWork {
  GroupId group = 0;
  int32_t choice = 0;
  int32_t prompt = 0;     // tokens of the prompt ...
  int32_t resumed = 0;    // ... and of the output that it came with
  int32_t reused = 0;     // positions that stood when it was admitted
  int32_t prefilled = 0;  // positions computed that were known by then
  int32_t decoded = 0;    // positions computed behind them
  int32_t generated = 0;  // tokens
  int32_t parked = 0;     // times; each adds to the first three again
};

// Load and counters of the moment.
struct EngineLoad {
  int32_t running_sequences = 0;
  int32_t waiting_sequences = 0;  // parked ones included
  int32_t parked_sequences = 0;
  int32_t leased_blocks = 0;  // referenced by sequences
  int32_t cached_blocks = 0;  // held by the prefix index only
  int32_t free_blocks = 0;    // leased + cached + free == capacity
  // As WaitFor counts.
  int64_t queued_prefill_tokens = 0;
  // Of the above, what sequences over their share give up for others.
  struct Yielding {
    int32_t running_sequences = 0;
    int32_t waiting_sequences = 0;
    int32_t leased_blocks = 0;  // at most
  } yielding;
};

// What happened in one step, beside events; summed by whoever keeps metrics.
struct StepCounters {
  int32_t rows = 0;  // sequences in the step
  int32_t decode_tokens = 0;
  int32_t prefill_tokens = 0;  // computed, cached ones not included
  int32_t prefill_rows = 0;    // rows that were (part of) a prefill
  int32_t cached_tokens = 0;   // prefix hits of sequences admitted
  int32_t parked = 0;          // sequences parked while planning
  int32_t resumed = 0;         // parked sequences that run again
  int32_t admitted = 0;
  int32_t copied_blocks = 0;
  int32_t dropped_rows = 0;  // computed for sequences that had ended
};

// Changes of the prefix index since the last report, in order within each list.
struct KvChanges {
  std::vector<kv::BlockHash> stored;
  std::vector<kv::BlockHash> removed;
};

struct StepReport {
  int64_t step = 0;  // 0: nothing ran, only events (cancels, refusals)
  std::vector<PromptEvent> prompts;
  std::vector<TokenEvent> tokens;
  std::vector<FinishEvent> finishes;  // after the choice's last token
  std::vector<ErrorEvent> errors;
  std::vector<SequenceWork> works;  // of sequences that ended
  EngineLoad load;
  StepCounters counters;
  KvChanges kv_changes;
  absl::Duration compute_time;
  bool idle = false;  // nothing to do until the next command

  static StepReport Idle() {
    StepReport report;
    report.idle = true;
    return report;
  }
};

// Who waits, and who does no longer: groups of which nothing has run. Whoever
// runs without having waited for a plan is not mentioned.
struct QueueNews {
  std::vector<GroupId> queued;   // since the last plan, which left them out
  std::vector<GroupId> started;  // earlier ones that the next plan has
  bool empty() const { return queued.empty() && started.empty(); }
};

// Receives every report with an event, a step or KV changes, in order, on the
// engine thread. Must not block.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  virtual void Emit(const StepReport& report) = 0;
  // Before the plan that it is about is launched, on the same thread.
  virtual void OnQueue(const QueueNews& news) {}
};

struct EngineOptions {
  // Parameters that affect behaviour.
  int32_t block_count = 0;          // KV blocks; > 0
  int32_t max_running = 64;         // sequences in the running set
  int32_t max_step_tokens = 512;    // tokens in one step, decode first
  int32_t max_prefill_chunk = 256;  // prompt tokens of one sequence in a step
  // Prompt tokens of all sequences in a step: the longest that a running
  // decode waits for a token, and how finely prompts take turns.
  int32_t max_prefill_tokens = 512;
  int32_t max_waiting = 1024;  // sequences that wait; more: kQueueFull
  int32_t context_length = 0;  // prompt plus output; > 0
  int32_t depth = 1;           // plans in flight; >= 1
  // Plans among which running decodes are spread, so that each stage of a
  // pipeline has one to compute; >= 1. More than `depth` count as so many.
  int32_t micro_batches = 1;
  bool prefix_cache = true;
  // Position from which state depends on the prompt's length; 0: never.
  int32_t unscaled_context_length = 0;
  // What the hash root stands for.
  std::string weights_id;
  std::string numerics_class;
  std::string fingerprint;

  // Names the flag, the limit and the value.
  absl::Status Validate() const;
};

class Engine {
 public:
  // `runner`, `sink` and `clock` must outlive the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, ModelRunner* runner, EngineSink* sink,
      const Clock* clock);
  ~Engine();

  // Thread-safe. Queues the group. Errors, with nothing started: kQueueFull
  // (with a retry time), kKvExhausted when the group can never fit,
  // kPromptTooLong, kInvalidField, kDraining.
  absl::Status Submit(GroupRequest request);

  // Thread-safe. Ends the group; its blocks are free within one step, and no
  // event of it follows the report that is being emitted. Wins over a submit
  // that is still queued.
  void Cancel(GroupId id);

  // Thread-safe. Ends these choices of the group as Cancel ends all; indices
  // that are not running are ignored. The other choices go on, also where one
  // of these computes their prompt. When none is left the group is over,
  // without an event of its own; an error that it had before is still told.
  void CancelChoices(GroupId id, std::vector<int32_t> choices);

  // Thread-safe. Refuses new groups with kDraining from now on.
  void StartDrain();

  // Thread-safe. Whether no group is queued, waiting or running, and the last
  // event of each was emitted.
  bool Drained() const;

  // Thread-safe. Load after the last step, and what was submitted since.
  EngineLoad load() const;

  // Thread-safe. Every hash in the prefix index at the last step's end.
  std::vector<kv::BlockHash> CachedHashes() const;

  // Runs one step (or, with depth > 1, launches what fits and collects one).
  // An error is the runner's and sticky: every group was failed with
  // kWorkerLost.
  absl::StatusOr<StepReport> Step();

  // Steps until Stop; sleeps while there is nothing to do. Returns OK after
  // Stop, else the runner's sticky error, after every group was failed with
  // kWorkerLost.
  absl::Status Run();

  // Thread-safe. Run returns after the current step.
  void Stop();

  // Engine thread. Recounts blocks and references; kInternal when the books do
  // not balance. For tests.
  absl::Status Audit() const;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_ENGINE_H_
