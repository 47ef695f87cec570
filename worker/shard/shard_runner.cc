#include "worker/shard/shard_runner.h"

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

ScoredToken ToScoredToken(const TokenScore& score, bool with_logprob) {
  ScoredToken token;
  token.token_id = score.token_id;
  if (!with_logprob) return token;
  token.logprob = score.logprob;
  token.rank = score.rank;
  for (const TokenCandidate& candidate : score.candidates) {
    token.candidates.push_back({candidate.token_id, candidate.logprob});
  }
  return token;
}

absl::Status NumericFault(SequenceId id) {
  return MakeError(Reason::kNumericFault,
                   StrCat("logits of sequence ", id,
                          " must be finite; got a NaN or an infinity"));
}

std::vector<BlockCopy> CopiesOf(const BatchPlan& plan) {
  std::vector<BlockCopy> copies;
  copies.reserve(plan.copies.size());
  for (const PlanBlockCopy& copy : plan.copies) {
    copies.push_back({copy.source, copy.target});
  }
  return copies;
}

// One result per row; rows of faulty sequences have their status already.
StepResult EmptyResult(const BatchPlan& plan,
                       const RunnerSequences& sequences) {
  StepResult result;
  result.step = plan.step;
  for (const PlanRow& row : plan.rows) {
    RowResult& added = result.rows.emplace_back();
    added.sequence = row.sequence;
    added.status = sequences.at(row.sequence).fault;
    added.first_scored_position = row.first_position + 1;
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardRunner>> ShardRunner::Create(
    const LoadedModel* model, Backend* backend,
    const ShardRunnerOptions& options) {
  const ModelConfig& config = model->description.config;
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<KvStorage> kv,
      backend->AllocateKv(KvSpecOf(config, options.block_count)));
  CARAVAN_RETURN_IF_ERROR(
      backend->ReserveScratch(ScratchSpecOf(config, options.max_step_tokens)));
  CARAVAN_ASSIGN_OR_RETURN(
      Activations activations,
      Activations::Allocate(config, options.max_step_tokens,
                            options.max_logits_rows));
  return std::unique_ptr<ShardRunner>(new ShardRunner(
      model, backend, options, std::move(kv), std::move(activations)));
}

ShardRunner::ShardRunner(const LoadedModel* model, Backend* backend,
                         const ShardRunnerOptions& options,
                         std::unique_ptr<KvStorage> kv, Activations activations)
    : options_(options),
      config_(model->description.config),
      rope_(config_),
      ops_(backend),
      llama_(&config_, &model->weights, backend),
      kv_(std::move(kv)),
      activations_(std::move(activations)),
      thread_([this] { ComputeLoop(); }) {}

ShardRunner::~ShardRunner() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

size_t ShardRunner::arena_bytes() const {
  return Activations::PlannedBytes(config_, options_.max_step_tokens,
                                   options_.max_logits_rows);
}

void ShardRunner::Push(Command command) {
  absl::MutexLock lock(&mutex_);
  commands_.push_back(std::move(command));
}

void ShardRunner::AddSequence(SequenceSpec spec) { Push(std::move(spec)); }

void ShardRunner::DropSequence(SequenceId id) { Push(id); }

absl::Status ShardRunner::Launch(BatchPlan plan) {
  if (in_flight_ >= options_.max_in_flight) {
    return MakeError(Reason::kInternal,
                     StrCat("plans in flight must be at most ",
                            options_.max_in_flight, "; got one more"));
  }
  if (plan.token_count() > options_.max_step_tokens) {
    return MakeError(
        Reason::kInternal,
        StrCat("tokens of a plan must be at most ", options_.max_step_tokens,
               "; got ", plan.token_count()));
  }
  Push(std::move(plan));
  ++in_flight_;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> ShardRunner::Collect() {
  if (in_flight_ == 0) {
    return MakeError(Reason::kInternal, "no plan is in flight");
  }
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !results_.empty();
  };
  mutex_.Await(absl::Condition(&ready));
  const auto result = std::move(results_.front());
  results_.pop_front();
  --in_flight_;
  return *std::move(result);
}

void ShardRunner::ComputeLoop() {
  std::fesetenv(FE_DFL_ENV);  // rounding to nearest, subnormals kept
  while (true) {
    std::optional<Command> command;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !commands_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (stopping_) return;
      command = std::move(commands_.front());
      commands_.pop_front();
    }
    Apply(*std::move(command));
  }
}

