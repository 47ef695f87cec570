#include "tests/golden/golden_model.h"

#include <algorithm>
#include <numeric>

#include "common/status/status_macros.h"

namespace caravan::worker {
namespace {

constexpr int32_t kMaxTokens = 64;
constexpr int32_t kBlocks = 40;  // 640 positions

}  // namespace

absl::StatusOr<std::unique_ptr<GoldenModel>> GoldenModel::Load(
    const std::string& directory, const GoldenBackend& backend,
    std::vector<std::string> overrides) {
  auto model = std::make_unique<GoldenModel>();
  CARAVAN_ASSIGN_OR_RETURN(model->backend_, backend.make());
  ModelOptions options;
  options.overrides = std::move(overrides);
  CARAVAN_ASSIGN_OR_RETURN(
      model->loaded_, LoadModel(directory, options, model->backend_.get()));
  const ModelConfig& config = model->loaded_->description.config;
  CARAVAN_ASSIGN_OR_RETURN(
      model->kv_, model->backend_->AllocateKv(KvSpecOf(config, kBlocks)));
  CARAVAN_ASSIGN_OR_RETURN(model->activations_,
                           Activations::Allocate(config, kMaxTokens, kMaxTokens,
                                                 model->backend_.get()));
  model->llama_.emplace(&config, &model->loaded_->weights,
                        model->backend_.get());
  model->rope_.emplace(config);
  // Blocks in an order that is not theirs.
  model->blocks_.resize(kBlocks);
  std::iota(model->blocks_.rbegin(), model->blocks_.rend(), 0);
  return model;
}

void GoldenModel::Start(int32_t prompt_length) {
  position_ = 0;
  prompt_length_ = prompt_length;
}

absl::Status GoldenModel::RunChunk(std::span<const int32_t> ids,
                                   LogitRows& rows) {
  const int32_t count = static_cast<int32_t>(ids.size());
  std::vector<int64_t> slots;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t p = position_ + i;
    slots.push_back(int64_t{blocks_[p / kBlockSlots]} * kBlockSlots +
                    p % kBlockSlots);
    const View<float> cos = activations_->cos(count);
    const View<float> sin = activations_->sin(count);
    rope_->Fill(p, prompt_length_, {cos.row(i), static_cast<size_t>(cos.cols)},
                {sin.row(i), static_cast<size_t>(sin.cols)});
  }
  const AttentionRow row = {0, count, position_, blocks_};
  CARAVAN_RETURN_IF_ERROR(
      llama_->Forward({ids, slots, {&row, 1}}, kv_.get(), *activations_));
  std::vector<int32_t> all(count);
  std::iota(all.begin(), all.end(), 0);
  CARAVAN_RETURN_IF_ERROR(llama_->Logits(all, count, *activations_));
  const View<float> logits = activations_->logits(count);
  for (int32_t i = 0; i < count; ++i) {
    rows.emplace_back(logits.row(i), logits.row(i) + logits.cols);
  }
  position_ += count;
  return absl::OkStatus();
}

absl::StatusOr<LogitRows> GoldenModel::Run(std::span<const int32_t> ids,
                                           int32_t chunk) {
  LogitRows rows;
  for (size_t first = 0; first < ids.size(); first += chunk) {
    const size_t count = std::min<size_t>(chunk, ids.size() - first);
    CARAVAN_RETURN_IF_ERROR(RunChunk(ids.subspan(first, count), rows));
  }
  return rows;
}

absl::StatusOr<std::vector<int32_t>> GoldenModel::Greedy(
    std::span<const int32_t> prompt, int32_t count, bool resume_each_step,
    std::span<const int32_t> end_ids) {
  const int32_t length = static_cast<int32_t>(prompt.size());
  Start(length);
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  size_t computed = 0;
  while (static_cast<int32_t>(ids.size()) < length + count) {
    if (resume_each_step) {
      Start(length);
      computed = 0;
    }
    CARAVAN_ASSIGN_OR_RETURN(const LogitRows rows,
                             Run(std::span(ids).subspan(computed), kMaxTokens));
    computed = ids.size();
    const std::vector<float>& last = rows.back();
    ids.push_back(static_cast<int32_t>(
        std::max_element(last.begin(), last.end()) - last.begin()));
    if (std::find(end_ids.begin(), end_ids.end(), ids.back()) !=
        end_ids.end()) {
      break;
    }
  }
  return std::vector<int32_t>(ids.begin() + length, ids.end());
}

}  // namespace caravan::worker
