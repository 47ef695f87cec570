#include "worker/bench/model_loop.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/memory_plan.h"
#include "worker/model/rope.h"
#include "worker/ops/sample.h"

namespace caravan::worker::bench {

ModelLoop::ModelLoop(const LoadedModel* model, Backend* backend,
                     const Clock* clock, const ModelLoopOptions& options)
    : model_(*model),
      backend_(*backend),
      clock_(*clock),
      options_(options),
      llama_(&model->description.config, &model->weights, backend) {}

absl::StatusOr<std::unique_ptr<ModelLoop>> ModelLoop::Create(
    const LoadedModel* model, Backend* backend, const Clock* clock,
    const ModelLoopOptions& options) {
  std::unique_ptr<ModelLoop> loop(
      new ModelLoop(model, backend, clock, options));
  const ModelConfig& config = model->description.config;
  const int64_t blocks = options.max_keys / kBlockSlots + options.max_streams;
  CARAVAN_ASSIGN_OR_RETURN(
      loop->kv_,
      backend->AllocateKv(KvSpecOf(config, static_cast<int32_t>(blocks))));
  CARAVAN_RETURN_IF_ERROR(backend->ReserveScratch(
      ScratchSpecOf(config, options.max_step_tokens, options.max_streams)));
  CARAVAN_ASSIGN_OR_RETURN(
      loop->activations_, Activations::Allocate(config, options.max_step_tokens,
                                                options.max_streams, backend));
  return loop;
}

// Streams have blocks of their own, so that no key is read for two of them.
void ModelLoop::PlaceTokens(int streams, int32_t position, int32_t count) {
  const int32_t vocabulary = model_.description.config.vocab_size;
  const int32_t blocks = blocks_of(position + count);
  blocks_.assign(streams, {});
  ids_.clear();
  slots_.clear();
  last_.clear();
  rows_.clear();
  for (int s = 0; s < streams; ++s) {
    for (int32_t b = 0; b < blocks; ++b) blocks_[s].push_back(s * blocks + b);
    rows_.push_back({.first_token = s * count,
                     .token_count = count,
                     .first_position = position,
                     .blocks = blocks_[s]});
    for (int32_t i = position; i < position + count; ++i) {
      ids_.push_back((s * 31 + i * 7 + 3) % vocabulary);
      slots_.push_back(int64_t{blocks_[s][i / kBlockSlots]} * kBlockSlots +
                       i % kBlockSlots);
    }
    last_.push_back((s + 1) * count - 1);
  }
}

void ModelLoop::FillRope(int streams, int32_t position, int32_t count) {
  const ModelConfig& config = model_.description.config;
  const Rope rope(config);
  const size_t half = static_cast<size_t>(config.head_dim / 2);
  const int64_t tokens = int64_t{streams} * count;
  for (int64_t t = 0; t < tokens; ++t) {
    rope.Fill(position + static_cast<int32_t>(t % count), 1,
              {activations_.cos(tokens).row(t), half},
              {activations_.sin(tokens).row(t), half});
  }
}

absl::Status ModelLoop::Step(int streams, int32_t position, int32_t count) {
  PlaceTokens(streams, position, count);
  FillRope(streams, position, count);
  CARAVAN_RETURN_IF_ERROR(
      llama_.Forward({ids_, slots_, rows_}, kv_.get(), activations_));
  return llama_.Logits(last_, std::ssize(ids_), activations_);
}

absl::Status ModelLoop::Wait() {
  sampling::SamplingParams params;
  params.temperature = 0;
  const SamplingState state(params, 0, 0, {}, {}, {});
  const std::array samples = {
      SampleRow{.logits_row = 0, .state = &state, .output_position = 0}};
  std::array<TokenScore, 1> scores;
  return backend_.Sample({.logits = activations_.logits(1),
                          .samples = samples,
                          .scores = {},
                          .sampled = scores,
                          .scored = {}});
}

absl::StatusOr<double> ModelLoop::Decode(int streams, int32_t context,
                                         int steps) {
  const int64_t keys = int64_t{streams} * blocks_of(context + 1) * kBlockSlots;
  if (streams > options_.max_streams || streams > options_.max_step_tokens ||
      keys > options_.max_keys + int64_t{options_.max_streams} * kBlockSlots) {
    return FieldError("streams and context", "within what was reserved",
                      StrCat(streams, " x ", context));
  }
  CARAVAN_RETURN_IF_ERROR(Step(streams, context, 1));
  CARAVAN_RETURN_IF_ERROR(Wait());
  const absl::Time begin = clock_.Now();
  for (int i = 0; i < steps; ++i) {
    CARAVAN_RETURN_IF_ERROR(Step(streams, context, 1));
  }
  CARAVAN_RETURN_IF_ERROR(Wait());
  return absl::ToDoubleSeconds(clock_.Now() - begin) / steps;
}

absl::StatusOr<double> ModelLoop::Prefill(int32_t tokens) {
  if (tokens > options_.max_keys) {
    return FieldError("prompt tokens", StrCat("at most ", options_.max_keys),
                      StrCat(tokens));
  }
  const absl::Time begin = clock_.Now();
  for (int32_t done = 0; done < tokens;) {
    const int32_t count = std::min(options_.max_step_tokens, tokens - done);
    CARAVAN_RETURN_IF_ERROR(Step(1, done, count));
    done += count;
  }
  CARAVAN_RETURN_IF_ERROR(Wait());
  return absl::ToDoubleSeconds(clock_.Now() - begin);
}

}  // namespace caravan::worker::bench
