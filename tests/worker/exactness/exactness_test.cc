// One stream, any batch: tokens and the bits of every logprob do not depend on
// what happens around a request.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/strings.h"
#include "tests/support/reference_data.h"
#include "tests/support/temporary_directory.h"
#include "tests/worker/exactness/exact_engine.h"
#include "tests/worker/exactness/scenario.h"
#include "worker/engine/sequence.h"
#include "worker/model/gguf_export.h"

namespace caravan::worker {
namespace {

struct Subject {
  std::string name;
  std::string directory;
  int32_t prompt_size = 70;
  NumericsOptions numerics = {};
  std::optional<WeightType> blocks = std::nullopt;  // quantized to this type
};

constexpr NumericsOptions kInt8 = {ActivationType::kInt8, DType::kBf16};

// The subject's model, or a quantized copy that lives as long as the process.
std::string ModelOf(const Subject& subject) {
  std::string directory = testing::RepositoryPath(subject.directory);
  if (!subject.blocks) return directory;
  static const testing::TemporaryDirectory folder;
  const std::string file = folder.File(subject.name + ".gguf");
  if (!std::filesystem::exists(file)) {
    const auto report = ExportGguf(directory, file, {.type = *subject.blocks});
    EXPECT_TRUE(report.ok()) << report.status();
  }
  return file;
}

void PrintTo(const Subject& value, std::ostream* out) { *out << value.name; }

constexpr GroupId kSubject = 1;
constexpr GroupId kWarmUp = 2;
constexpr GroupId kFirstOther = 100;
constexpr GroupId kFirstIntruder = 200;
constexpr int32_t kOutput = 36;
constexpr int32_t kContext = 160;
constexpr int32_t kSequences = 32;

using Prompt = std::shared_ptr<const std::vector<TokenId>>;

class ExactnessTest : public ::testing::TestWithParam<Subject> {
 protected:
  ExactnessTest()
      : seed_(1 + 1000 * static_cast<uint32_t>(GTEST_FLAG_GET(random_seed))),
        random_(seed_),
        directory_(ModelOf(GetParam())),
        prompt_(RandomPrompt(GetParam().prompt_size)) {}

  Prompt RandomPrompt(int32_t size) {
    std::vector<TokenId> ids;
    for (int32_t i = 0; i < size; ++i) {
      ids.push_back(3 + static_cast<TokenId>(random_() % 500));
    }
    return std::make_shared<const std::vector<TokenId>>(std::move(ids));
  }

  // Every parameter of sampling has a say.
  static sampling::SamplingParams Sampling(bool sampled) {
    sampling::SamplingParams params;
    params.temperature = sampled ? 0.9f : 0;
    params.top_p = 0.95f;
    params.top_k = 100;
    params.min_p = 0.001f;
    params.repetition_penalty = 1.2f;
    params.presence_penalty = 0.3f;
    params.frequency_penalty = 0.2f;
    params.logit_bias = {{5, 1.5f}, {7, -2}};
    params.seed = 0x123456789abcdef;
    params.logprob_count = 3;
    return params;
  }

  GroupRequest SubjectRequest(bool sampled, std::vector<int32_t> choices) {
    GroupRequest request;
    request.id = kSubject;
    request.priority = -1;
    request.prompt = prompt_;
    request.sampling = Sampling(sampled);
    request.stop.max_tokens = kOutput;
    // Masked all the way, so that the stream has its full length.
    request.end_ids = {2};
    request.stop.min_tokens = kOutput;
    for (const int32_t index : choices) {
      request.choices.push_back({.index = index, .output = {}});
    }
    return request;
  }

  GroupRequest OtherRequest(GroupId id, Prompt prompt, int32_t max_tokens) {
    GroupRequest request;
    request.id = id;
    request.prompt = std::move(prompt);
    request.sampling.seed = id;
    request.stop.max_tokens = max_tokens;
    request.choices = {{.index = 0, .output = {}}};
    return request;
  }

  // The choice's stream when the request runs by itself in one chunk.
  const ChoiceStream& Alone(bool sampled, int32_t choice) {
    ChoiceStream& stream = alone_[{sampled, choice}];
    if (stream.empty()) {
      ExactEngine engine(directory_, {.numerics = GetParam().numerics,
                                      .context_length = kContext});
      engine.Submit(SubjectRequest(sampled, {choice}));
      engine.StepUntilIdle();
      stream = engine.Stream(kSubject, choice);
      EXPECT_EQ(stream.size(), size_t{kOutput});
    }
    return stream;
  }

