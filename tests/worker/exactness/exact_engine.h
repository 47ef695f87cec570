// The real engine over the real runner and the cpu backend, stepped by a test
// that sees every plan and every report.
#ifndef CARAVAN_TESTS_WORKER_EXACTNESS_EXACT_ENGINE_H_
#define CARAVAN_TESTS_WORKER_EXACTNESS_EXACT_ENGINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "worker/engine/engine.h"
#include "worker/model/model_loader.h"
#include "worker/ops/backend.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {

// A model packed for a cpu backend with so many threads and these types. Loaded
// once for a process; dies where it cannot be loaded.
struct ThreadedModel {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<LoadedModel> model;
};
const ThreadedModel& LoadThreaded(const std::string& directory, int threads,
                                  const NumericsOptions& numerics);

// Passes everything on and remembers the rows of every plan.
class SpyRunner final : public ModelRunner {
 public:
  explicit SpyRunner(ModelRunner* runner) : runner_(*runner) {}

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override { runner_.DropSequence(id); }
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override { return runner_.Collect(); }
  int in_flight() const override { return runner_.in_flight(); }

  struct Row {
    int64_t step = 0;
    SequenceId sequence = 0;
    int32_t first_position = 0;
    int32_t token_count = 0;
    bool sample = false;
    std::vector<BlockId> blocks;
  };
  const std::vector<Row>& rows() const { return rows_; }
  // Sequences of a prompt, in the order in which they were added.
  std::vector<SequenceId> SequencesOf(const std::vector<TokenId>* prompt) const;

 private:
  ModelRunner& runner_;
  std::vector<Row> rows_;
  std::vector<std::pair<const std::vector<TokenId>*, SequenceId>> added_;
};

struct ExactOptions {
  NumericsOptions numerics = {};
  int threads = 1;
  int depth = 1;
  int32_t chunk = 512;
  int32_t block_count = 64;
  int32_t max_running = 64;
  int32_t max_step_tokens = 2560;
  int32_t context_length = 0;
};

using ChoiceStream = std::vector<ScoredToken>;

class ExactEngine final : public EngineSink {
 public:
  ExactEngine(const std::string& directory, const ExactOptions& options);

  // Both fail the test on an error.
  void Submit(GroupRequest request);
  StepReport Step();
  void StepUntilIdle();

  void Emit(const StepReport& report) override;

  const SpyRunner& spy() const { return spy_; }
  const std::vector<StepReport>& reports() const { return reports_; }
  EngineLoad load() const { return engine_->load(); }
  int Parked() const;  // how often, in all
  const ChoiceStream& Stream(GroupId group, int32_t choice) {
    return streams_[{group, choice}];
  }
  const std::vector<ScoredToken>& Scores(GroupId group) {
    return scores_[group];
  }
  int32_t CachedTokens(GroupId group) { return cached_[group]; }

 private:
  std::unique_ptr<ShardRunner> runner_;
  SpyRunner spy_;
  std::unique_ptr<Engine> engine_;
  std::vector<StepReport> reports_;
  std::map<std::pair<GroupId, int32_t>, ChoiceStream> streams_;
  std::map<GroupId, std::vector<ScoredToken>> scores_;
  std::map<GroupId, int32_t> cached_;
};

// Whether tokens, ranks, candidates and the bits of every logprob are equal.
bool SameBits(const ChoiceStream& a, const ChoiceStream& b);
// Where two streams differ, in words.
std::string Difference(const ChoiceStream& a, const ChoiceStream& b);

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_WORKER_EXACTNESS_EXACT_ENGINE_H_
