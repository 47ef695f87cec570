// A replica's stages in one process: each with a backend and a shard of its
// own, linked by calls.
#ifndef CARAVAN_TESTS_WORKER_SHARD_LOCAL_STAGES_H_
#define CARAVAN_TESTS_WORKER_SHARD_LOCAL_STAGES_H_

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "worker/model/model_loader.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/shard/later_stage.h"
#include "worker/shard/pipeline_runner.h"
#include "worker/shard/shard.h"

namespace caravan::worker {

// Bytes as they were.
class CopiedHidden final : public HiddenStates {
 public:
  explicit CopiedHidden(std::span<const float> hidden)
      : bytes_(reinterpret_cast<const char*>(hidden.data()),
               hidden.size_bytes()) {}
  size_t size_bytes() const override { return bytes_.size(); }
  absl::Status CopyTo(std::byte* target) const override {
    std::memcpy(target, bytes_.data(), bytes_.size());
    return absl::OkStatus();
  }

 private:
  std::string bytes_;
};

// A link that is a call.
class LocalLink final : public StageLink {
 public:
  LocalLink(Shard* shard, std::unique_ptr<StageLink> next)
      : shard_(shard), next_(std::move(next)) {}

  void Start(StageLinkEvents* events) override {
    stage_ = std::make_unique<LaterStage>(shard_, std::move(next_), events,
                                          /*observer=*/nullptr);
  }
  void AddSequence(const SequenceSpec& spec) override { stage_->Push(spec); }
  void DropSequence(SequenceId id) override { stage_->Push(id); }
  // Later stages get counts, not ids, as on the wire.
  void Run(const BatchPlan& plan, std::span<const float> hidden) override {
    BatchPlan sent = plan;
    for (PlanRow& row : sent.rows) row.tokens.assign(row.tokens.size(), 0);
    stage_->Push(
        StageStep{std::move(sent), std::make_unique<CopiedHidden>(hidden)});
  }

 private:
  Shard* const shard_;
  std::unique_ptr<StageLink> next_;
  std::unique_ptr<LaterStage> stage_;
};

// Shards of all stages of a model directory.
struct LocalStages {
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<std::unique_ptr<LoadedModel>> models;
  std::vector<std::unique_ptr<Shard>> shards;

  static absl::StatusOr<LocalStages> Load(const std::string& directory,
                                          int32_t count,
                                          const ShardOptions& options) {
    LocalStages stages;
    for (int32_t i = 0; i < count; ++i) {
      CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend,
                               MakeReferenceBackend(NumericsOptions()));
      ModelOptions model_options;
      model_options.stage = {i, count};
      CARAVAN_ASSIGN_OR_RETURN(
          std::unique_ptr<LoadedModel> model,
          LoadModel(directory, model_options, backend.get()));
      CARAVAN_ASSIGN_OR_RETURN(
          std::unique_ptr<Shard> shard,
          Shard::Create(model.get(), backend.get(), options));
      stages.backends.push_back(std::move(backend));
      stages.models.push_back(std::move(model));
      stages.shards.push_back(std::move(shard));
    }
    return stages;
  }

  // The way from the first stage to the rest; there must be a second.
  std::unique_ptr<StageLink> Link() {
    std::unique_ptr<StageLink> link;
    for (size_t i = shards.size() - 1; i > 0; --i) {
      link = std::make_unique<LocalLink>(shards[i].get(), std::move(link));
    }
    return link;
  }
};

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_WORKER_SHARD_LOCAL_STAGES_H_