void ShardRunner::Apply(Command command) {
  if (SequenceSpec* const spec = std::get_if<SequenceSpec>(&command)) {
    const SequenceId id = spec->id;
    sequences_.insert_or_assign(
        id, RunnerSequence(std::move(*spec), config_.vocab_size));
  } else if (const SequenceId* const id = std::get_if<SequenceId>(&command)) {
    sequences_.erase(*id);
  } else {
    using Result = absl::StatusOr<StepResult>;
    auto result =
        failure_.ok()
            ? std::make_unique<Result>(Compute(std::get<BatchPlan>(command)))
            : std::make_unique<Result>(failure_);
    failure_ = result->status();
    absl::MutexLock lock(&mutex_);
    results_.push_back(std::move(result));
  }
}

absl::StatusOr<StepResult> ShardRunner::Compute(const BatchPlan& plan) {
  const auto start = std::chrono::steady_clock::now();
  CARAVAN_ASSIGN_OR_RETURN(const StepBatch batch,
                           MakeStepBatch(plan, sequences_));
  StepResult result = EmptyResult(plan, sequences_);
  CARAVAN_RETURN_IF_ERROR(Forward(plan, batch));
  std::span<const LogitsRequest> rest = batch.requests;
  while (!rest.empty()) {
    const size_t count =
        std::min<size_t>(rest.size(), activations_.max_logits_rows());
    CARAVAN_RETURN_IF_ERROR(
        SampleSlice(plan, batch, rest.first(count), result));
    rest = rest.subspan(count);
  }
  result.compute_time =
      absl::FromChrono(std::chrono::steady_clock::now() - start);
  return result;
}

absl::Status ShardRunner::Forward(const BatchPlan& plan,
                                  const StepBatch& batch) {
  if (!plan.copies.empty()) {
    const std::vector<BlockCopy> copies = CopiesOf(plan);
    CARAVAN_RETURN_IF_ERROR(ops_.CopyBlocks({copies, kv_.get()}));
  }
  if (batch.ids.empty()) return absl::OkStatus();
  FillRope(batch);
  return llama_.Forward({batch.ids, batch.slots, batch.rows}, kv_.get(),
                        activations_);
}

void ShardRunner::FillRope(const StepBatch& batch) {
  const int64_t tokens = std::ssize(batch.ids);
  const View<float> cos = activations_.cos(tokens);
  const View<float> sin = activations_.sin(tokens);
  const size_t half = static_cast<size_t>(config_.head_dim / 2);
  for (int64_t t = 0; t < tokens; ++t) {
    rope_.Fill(batch.positions[t], batch.prompt_lengths[t], {cos.row(t), half},
               {sin.row(t), half});
  }
}

absl::Status ShardRunner::SampleSlice(const BatchPlan& plan,
                                      const StepBatch& batch,
                                      std::span<const LogitsRequest> slice,
                                      StepResult& result) {
  std::vector<int32_t> tokens;
  std::vector<SampleRow> samples;
  std::vector<ScoreRow> scores;
  for (const LogitsRequest& request : slice) {
    const int32_t row = static_cast<int32_t>(tokens.size());
    const PlanRow& plan_row = plan.rows[request.plan_row];
    const RunnerSequence& sequence = sequences_.at(plan_row.sequence);
    tokens.push_back(request.token);
    if (request.sample) {
      samples.push_back({row, sequence.state.get(), plan_row.output_position});
    } else {
      scores.push_back({row, request.scored_id, sequence.prompt_candidates});
    }
  }
  CARAVAN_RETURN_IF_ERROR(
      llama_.Logits(tokens, std::ssize(batch.ids), activations_));
  std::vector<TokenScore> sampled(samples.size());
  std::vector<TokenScore> scored(scores.size());
  CARAVAN_RETURN_IF_ERROR(ops_.Sample({activations_.logits(std::ssize(tokens)),
                                       samples, scores, sampled, scored}));
  auto next_sampled = sampled.begin();
  auto next_scored = scored.begin();
  for (const LogitsRequest& request : slice) {
    const TokenScore& score = request.sample ? *next_sampled++ : *next_scored++;
    TakeScore(request, score, result.rows[request.plan_row]);
  }
  return absl::OkStatus();
}

void ShardRunner::TakeScore(const LogitsRequest& request,
                            const TokenScore& score, RowResult& row) {
  if (!row.status.ok()) return;
  if (!score.finite) {
    row.status = NumericFault(row.sequence);
    row.token.reset();
    return;
  }
  if (!request.sample) {
    row.prompt_scores.push_back(ToScoredToken(score, /*with_logprob=*/true));
    return;
  }
  SamplingState& state = *sequences_.at(row.sequence).state;
  row.token = ToScoredToken(score, state.params().logprob_count.has_value());
  state.Append(score.token_id);
}

}  // namespace caravan::worker
