#include "tests/worker/exactness/exact_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <tuple>

#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker {
namespace {

std::unique_ptr<ShardRunner> MakeRunner(const ThreadedModel& model,
                                        const ExactOptions& options) {
  return *ShardRunner::Create(model.model.get(), model.backend.get(),
                              {.block_count = options.block_count,
                               .max_step_tokens = options.max_step_tokens,
                               .max_logits_rows = 64,
                               .max_in_flight = options.depth});
}

uint32_t Bits(const std::optional<float>& value) {
  return value ? std::bit_cast<uint32_t>(*value) : 0xffffffff;
}

bool SameBits(const ScoredToken& a, const ScoredToken& b) {
  return a.token_id == b.token_id && a.rank == b.rank &&
         Bits(a.logprob) == Bits(b.logprob) &&
         std::ranges::equal(a.candidates, b.candidates,
                            [](const Candidate& x, const Candidate& y) {
                              return x.token_id == y.token_id &&
                                     Bits(x.logprob) == Bits(y.logprob);
                            });
}

std::string ToString(const ScoredToken& token) {
  return StrCat(token.token_id, " (logprob bits ", Bits(token.logprob),
                ", rank ", token.rank, ")");
}

}  // namespace

const ThreadedModel& LoadThreaded(const std::string& directory, int threads,
                                  const NumericsOptions& numerics) {
  using Key = std::tuple<std::string, int, ActivationType, DType>;
  static auto* const models = new std::map<Key, ThreadedModel>();
  ThreadedModel& loaded =
      (*models)[{directory, threads, numerics.activations, numerics.kv}];
  if (loaded.model == nullptr) {
    CpuOptions options;
    options.threads = threads;
    options.numerics = numerics;
    loaded.backend = *MakeCpuBackend(options);
    loaded.model = *LoadModel(directory, ModelOptions(), loaded.backend.get());
  }
  return loaded;
}

void SpyRunner::AddSequence(SequenceSpec spec) {
  added_.emplace_back(spec.prompt.get(), spec.id);
  runner_.AddSequence(std::move(spec));
}

absl::Status SpyRunner::Launch(BatchPlan plan) {
  for (const PlanRow& row : plan.rows) {
    rows_.push_back({.step = plan.step,
                     .sequence = row.sequence,
                     .first_position = row.first_position,
                     .token_count = static_cast<int32_t>(row.tokens.size()),
                     .sample = row.sample,
                     .blocks = row.blocks});
  }
  return runner_.Launch(std::move(plan));
}

std::vector<SequenceId> SpyRunner::SequencesOf(
    const std::vector<TokenId>* prompt) const {
  std::vector<SequenceId> ids;
  for (const auto& [added, id] : added_) {
    if (added == prompt) ids.push_back(id);
  }
  return ids;
}

ExactEngine::ExactEngine(const std::string& directory,
                         const ExactOptions& options)
    : runner_(MakeRunner(
          LoadThreaded(directory, options.threads, options.numerics), options)),
      spy_(runner_.get()) {
  const ModelConfig& config =
      LoadThreaded(directory, options.threads, options.numerics)
          .model->description.config;
  EngineOptions engine;
  engine.block_count = options.block_count;
  engine.max_running = options.max_running;
  engine.max_step_tokens = options.max_step_tokens;
  engine.max_prefill_chunk = options.chunk;
  engine.depth = options.depth;
  engine.context_length = options.context_length;
  engine.unscaled_context_length = config.unscaled_context_length();
  engine_ = *Engine::Create(engine, &spy_, this, &SystemClock::Get());
}

void ExactEngine::Submit(GroupRequest request) {
  ASSERT_OK(engine_->Submit(std::move(request)));
}

StepReport ExactEngine::Step() {
  absl::StatusOr<StepReport> report = engine_->Step();
  EXPECT_OK(report);
  EXPECT_OK(engine_->Audit());
  return report.ok() ? *std::move(report) : StepReport::Idle();
}

void ExactEngine::StepUntilIdle() {
  while (!Step().idle) {
  }
}

int ExactEngine::Parked() const {
  int parked = 0;
  for (const StepReport& report : reports_) parked += report.counters.parked;
  return parked;
}

void ExactEngine::Emit(const StepReport& report) {
  reports_.push_back(report);
  for (const TokenEvent& event : report.tokens) {
    streams_[{event.group, event.choice}].push_back(event.token);
  }
  for (const PromptEvent& event : report.prompts) {
    cached_[event.group] = event.cached_token_count;
    std::vector<ScoredToken>& scores = scores_[event.group];
    scores.insert(scores.end(), event.scores.begin(), event.scores.end());
  }
  for (const ErrorEvent& event : report.errors) {
    ADD_FAILURE() << "group " << event.group << ": " << event.status;
  }
}

bool SameBits(const ChoiceStream& a, const ChoiceStream& b) {
  return std::ranges::equal(a, b,
                            [](const ScoredToken& x, const ScoredToken& y) {
                              return SameBits(x, y);
                            });
}

std::string Difference(const ChoiceStream& a, const ChoiceStream& b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (SameBits(a[i], b[i])) continue;
    return StrCat("position ", i, ": ", ToString(a[i]), " and ",
                  ToString(b[i]));
  }
  return StrCat("lengths ", a.size(), " and ", b.size());
}

}  // namespace caravan::worker
