// A whole model on the cuda backend: activations in the device's memory, a
// step's inputs copied once, and what was planned is what is allocated.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
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

constexpr int32_t kBlocks = 32;
constexpr int32_t kMaxTokens = 16;
// Emulated contexts of several splits would take a sanitizer a minute.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// On the machine's device where `machine`, else on the emulated one.
absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(bool machine,
                                                  const CudaOptions& options) {
  if (machine) return MakeCudaBackend(options);
  cuda::EmulatedOptions emulated;
  emulated.library.emplace();
  return cuda::MakeBackendOn(std::make_unique<cuda::EmulatedDevice>(emulated),
                             options);
}

// The demo model on one backend.
class Model {
 public:
  // `weights` as in --weights.
  explicit Model(std::unique_ptr<Backend> backend,
                 const std::string& weights = "keep")
      : backend_(std::move(backend)) {
    ModelOptions options;
    options.weights = weights;
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

  // Tokens of one sequence in a step.
  struct Part {
    std::vector<int32_t> ids;
    int32_t first_position;
    std::vector<BlockId> blocks;
  };

  // The greedy token after each part, scored.
  std::vector<TokenScore> Run(const std::vector<Part>& parts) {
    std::vector<int32_t> ids, last;
    std::vector<int64_t> slots;
    std::vector<int32_t> positions;
    std::vector<AttentionRow> rows;
    for (const Part& part : parts) {
      rows.push_back({.first_token = static_cast<int32_t>(ids.size()),
                      .token_count = static_cast<int32_t>(part.ids.size()),
                      .first_position = part.first_position,
                      .blocks = part.blocks});
      for (size_t i = 0; i < part.ids.size(); ++i) {
        const int32_t position = part.first_position + static_cast<int32_t>(i);
        ids.push_back(part.ids[i]);
        positions.push_back(position);
        slots.push_back(int64_t{part.blocks[position / kBlockSlots]} *
                            kBlockSlots +
                        position % kBlockSlots);
      }
      last.push_back(static_cast<int32_t>(ids.size()) - 1);
    }
    FillRope(positions);
    Llama llama(&config(), &weights(), backend_.get());
    EXPECT_OK(llama.Forward({ids, slots, rows}, kv_.get(), activations_));
    EXPECT_OK(llama.Logits(last, std::ssize(ids), activations_));
    return Sample(std::ssize(parts));
  }

  // The greedy token after `ids` at `first_position`, scored.
  TokenScore Step(const std::vector<int32_t>& ids, int32_t first_position) {
    return Run({{ids, first_position, {0, 1, 2, 3}}})[0];
  }

 private:
  void FillRope(const std::vector<int32_t>& positions) {
    const int64_t tokens = std::ssize(positions);
    const Rope rope(config());
    const size_t half = static_cast<size_t>(config().head_dim / 2);
    for (int64_t t = 0; t < tokens; ++t) {
      rope.Fill(positions[t], 1, {activations_.cos(tokens).row(t), half},
                {activations_.sin(tokens).row(t), half});
    }
  }

  std::vector<TokenScore> Sample(int64_t count) {
    sampling::SamplingParams params;
    params.temperature = 0;
    params.logprob_count = 3;
    const SamplingState state(params, 0, 0, {}, {}, {});
    std::vector<SampleRow> samples(count);
    for (int32_t i = 0; i < count; ++i) {
      samples[i] = {.logits_row = i, .state = &state, .output_position = 0};
    }
    std::vector<TokenScore> scores(count);
    EXPECT_OK(backend_->Sample({.logits = activations_.logits(count),
                                .samples = samples,
                                .scores = {},
                                .sampled = scores,
                                .scored = {}}));
    return scores;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<KvStorage> kv_;
  Activations activations_;
};

void ExpectEqual(const std::vector<TokenScore>& expected,
                 const std::vector<TokenScore>& actual) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].token_id, actual[i].token_id);
    ASSERT_EQ(expected[i].candidates.size(), actual[i].candidates.size());
    for (size_t c = 0; c < expected[i].candidates.size(); ++c) {
      EXPECT_EQ(expected[i].candidates[c].token_id,
                actual[i].candidates[c].token_id);
      EXPECT_EQ(expected[i].candidates[c].logprob,
                actual[i].candidates[c].logprob);
    }
  }
}

class CudaModelTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const absl::Status status = MakeCuda(GetParam(), {}).status();
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
  std::unique_ptr<Backend> Cuda(const NumericsOptions& numerics) {
    return *MakeCuda(GetParam(), {.numerics = numerics});
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

TEST_P(CudaModelTest, TheFastProfileIsPlannedAndReplayedToo) {
  CudaOptions cuda;
  cuda.profile = CudaProfile::kFast;
  // What the first one measures the second one takes.
  const testing::TemporaryDirectory directory;
  cuda.gemm_algorithms = directory.File("algorithms");
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCuda(GetParam(), cuda);
  if (!backend.ok()) GTEST_SKIP() << backend.status().message();
  const auto class_of = [](const Backend& fast) {
    return fast.NumericsClass({WeightType::kBf16});
  };
  const std::string unmeasured = class_of(**backend);
  EXPECT_NE(unmeasured.find("-fast-"), std::string::npos);
  Model graphs(*std::move(backend));
  cuda.graphs = false;
  Model direct(*MakeCuda(GetParam(), cuda));
  EXPECT_EQ(class_of(direct.backend()), class_of(graphs.backend()));
  EXPECT_NE(class_of(direct.backend()), unmeasured);
  EXPECT_EQ(graphs.plan().scratch_bytes, graphs.backend().scratch_bytes());
  const auto planner = *MakeCudaPlanner(cuda);
  ModelOptions options;
  options.memory.max_step_tokens = kMaxTokens;
  options.memory.max_logits_rows = kMaxTokens;
  ASSERT_OK_AND_ASSIGN(
      const ModelDescription description,
      DescribeModel(RepositoryPath("deploy/demo-model"), options, *planner));
  EXPECT_EQ(description.plan.fixed_bytes(), graphs.plan().fixed_bytes());
  const std::vector<Model::Part> step = {{{1, 9, 14}, 0, {0}}};
  ExpectEqual(direct.Run(step), graphs.Run(step));
  const std::vector<Model::Part> next = {{{30}, 3, {0}}};
  ExpectEqual(direct.Run(next), graphs.Run(next));
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

TEST_P(CudaModelTest, TheClassOfFp8IsPlannedAndReplayedToo) {
  CudaOptions cuda;
  cuda.numerics = {ActivationType::kFp8, DType::kFp8};
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCuda(GetParam(), cuda);
  if (!backend.ok()) GTEST_SKIP() << backend.status().message();
  Model graphs(*std::move(backend), "fp8");
  const MemoryPlan& plan = graphs.plan();
  EXPECT_EQ(plan.weight_bytes, graphs.weights().bytes);
  EXPECT_EQ(plan.scratch_bytes, graphs.backend().scratch_bytes());
  EXPECT_EQ(graphs.backend().KvBytes(KvSpecOf(graphs.config(), kBlocks)),
            graphs.kv().bytes);
  if (!GetParam() && kSanitized) return;  // fp8_test does the rest
  cuda.graphs = false;
  Model direct(*MakeCuda(GetParam(), cuda), "fp8");
  const std::vector<Model::Part> step = {{{1, 9}, 0, {0}}};
  ExpectEqual(direct.Run(step), graphs.Run(step));
  const std::vector<Model::Part> next = {{{30}, 2, {0}}};
  ExpectEqual(direct.Run(next), graphs.Run(next));
}

// Sequence `s` decodes `id` at `position`; its blocks are the s-th fourth.
Model::Part Decode(int32_t s, int32_t id, int32_t position) {
  Model::Part part = {{id}, position, {}};
  for (int32_t b = 0; b <= position / kBlockSlots; ++b) {
    part.blocks.push_back((s * 8 + b) % kBlocks);
  }
  return part;
}

TEST_P(CudaModelTest, ReplaysGiveTheBitsOfDirectLaunches) {
  CudaOptions options;
  Model graphs(*MakeCuda(GetParam(), options));
  options.graphs = false;
  Model direct(*MakeCuda(GetParam(), options));
  std::vector<std::vector<Model::Part>> steps = {
      {Decode(0, 2, 3), Decode(1, 30, 1), Decode(2, 5, 0)},
      {Decode(2, 11, 1), Decode(0, 8, 4), Decode(1, 1, 2)},
  };
  // Splits at the same time, padded to a power of two, and none again.
  if (GetParam() || !kSanitized) {
    steps.push_back({Decode(0, 2, 1030)});
    steps.push_back({Decode(1, 12, 3)});
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectEqual(direct.Run(steps[i]), graphs.Run(steps[i]));
  }
}

TEST(CudaGraphTest, StepsOfOneBucketAreOneGraph) {
  auto owned = std::make_unique<cuda::EmulatedDevice>(cuda::EmulatedOptions());
  const cuda::EmulatedDevice& device = *owned;
  Model model(*cuda::MakeBackendOn(std::move(owned), {}));
  model.Run({Decode(0, 7, 0), Decode(1, 9, 0), Decode(2, 1, 0)});
  const int launches = device.counts().launches;
  model.Run({Decode(0, 3, 1), Decode(1, 2, 1), Decode(2, 1, 1)});
  const int again = device.counts().launches - launches;
  model.Run(
      {Decode(0, 5, 2), Decode(2, 1, 2), Decode(1, 4, 2), Decode(3, 4, 0)});
  EXPECT_EQ(device.counts().graphs, 1);
  EXPECT_EQ(device.counts().replays, 3);
  EXPECT_LT(again, 15) << "head and sampling only";
}

INSTANTIATE_TEST_SUITE_P(Emulated, CudaModelTest, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Machine, CudaModelTest, ::testing::Values(true));

}  // namespace
}  // namespace caravan::worker
