// Two sequences through a runner: chunked prefill, prompt scores, greedy and
// seeded decoding with penalties, two plans in flight.
#ifndef CARAVAN_TESTS_WORKER_SHARD_TWO_SEQUENCES_H_
#define CARAVAN_TESTS_WORKER_SHARD_TWO_SEQUENCES_H_

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "worker/engine/model_runner.h"

namespace caravan::worker {

inline constexpr int32_t kPromptTokens = 40;

inline SequenceSpec SpecOf(SequenceId id, int32_t vocab_size) {
  std::vector<TokenId> prompt(kPromptTokens);
  for (int32_t i = 0; i < kPromptTokens; ++i) {
    prompt[i] = static_cast<TokenId>((37 * i + 11 * id + 5) % vocab_size);
  }
  SequenceSpec spec;
  spec.id = id;
  spec.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  spec.sampling.temperature = id % 2 == 0 ? 0 : 1;
  spec.sampling.seed = 7 * static_cast<uint64_t>(id);
  spec.sampling.repetition_penalty = 1.25f;
  spec.sampling.logprob_count = 3;
  spec.sampling.prompt_logprob_count = 1;
  return spec;
}

// A row over [first, first + count) of prompt and output, in four blocks of
// the sequence's own.
inline PlanRow RowOf(const SequenceSpec& spec,
                     const std::vector<TokenId>& output, int32_t first,
                     int32_t count) {
  std::vector<TokenId> all = *spec.prompt;
  all.insert(all.end(), output.begin(), output.end());
  PlanRow row;
  row.sequence = spec.id;
  row.first_position = first;
  row.tokens = {all.begin() + first, all.begin() + first + count};
  row.blocks.resize((first + count + 15) / 16);
  std::iota(row.blocks.begin(), row.blocks.end(),
            4 * static_cast<BlockId>(spec.id));
  row.sample = first + count == static_cast<int32_t>(all.size());
  row.output_position = static_cast<int32_t>(output.size());
  row.score_prompt = first + 1 < kPromptTokens;
  return row;
}

// Everything that two sequences give: chunked prefill, scores, decoding with
// one of two plans in flight for each.
inline std::vector<ScoredToken> RunTwoSequences(ModelRunner& runner,
                                                int32_t vocab_size,
                                                int32_t new_tokens) {
  std::vector<ScoredToken> all;
  std::vector<SequenceSpec> specs = {SpecOf(0, vocab_size),
                                     SpecOf(1, vocab_size)};
  std::vector<std::vector<TokenId>> outputs(2);
  const auto collect = [&] {
    const absl::StatusOr<StepResult> result = runner.Collect();
    ASSERT_OK(result);
    for (const RowResult& row : result->rows) {
      ASSERT_OK(row.status);
      all.insert(all.end(), row.prompt_scores.begin(), row.prompt_scores.end());
      if (!row.token) continue;
      all.push_back(*row.token);
      outputs[row.sequence].push_back(row.token->token_id);
    }
  };
  int64_t step = 0;
  const auto launch = [&](std::vector<PlanRow> rows) {
    BatchPlan plan;
    plan.step = ++step;
    plan.rows = std::move(rows);
    ASSERT_OK(runner.Launch(std::move(plan)));
  };
  for (const SequenceSpec& spec : specs) runner.AddSequence(spec);
  launch({RowOf(specs[0], {}, 0, 17), RowOf(specs[1], {}, 0, 30)});
  launch({RowOf(specs[0], {}, 17, kPromptTokens - 17),
          RowOf(specs[1], {}, 30, kPromptTokens - 30)});
  collect();
  collect();
  for (int32_t i = 0; i < new_tokens; ++i) {
    for (int s = 0; s < 2; ++s) {
      launch({RowOf(specs[s], outputs[s], kPromptTokens + i, 1)});
    }
    collect();
    collect();
  }
  return all;
}

inline bool SameBits(const ScoredToken& a, const ScoredToken& b) {
  return a == b && std::bit_cast<uint32_t>(a.logprob.value_or(0)) ==
                       std::bit_cast<uint32_t>(b.logprob.value_or(0));
}

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_WORKER_SHARD_TWO_SEQUENCES_H_