  void Run(const Scenario& scenario);
  std::vector<GroupRequest> Arrivals(const Scenario& scenario);
  void SubmitIntruders(ExactEngine& engine, int32_t wanted);
  void ExpectCauses(ExactEngine& engine, const Scenario& scenario);
  void ExpectCrowd(ExactEngine& engine, const Scenario& scenario,
                   const std::set<SequenceId>& sequences);
  void ExpectParked(ExactEngine& engine, const Scenario& scenario,
                    const std::set<SequenceId>& sequences);

  const uint32_t seed_;
  std::mt19937 random_;
  const std::string directory_;
  const Prompt prompt_;
  std::map<std::pair<bool, int32_t>, ChoiceStream> alone_;
};

// The subject and whoever runs beside it, in random order.
std::vector<GroupRequest> ExactnessTest::Arrivals(const Scenario& scenario) {
  std::vector<int32_t> choices(scenario.choices);
  for (int32_t i = 0; i < scenario.choices; ++i) choices[i] = i;
  std::vector<GroupRequest> arrivals;
  arrivals.push_back(SubjectRequest(scenario.sampled, choices));
  const int32_t others = scenario.crowded ? kSequences - scenario.choices : 0;
  for (int32_t i = 0; i < others; ++i) {
    const int32_t size =
        GetParam().prompt_size - static_cast<int32_t>(random_() % 16);
    arrivals.push_back(
        OtherRequest(kFirstOther + i, RandomPrompt(size), kOutput + 24));
  }
  std::shuffle(arrivals.begin(), arrivals.end(), random_);
  return arrivals;
}

// Requests above everybody that together need `wanted` blocks.
void ExactnessTest::SubmitIntruders(ExactEngine& engine, int32_t wanted) {
  for (int32_t i = 0; wanted > 0; ++i) {
    const int32_t blocks = std::min(8, wanted);
    wanted -= blocks;
    GroupRequest request =
        OtherRequest(kFirstIntruder + i, RandomPrompt(blocks * 16 - 8), 8);
    request.priority = 1;
    engine.Submit(std::move(request));
  }
}

void ExactnessTest::Run(const Scenario& scenario) {
  const std::vector<GroupRequest> arrivals = Arrivals(scenario);
  int32_t blocks = 1;
  for (const GroupRequest& request : arrivals) {
    blocks += static_cast<int32_t>(request.choices.size()) *
              BlocksFor(static_cast<int32_t>(request.prompt->size()) +
                        request.stop.max_tokens);
  }
  if (!scenario.parked) blocks += 64;
  ExactEngine engine(directory_, {.numerics = GetParam().numerics,
                                  .threads = scenario.threads,
                                  .depth = scenario.depth,
                                  .chunk = scenario.chunk,
                                  .block_count = blocks,
                                  .context_length = kContext});
  if (scenario.hit) {
    // As long as the subject's prompt: with dynamic RoPE others do not match.
    std::vector<TokenId> ids = *prompt_;
    for (size_t i = ids.size() - 4; i < ids.size(); ++i) ids[i] = 1;
    engine.Submit(OtherRequest(
        kWarmUp, std::make_shared<const std::vector<TokenId>>(ids), 1));
    engine.StepUntilIdle();
  }
  for (const GroupRequest& request : arrivals) engine.Submit(request);
  if (scenario.parked) {
    while (engine.Stream(kSubject, 0).size() < 8) engine.Step();
    // A block too many; or, alone, all that can be had at the same time.
    const int32_t available =
        engine.load().free_blocks + engine.load().cached_blocks;
    SubmitIntruders(engine, scenario.crowded ? available + 1
                            : blocks <= 8    ? blocks
                                             : blocks - 1);
  }
  engine.StepUntilIdle();

  for (int32_t choice = 0; choice < scenario.choices; ++choice) {
    const ChoiceStream& alone = Alone(scenario.sampled, choice);
    const ChoiceStream& stream = engine.Stream(kSubject, choice);
    EXPECT_TRUE(SameBits(alone, stream))
        << "choice " << choice << " differs at " << Difference(alone, stream);
  }
  ExpectCauses(engine, scenario);
}

// What the scenario is about did happen.
void ExactnessTest::ExpectCauses(ExactEngine& engine,
                                 const Scenario& scenario) {
  const std::vector<SequenceId> ids = engine.spy().SequencesOf(prompt_.get());
  ASSERT_EQ(ids.size(), static_cast<size_t>(scenario.choices));
  const std::set<SequenceId> sequences(ids.begin(), ids.end());
  const int32_t size = GetParam().prompt_size;
  const int32_t cached = scenario.hit ? (size - 4) / 16 * 16 : 0;
  EXPECT_EQ(engine.CachedTokens(kSubject), cached);
  if (!scenario.parked) {
    const auto prefill_rows = std::ranges::count_if(
        engine.spy().rows(), [&](const SpyRunner::Row& row) {
          return row.sequence == ids[0] && row.first_position < size;
        });
    EXPECT_EQ(prefill_rows,
              (size - cached + scenario.chunk - 1) / scenario.chunk);
  }
  if (scenario.crowded) ExpectCrowd(engine, scenario, sequences);
  if (scenario.parked) ExpectParked(engine, scenario, sequences);
}

// 32 sequences were in a step with the subject. With more than one plan in
// flight a sequence may be in every other one only: then 32 were in as many
// plans together.
void ExactnessTest::ExpectCrowd(ExactEngine& engine, const Scenario& scenario,
                                const std::set<SequenceId>& sequences) {
  std::map<int64_t, std::set<SequenceId>> steps;
  std::set<int64_t> with_subject;
  for (const SpyRunner::Row& row : engine.spy().rows()) {
    steps[row.step].insert(row.sequence);
    if (row.sample && sequences.contains(row.sequence)) {
      with_subject.insert(row.step);
    }
  }
  size_t most = 0;
  for (const int64_t step : with_subject) {
    std::set<SequenceId> together;
    for (int64_t i = 0; i < scenario.depth; ++i) {
      together.insert(steps[step + i].begin(), steps[step + i].end());
    }
    most = std::max(most, together.size());
  }
  EXPECT_GE(most, size_t{kSequences});
  if (scenario.depth > 1) return;
  EXPECT_TRUE(std::ranges::any_of(engine.reports(),
                                  [&with_subject](const StepReport& report) {
                                    return with_subject.contains(report.step) &&
                                           report.counters.rows == kSequences;
                                  }));
}

// The subject started again, and before that another sequence had a block
// that it had had.
void ExactnessTest::ExpectParked(ExactEngine& engine, const Scenario& scenario,
                                 const std::set<SequenceId>& sequences) {
  EXPECT_GE(engine.Parked(), 1);
  struct Past {
    int32_t position = 0;
    std::set<BlockId> blocks;
    bool taken = false;
  };
  std::map<SequenceId, Past> pasts;
  int restarts = 0;
  int32_t lowest = GetParam().prompt_size;
  for (const SpyRunner::Row& row : engine.spy().rows()) {
    for (auto& [id, past] : pasts) {
      if (sequences.contains(row.sequence)) break;
      for (const BlockId block : row.blocks) {
        if (past.blocks.contains(block)) past.taken = true;
      }
    }
    if (!sequences.contains(row.sequence)) continue;
    Past& past = pasts[row.sequence];
    if (row.first_position < past.position) {
      ++restarts;
      EXPECT_TRUE(past.taken) << "its blocks were not used by others";
      lowest = std::min(lowest, row.first_position);
    }
    past.position = row.first_position + row.token_count;
    past.blocks = {row.blocks.begin(), row.blocks.end()};
    past.taken = false;
  }
  EXPECT_GE(restarts, 1);
  if (!scenario.crowded) {
    EXPECT_LE(lowest, 16) << "it was not computed again";
  }
}

TEST_P(ExactnessTest, StreamsDoNotDependOnWhatHappensAroundThem) {
  const std::vector<Scenario> scenarios = PairwiseScenarios(seed_);
  for (const Scenario& scenario : scenarios) {
    SCOPED_TRACE(StrCat("seed ", seed_, ": ", scenario.ToString()));
    Run(scenario);
  }
}

TEST_P(ExactnessTest, PromptScoresDoNotDependOnChunksHitsOrParking) {
  SCOPED_TRACE(StrCat("seed ", seed_));
  std::vector<ScoredToken> expected;
  for (const int32_t chunk : {512, 1, 7, 64}) {
    const int32_t blocks = BlocksFor(GetParam().prompt_size + kOutput) + 1;
    ExactEngine engine(directory_, {.numerics = GetParam().numerics,
                                    .depth = 1 + chunk % 2,
                                    .chunk = chunk,
                                    .block_count = blocks,
                                    .context_length = kContext});
    engine.Submit(OtherRequest(kWarmUp, prompt_, 1));
    engine.StepUntilIdle();
    GroupRequest request = SubjectRequest(/*sampled=*/true, {0});
    request.sampling.prompt_logprob_count = 3;
    engine.Submit(request);
    if (chunk < 64) {  // parked in the middle of its prompt
      engine.Step();
      engine.Step();
      SubmitIntruders(engine, blocks);
    }
    engine.StepUntilIdle();
    EXPECT_EQ(engine.Parked(), chunk < 64 ? 1 : 0);
    EXPECT_EQ(engine.CachedTokens(kSubject), 0);
    const std::vector<ScoredToken>& scores = engine.Scores(kSubject);
    ASSERT_EQ(scores.size(), prompt_->size() - 1);
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(scores[i].token_id, (*prompt_)[i + 1]);
    }
    if (expected.empty()) expected = scores;
    EXPECT_TRUE(SameBits(expected, scores)) << Difference(expected, scores);
    EXPECT_TRUE(
        SameBits(Alone(/*sampled=*/true, 0), engine.Stream(kSubject, 0)));
  }
}

TEST_P(ExactnessTest, AStreamResumesExactlyFromEveryPosition) {
  constexpr int32_t kLength = 64;
  for (const bool sampled : {false, true}) {
    ExactEngine engine(directory_, {.numerics = GetParam().numerics,
                                    .threads = 2,
                                    .chunk = 64,
                                    .block_count = 1024,
                                    .context_length = kContext});
    GroupRequest request = SubjectRequest(sampled, {0});
    request.stop.max_tokens = request.stop.min_tokens = kLength;
    engine.Submit(request);
    engine.StepUntilIdle();
    const ChoiceStream whole = engine.Stream(kSubject, 0);
    ASSERT_EQ(whole.size(), size_t{kLength});
    for (int32_t k = 1; k < kLength; ++k) {
      GroupRequest resumed = request;
      resumed.id = 1000 + k;
      // Every other one has nothing of the first in its cache.
      resumed.tenant_salt = k % 2 == 0 ? "" : StrCat(k);
      for (int32_t i = 0; i < k; ++i) {
        resumed.choices[0].output.push_back(whole[i].token_id);
      }
      engine.Submit(resumed);
    }
    engine.StepUntilIdle();
    for (int32_t k = 1; k < kLength; ++k) {
      const ChoiceStream rest(whole.begin() + k, whole.end());
      const ChoiceStream& stream = engine.Stream(1000 + k, 0);
      EXPECT_TRUE(SameBits(rest, stream))
          << "resumed after " << k << ": " << Difference(rest, stream);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, ExactnessTest,
    ::testing::Values(
        Subject{.name = "Demo", .directory = "deploy/demo-model"},
        Subject{.name = "Llama1Mha", .directory = "tests/data/tiny/llama1-mha"},
        Subject{.name = "Mqa", .directory = "tests/data/tiny/mqa"},
        Subject{.name = "HeadDim100",
                .directory = "tests/data/tiny/head-dim-100"},
        Subject{.name = "RopeDynamicAcrossItsLimit",
                .directory = "tests/data/tiny/rope-dynamic",
                .prompt_size = 24},
        Subject{.name = "RopeDynamicOverItsLimit",
                .directory = "tests/data/tiny/rope-dynamic",
                .prompt_size = 45},
        Subject{.name = "RopeYarn", .directory = "tests/data/tiny/rope-yarn"},
        Subject{.name = "Tied", .directory = "tests/data/tiny/tied"},
        Subject{.name = "DemoInBf16",
                .directory = "deploy/demo-model",
                .numerics = {.activations = ActivationType::kBf16,
                             .kv = DType::kBf16}},
        Subject{.name = "Llama1MhaInBf16",
                .directory = "tests/data/tiny/llama1-mha",
                .numerics = {.activations = ActivationType::kBf16,
                             .kv = DType::kBf16}},
        Subject{.name = "DemoInQ8_0",
                .directory = "deploy/demo-model",
                .numerics = kInt8,
                .blocks = WeightType::kQ8_0},
        Subject{.name = "DemoInQ4_0",
                .directory = "deploy/demo-model",
                .numerics = kInt8,
                .blocks = WeightType::kQ4_0},
        Subject{.name = "DemoInQ4_K",
                .directory = "deploy/demo-model",
                .numerics = kInt8,
                .blocks = WeightType::kQ4_K}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace caravan::worker
