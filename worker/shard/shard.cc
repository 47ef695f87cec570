#include "worker/shard/shard.h"

#include <algorithm>
#include <vector>

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

}  // namespace

absl::StatusOr<std::unique_ptr<Shard>> Shard::Create(
    const LoadedModel* model, Backend* backend, const ShardOptions& options) {
  const ModelConfig& config = model->description.config;
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<KvStorage> kv,
      backend->AllocateKv(KvSpecOf(config, options.block_count)));
  CARAVAN_RETURN_IF_ERROR(backend->ReserveScratch(
      ScratchSpecOf(config, options.max_step_tokens, options.max_logits_rows)));
  CARAVAN_ASSIGN_OR_RETURN(
      Activations activations,
      Activations::Allocate(config, options.max_step_tokens,
                            options.max_logits_rows, backend));
  return std::unique_ptr<Shard>(new Shard(
      model, backend, options, std::move(kv), std::move(activations)));
}

Shard::Shard(const LoadedModel* model, Backend* backend,
             const ShardOptions& options, std::unique_ptr<KvStorage> kv,
             Activations activations)
    : options_(options),
      config_(model->description.config),
      rope_(config_),
      ops_(backend),
      llama_(&config_, &model->weights, backend),
      kv_(std::move(kv)),
      activations_(std::move(activations)) {}

size_t Shard::arena_bytes() const { return activations_.bytes(); }

void Shard::AddSequence(SequenceSpec spec) {
  const SequenceId id = spec.id;
  sequences_.insert_or_assign(
      id, RunnerSequence(std::move(spec), config_.vocab_size));
}

absl::Status Shard::Begin(BatchPlan plan) {
  if (plan.token_count() > options_.max_step_tokens) {
    return MakeError(
        Reason::kInternal,
        StrCat("tokens of a plan must be at most ", options_.max_step_tokens,
               "; got ", plan.token_count()));
  }
  plan_ = std::move(plan);
  batch_ = StepBatch();
  CARAVAN_ASSIGN_OR_RETURN(batch_, MakeStepBatch(plan_, sequences_));
  return absl::OkStatus();
}

std::span<float> Shard::hidden() {
  const int64_t tokens = std::ssize(batch_.ids);
  const View<float> x = activations_.x(tokens);
  return {x.data, static_cast<size_t>(tokens * config_.hidden_size)};
}

// One result per row; rows of faulty sequences have their status already.
StepResult Shard::EmptyResult() const {
  StepResult result;
  result.step = plan_.step;
  for (const PlanRow& row : plan_.rows) {
    RowResult& added = result.rows.emplace_back();
    added.sequence = row.sequence;
    added.status = sequences_.at(row.sequence).fault;
    added.first_scored_position = row.first_position + 1;
  }
  return result;
}

absl::Status Shard::Forward() {
  if (!plan_.copies.empty()) {
    const std::vector<BlockCopy> copies = CopiesOf(plan_);
    CARAVAN_RETURN_IF_ERROR(ops_.CopyBlocks({copies, kv_.get()}));
  }
  if (batch_.ids.empty()) return absl::OkStatus();
  FillRope();
  return llama_.Forward({batch_.ids, batch_.slots, batch_.rows}, kv_.get(),
                        activations_);
}

void Shard::FillRope() {
  const int64_t tokens = std::ssize(batch_.ids);
  const View<float> cos = activations_.cos(tokens);
  const View<float> sin = activations_.sin(tokens);
  const size_t half = static_cast<size_t>(config_.head_dim / 2);
  for (int64_t t = 0; t < tokens; ++t) {
    rope_.Fill(batch_.positions[t], batch_.prompt_lengths[t],
               {cos.row(t), half}, {sin.row(t), half});
  }
}

absl::StatusOr<StepResult> Shard::Sample() {
  StepResult result = EmptyResult();
  std::span<const LogitsRequest> rest = batch_.requests;
  while (!rest.empty()) {
    const size_t count =
        std::min<size_t>(rest.size(), activations_.max_logits_rows());
    CARAVAN_RETURN_IF_ERROR(SampleSlice(rest.first(count), result));
    rest = rest.subspan(count);
  }
  return result;
}

absl::Status Shard::SampleSlice(std::span<const LogitsRequest> slice,
                                StepResult& result) {
  std::vector<int32_t> tokens;
  std::vector<SampleRow> samples;
  std::vector<ScoreRow> scores;
  for (const LogitsRequest& request : slice) {
    const int32_t row = static_cast<int32_t>(tokens.size());
    const PlanRow& plan_row = plan_.rows[request.plan_row];
    const RunnerSequence& sequence = sequences_.at(plan_row.sequence);
    tokens.push_back(request.token);
    if (request.sample) {
      samples.push_back({row, sequence.state.get(), plan_row.output_position});
    } else {
      scores.push_back({row, request.scored_id, sequence.prompt_candidates});
    }
  }
  CARAVAN_RETURN_IF_ERROR(
      llama_.Logits(tokens, std::ssize(batch_.ids), activations_));
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

void Shard::TakeScore(const LogitsRequest& request, const TokenScore& score,
                      RowResult& row) {
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
