// A whole model on the cuda backend: activations in the device's memory, a
// step's inputs copied once, and what was planned is what is allocated.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "worker/model/llama.h"
#include "worker/model/memory_plan.h"
#include "worker/model/model_loader.h"
#include "worker/model/rope.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/ops/sample.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::RepositoryPath;

constexpr int32_t kBlocks = 8;
constexpr int32_t kMaxTokens = 16;

// On the machine's device where `machine`, else on the emulated one.
absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(
    bool machine, const NumericsOptions& numerics) {
  CudaOptions options;
  options.numerics = numerics;
  if (machine) return MakeCudaBackend(options);
  return cuda::MakeBackendOn(
      std::make_unique<cuda::EmulatedDevice>(cuda::EmulatedOptions()), options);
}

// The demo model on one backend.
class Model {
 public:
  explicit Model(std::unique_ptr<Backend> backend)
      : backend_(std::move(backend)) {
    ModelOptions options;
    options.memory.max_step_tokens = kMaxTokens;
    options.memory.max_logits_rows = kMaxTokens;
    auto loaded =
        LoadModel(RepositoryPath("deploy/demo-model"), options, backend_.get());
    EXPECT_OK(loaded.status());
    loaded_ = *std::move(loaded);
    kv_ = *backend_->AllocateKv(KvSpecOf(config(), kBlocks));
    EXPECT_OK(backend_->ReserveScratch(
        ScratchSpecOf(config(), kMaxTokens, kMaxTokens)));
    activations_ = *Activations::Allocate(config(), kMaxTokens, kMaxTokens,
                                          backend_.get());
  }

  const ModelConfig& config() const { return loaded_->description.config; }
  const MemoryPlan& plan() const { return loaded_->description.plan; }
  const Weights& weights() const { return loaded_->weights; }
  const KvStorage& kv() const { return *kv_; }
  const Activations& activations() const { return activations_; }
  const Backend& backend() const { return *backend_; }

  // The greedy token after `ids` at `first_position`, scored.
  TokenScore Step(const std::vector<int32_t>& ids, int32_t first_position) {
    const int64_t tokens = std::ssize(ids);
    const Rope rope(config());
    const size_t half = static_cast<size_t>(config().head_dim / 2);
    std::vector<int64_t> slots;
    for (int32_t t = 0; t < tokens; ++t) {
      rope.Fill(first_position + t, 1, {activations_.cos(tokens).row(t), half},
                {activations_.sin(tokens).row(t), half});
      slots.push_back(first_position + t);  // of blocks 0, 1, ...
    }
    const std::vector<BlockId> blocks = {0, 1, 2, 3};
    const AttentionRow row = {.first_token = 0,
                              .token_count = static_cast<int32_t>(tokens),
                              .first_position = first_position,
                              .blocks = blocks};
    Llama llama(&config(), &weights(), backend_.get());
    EXPECT_OK(llama.Forward({ids, slots, {&row, 1}}, kv_.get(), activations_));
    const int32_t last = static_cast<int32_t>(tokens) - 1;
    EXPECT_OK(llama.Logits({&last, 1}, tokens, activations_));
    sampling::SamplingParams params;
    params.temperature = 0;
    params.logprob_count = 5;
    const SamplingState state(params, 0, 0, {}, ids, {});
    const SampleRow sample = {
        .logits_row = 0, .state = &state, .output_position = 0};
    TokenScore score;
    EXPECT_OK(backend_->Sample({.logits = activations_.logits(1),
                                .samples = {&sample, 1},
                                .scores = {},
                                .sampled = {&score, 1},
                                .scored = {}}));
    return score;
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<KvStorage> kv_;
  Activations activations_;
};

class CudaModelTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const absl::Status status = MakeCuda(GetParam(), {}).status();
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
  std::unique_ptr<Backend> Cuda(const NumericsOptions& numerics) {
    return *MakeCuda(GetParam(), numerics);
  }
};

TEST_P(CudaModelTest, TheFp32ClassContinuesAsTheReferenceDoes) {
  Model reference(*MakeReferenceBackend(NumericsOptions()));
  Model cuda(Cuda({ActivationType::kFp32, DType::kFp32}));
  std::vector<int32_t> ids = {1, 9, 14, 27, 5};
  int32_t position = 0;
  for (int i = 0; i < 4; ++i) {
    const TokenScore expected = reference.Step(ids, position);
    const TokenScore actual = cuda.Step(ids, position);
    ASSERT_EQ(expected.token_id, actual.token_id);
    ASSERT_EQ(expected.logprob, actual.logprob);
    ASSERT_EQ(expected.candidates.size(), actual.candidates.size());
    for (size_t c = 0; c < expected.candidates.size(); ++c) {
      ASSERT_EQ(expected.candidates[c].logprob, actual.candidates[c].logprob);
    }
    position += static_cast<int32_t>(ids.size());
    ids = {expected.token_id};
  }
}

TEST_P(CudaModelTest, WhatIsPlannedIsWhatIsAllocated) {
  for (const ActivationType activations :
       {ActivationType::kFp32, ActivationType::kBf16}) {
    Model model(Cuda({activations, DType::kBf16}));
    model.Step({1, 9, 14}, 0);
    const MemoryPlan& plan = model.plan();
    EXPECT_EQ(plan.weight_bytes, model.weights().bytes);
    EXPECT_EQ(plan.arena_bytes, model.activations().bytes());
    EXPECT_EQ(plan.scratch_bytes, model.backend().scratch_bytes());
    EXPECT_EQ(model.backend().KvBytes(KvSpecOf(model.config(), kBlocks)),
              model.kv().bytes);
  }
}

TEST_P(CudaModelTest, APlannerPlansWhatTheDeviceAllocates) {
  const Model model(Cuda({ActivationType::kBf16, DType::kBf16}));
  const auto planner = *MakeCudaPlanner(CudaOptions());
  ModelOptions options;
  options.memory.max_step_tokens = kMaxTokens;
  options.memory.max_logits_rows = kMaxTokens;
  ASSERT_OK_AND_ASSIGN(
      const ModelDescription description,
      DescribeModel(RepositoryPath("deploy/demo-model"), options, *planner));
  EXPECT_EQ(description.plan.fixed_bytes(), model.plan().fixed_bytes());
  EXPECT_EQ(description.plan.kv_block_bytes, model.plan().kv_block_bytes);
}

INSTANTIATE_TEST_SUITE_P(Emulated, CudaModelTest, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Machine, CudaModelTest, ::testing::Values(true));

}  // namespace
}  // namespace caravan::worker
