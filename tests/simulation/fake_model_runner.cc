#include "tests/simulation/fake_model_runner.h"

#include <algorithm>
#include <utility>

#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9;
  x ^= x >> 32;
  return x;
}

float LogprobOf(uint64_t bits) {
  return -static_cast<float>(bits % 100000) / 1000.0f;
}

bool Contains(const std::vector<TokenId>& ids, TokenId id) {
  return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

void FakeModelRunner::FakeSequence::Append(TokenId id) {
  last = Mix(last, static_cast<uint64_t>(id));
  prefix.push_back(last);
  ids.push_back(id);
}

FakeModelRunner::FakeSequence FakeModelRunner::Start(
    const FakeModelOptions& options, SequenceSpec spec) {
  FakeSequence sequence;
  sequence.last =
      Mix(1, kv::LengthSalt(static_cast<int32_t>(spec.prompt->size()),
                            options.unscaled_context_length));
  for (const TokenId id : *spec.prompt) sequence.Append(id);
  for (const TokenId id : spec.output) sequence.Append(id);
  sequence.spec = std::move(spec);
  return sequence;
}

ScoredToken FakeModelRunner::Sample(const FakeModelOptions& options,
                                    const FakeSequence& sequence,
                                    int32_t output_position) {
  const SequenceSpec& spec = sequence.spec;
  const uint64_t logits =
      sequence.prefix[spec.prompt->size() + output_position - 1];
  uint64_t draw = logits;
  if (spec.sampling.temperature > 0) {
    draw = Mix(Mix(draw, spec.sampling.seed),
               Mix(static_cast<uint64_t>(spec.choice), output_position));
  }
  ScoredToken token;
  token.token_id = static_cast<TokenId>(draw % options.vocabulary_size);
  while (output_position < spec.min_tokens &&
         Contains(spec.end_ids, token.token_id)) {
    token.token_id = (token.token_id + 1) % options.vocabulary_size;
  }
  if (spec.sampling.logprob_count) {
    token.logprob = LogprobOf(Mix(logits, token.token_id));
    token.rank = 1;
  }
  return token;
}

ScoredToken FakeModelRunner::ScorePrompt(const FakeSequence& sequence,
                                         int32_t position) {
  const TokenId id = (*sequence.spec.prompt)[position];
  return {.token_id = id,
          .logprob = LogprobOf(Mix(sequence.prefix[position - 1], id)),
          .rank = 1,
          .candidates = {}};
}

void FakeModelRunner::AddSequence(SequenceSpec spec) {
  commands_.emplace_back(std::move(spec));
}

void FakeModelRunner::DropSequence(SequenceId id) {
  commands_.emplace_back(id);
}

absl::Status FakeModelRunner::Launch(BatchPlan plan) {
  CheckLaunch(plan);
  plans_.push_back(plan);
  commands_.emplace_back(std::move(plan));
  ++in_flight_;
  return absl::OkStatus();
}

void FakeModelRunner::CheckLaunch(const BatchPlan& plan) {
  if (plan.empty()) Violate("an empty plan was launched");
  std::set<SequenceId> seen;
  for (const PlanRow& row : plan.rows) {
    if (!seen.insert(row.sequence).second) {
      Violate(StrCat("sequence ", row.sequence, " is in a plan twice"));
    }
    if (row.sample && !sampling_.insert(row.sequence).second) {
      Violate(StrCat("sequence ", row.sequence, " is in two sampling plans"));
    }
  }
}

absl::StatusOr<StepResult> FakeModelRunner::Collect() {
  if (std::exchange(fail_collect_, false)) {
    return MakeError(Reason::kInternal, "the fake device fell off the bus");
  }
  // Executed as late as can be: what the engine did since must not matter.
  ApplyUntilPlan();
  const BatchPlan plan = std::move(std::get<BatchPlan>(commands_.front()));
  commands_.pop_front();
  --in_flight_;
  return Execute(plan);
}

// Applies what stands before the oldest launched plan.
void FakeModelRunner::ApplyUntilPlan() {
  while (!commands_.empty() &&
         !std::holds_alternative<BatchPlan>(commands_.front())) {
    Command command = std::move(commands_.front());
    commands_.pop_front();
    if (auto* spec = std::get_if<SequenceSpec>(&command)) {
      const SequenceId id = spec->id;
      if (!sequences_.emplace(id, Start(options_, std::move(*spec))).second) {
        Violate(StrCat("sequence ", id, " was added twice"));
      }
    } else if (sequences_.erase(std::get<SequenceId>(command)) == 0) {
      Violate("an unknown sequence was dropped");
    }
  }
}

int FakeModelRunner::known_sequences() {
  ApplyUntilPlan();
  return static_cast<int>(sequences_.size());
}

StepResult FakeModelRunner::Execute(const BatchPlan& plan) {
  for (const PlanBlockCopy& copy : plan.copies) {
    storage_[copy.target] = storage_[copy.source];
  }
  // No row may lean on what another row of the same plan writes.
  for (const PlanRow& row : plan.rows) CheckRow(row);
  written_.clear();
  for (const PlanRow& row : plan.rows) Store(row);
  StepResult result{
      .step = plan.step,
      .rows = {},
      .compute_time = absl::Microseconds(16 + plan.token_count())};
  for (const PlanRow& row : plan.rows) result.rows.push_back(Compute(row));
  return result;
}

void FakeModelRunner::CheckRow(const PlanRow& row) {
  const std::string name = StrCat("sequence ", row.sequence);
  const auto it = sequences_.find(row.sequence);
  if (it == sequences_.end()) return Violate(name + " is not known");
  const FakeSequence& sequence = it->second;
  const auto end = row.first_position + static_cast<int32_t>(row.tokens.size());
  if (row.tokens.empty() || end > static_cast<int32_t>(sequence.ids.size()) ||
      !std::equal(row.tokens.begin(), row.tokens.end(),
                  sequence.ids.begin() + row.first_position)) {
    return Violate(StrCat(name, " has wrong tokens at ", row.first_position));
  }
  if (static_cast<int32_t>(row.blocks.size()) * 16 < end) {
    return Violate(name + " has too few blocks");
  }
  const int32_t standing =
      std::min(end, std::max(row.first_position, row.first_stored_position));
  for (int32_t p = 0; p < standing; ++p) {
    if (storage_[row.blocks[p / 16]][p % 16] != sequence.prefix[p]) {
      return Violate(StrCat(name, " reads a wrong position ", p, " of block ",
                            row.blocks[p / 16]));
    }
  }
  const bool last = end == static_cast<int32_t>(sequence.ids.size());
  const auto output =
      static_cast<int32_t>(sequence.ids.size() - sequence.spec.prompt->size());
  if (row.sample && (!last || row.output_position != output)) {
    Violate(StrCat(name, " samples at a wrong position ", end));
  }
}

void FakeModelRunner::Store(const PlanRow& row) {
  const auto it = sequences_.find(row.sequence);
  if (it == sequences_.end()) return;
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const int32_t p = row.first_position + static_cast<int32_t>(i);
    if (p < row.first_stored_position) continue;
    const BlockId block = row.blocks[p / 16];
    if (!written_.emplace(block, p % 16).second) {
      Violate(StrCat("block ", block, " is written twice in a plan"));
    }
    storage_[block][p % 16] = it->second.prefix[p];
  }
}

