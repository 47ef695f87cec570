#include "common/sampling/params.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::sampling {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

constexpr int32_t kVocabulary = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct BadReal {
  float SamplingParams::*member;
  std::string field;
  std::vector<float> good;
  std::vector<float> bad;
};

TEST(SamplingParamsTest, DefaultsAreValid) {
  EXPECT_OK(Validate(SamplingParams{}, kVocabulary));
  EXPECT_OK(Validate(StopCriteria{}, 16, kVocabulary));
}

TEST(SamplingParamsTest, RealsOutsideTheirRangeAreRefusedByName) {
  const std::vector<BadReal> table = {
      {&SamplingParams::temperature, "temperature", {0, 2}, {-0.01f, 2.01f}},
      {&SamplingParams::top_p, "top_p", {0.001f, 1}, {0, -1, 1.01f}},
      {&SamplingParams::min_p, "min_p", {0, 1}, {-0.1f, 1.1f}},
      {&SamplingParams::repetition_penalty,
       "repetition_penalty",
       {0.1f, 2},
       {0, -1, 2.1f}},
      {&SamplingParams::presence_penalty,
       "presence_penalty",
       {-2, 2},
       {-2.1f, 2.1f}},
      {&SamplingParams::frequency_penalty,
       "frequency_penalty",
       {-2, 2},
       {-2.1f, 2.1f}},
  };
  for (BadReal row : table) {
    for (const float value : row.good) {
      SamplingParams params;
      params.*row.member = value;
      EXPECT_OK(Validate(params, kVocabulary)) << row.field << " " << value;
    }
    row.bad.insert(row.bad.end(), {kNan, kInf, -kInf});
    for (const float value : row.bad) {
      SamplingParams params;
      params.*row.member = value;
      EXPECT_THAT(Validate(params, kVocabulary),
                  HasReason(Reason::kInvalidField, HasSubstr(row.field)))
          << value;
    }
  }
}

TEST(SamplingParamsTest, MessageNamesFieldLimitAndValue) {
  SamplingParams params;
  params.temperature = 2.5f;
  EXPECT_EQ(std::string(Validate(params, kVocabulary).message()),
            "temperature must be in [0, 2]; got 2.5");
  params = {};
  params.top_p = 0;
  EXPECT_EQ(std::string(Validate(params, kVocabulary).message()),
            "top_p must be in (0, 1]; got 0");
  params = {};
  params.top_k = 101;
  EXPECT_EQ(std::string(Validate(params, kVocabulary).message()),
            "top_k must be in [0, 100]; got 101");
}

TEST(SamplingParamsTest, LogprobCountsAreBounded) {
  for (const int32_t count : {0, kMaxLogprobCount}) {
    SamplingParams params;
    params.logprob_count = count;
    params.prompt_logprob_count = count;
    EXPECT_OK(Validate(params, kVocabulary));
  }
  for (const int32_t count : {-1, kMaxLogprobCount + 1}) {
    SamplingParams params;
    params.logprob_count = count;
    EXPECT_THAT(Validate(params, kVocabulary),
                HasReason(Reason::kInvalidField, HasSubstr("logprob_count")));
    params = {};
    params.prompt_logprob_count = count;
    EXPECT_THAT(
        Validate(params, kVocabulary),
        HasReason(Reason::kInvalidField, HasSubstr("prompt_logprob_count")));
  }
}

TEST(SamplingParamsTest, BiasEntriesAreChecked) {
  SamplingParams params;
  params.logit_bias = {{0, -100}, {99, 100}};
  EXPECT_OK(Validate(params, kVocabulary));
  params.logit_bias = {{0, 1}, {100, 1}};
  EXPECT_THAT(Validate(params, kVocabulary),
              HasReason(Reason::kInvalidField,
                        HasSubstr("logit_bias[1].token_id must be in [0, "
                                  "100); got 100")));
  params.logit_bias = {{-1, 1}};
  EXPECT_THAT(Validate(params, kVocabulary), HasReason(Reason::kInvalidField));
  params.logit_bias = {{3, kNan}};
  EXPECT_THAT(
      Validate(params, kVocabulary),
      HasReason(Reason::kInvalidField, HasSubstr("logit_bias[0].bias")));
  params.logit_bias = {{3, 1}, {3, 2}};
  EXPECT_THAT(Validate(params, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("unique")));
}

TEST(SamplingParamsTest, TooManyBiasesAreRefused) {
  SamplingParams params;
  for (int i = 0; i <= kMaxLogitBiasCount; ++i) {
    params.logit_bias.push_back({i, 1});
  }
  EXPECT_THAT(Validate(params, 5000),
              HasReason(Reason::kInvalidField,
                        HasSubstr("at most 1024 entries; got 1025")));
}

TEST(StopCriteriaTest, TokenCountsAreChecked) {
  StopCriteria stop;
  stop.max_tokens = 0;
  EXPECT_OK(Validate(stop, 10, kVocabulary));
  stop.max_tokens = 11;
  EXPECT_THAT(Validate(stop, 10, kVocabulary),
              HasReason(Reason::kInvalidField,
                        HasSubstr("max_tokens must be in [0, 10]; got 11")));
  stop.max_tokens = -1;
  EXPECT_THAT(Validate(stop, 10, kVocabulary),
              HasReason(Reason::kInvalidField));
  stop.max_tokens = 5;
  stop.min_tokens = 6;
  EXPECT_THAT(Validate(stop, 10, kVocabulary),
              HasReason(Reason::kInvalidField,
                        HasSubstr("min_tokens must be in [0, 5]; got 6")));
}

TEST(StopCriteriaTest, StopTextsAndIdsAreChecked) {
  StopCriteria stop;
  stop.stop = {"a", std::string(kMaxStopTextBytes, 'x')};
  stop.stop_token_ids = {0, 99};
  EXPECT_OK(Validate(stop, 16, kVocabulary));
  stop.stop = {"a", ""};
  EXPECT_THAT(Validate(stop, 16, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("stop[1]")));
  stop.stop = {std::string(kMaxStopTextBytes + 1, 'x')};
  EXPECT_THAT(Validate(stop, 16, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("1025")));
  stop.stop.assign(kMaxStopTexts + 1, "a");
  EXPECT_THAT(Validate(stop, 16, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("at most 16")));
  stop.stop.clear();
  stop.stop_token_ids = {5, 100};
  EXPECT_THAT(Validate(stop, 16, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("stop_token_ids[1]")));
  stop.stop_token_ids.assign(kMaxStopTokenIds + 1, 1);
  EXPECT_THAT(Validate(stop, 16, kVocabulary),
              HasReason(Reason::kInvalidField, HasSubstr("at most 64")));
}

}  // namespace
}  // namespace caravan::sampling