RowResult FakeModelRunner::Compute(const PlanRow& row) {
  RowResult result;
  result.sequence = row.sequence;
  const auto it = sequences_.find(row.sequence);
  if (it == sequences_.end()) return result;
  FakeSequence& sequence = it->second;
  const auto end = row.first_position + static_cast<int32_t>(row.tokens.size());
  const auto prompt = static_cast<int32_t>(sequence.spec.prompt->size());
  if (row.score_prompt) {
    result.first_scored_position = row.first_position + 1;
    for (int32_t p = row.first_position + 1; p <= std::min(end, prompt - 1);
         ++p) {
      result.prompt_scores.push_back(ScorePrompt(sequence, p));
    }
  }
  if (!row.sample) return result;
  sampling_.erase(row.sequence);
  if (sequence.spec.prompt->front() == poison_) {
    result.status = MakeError(Reason::kNumericFault, "the logits have a NaN");
    return result;
  }
  result.token = Sample(options_, sequence, row.output_position);
  sequence.Append(result.token->token_id);
  return result;
}

void FakeModelRunner::Violate(std::string what) {
  violations_.push_back(std::move(what));
}

ReferenceStream FakeModelRunner::Alone(const FakeModelOptions& options,
                                       const GroupRequest& request,
                                       const ChoiceStart& choice) {
  FakeSequence sequence = Start(options, {.id = 1,
                                          .choice = choice.index,
                                          .prompt = request.prompt,
                                          .output = choice.output,
                                          .sampling = request.sampling,
                                          .min_tokens = request.stop.min_tokens,
                                          .end_ids = request.end_ids});
  const auto prompt = static_cast<int32_t>(request.prompt->size());
  const int32_t most =
      std::min(request.stop.max_tokens, options.context_length - prompt);
  ReferenceStream stream;
  auto count = static_cast<int32_t>(choice.output.size());
  const auto stopped = [&] {
    return count > request.stop.min_tokens &&
           Contains(request.end_ids, sequence.ids.back());
  };
  while (count < most && !stopped()) {
    stream.tokens.push_back(Sample(options, sequence, count));
    sequence.Append(stream.tokens.back().token_id);
    ++count;
  }
  stream.end = stopped() ? ChoiceEnd::kStop : ChoiceEnd::kLength;
  return stream;
}

std::vector<ScoredToken> FakeModelRunner::PromptScores(
    const FakeModelOptions& options, const GroupRequest& request) {
  const FakeSequence sequence = Start(options, {.id = 1,
                                                .choice = 0,
                                                .prompt = request.prompt,
                                                .output = {},
                                                .sampling = request.sampling,
                                                .min_tokens = 0,
                                                .end_ids = {}});
  std::vector<ScoredToken> scores;
  for (size_t p = 1; p < request.prompt->size(); ++p) {
    scores.push_back(ScorePrompt(sequence, static_cast<int32_t>(p)));
  }
  return scores;
}

}  // namespace caravan::worker
