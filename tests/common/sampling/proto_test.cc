#include "common/sampling/proto.h"

#include <gtest/gtest.h>

namespace caravan::sampling {
namespace {

SamplingParams OddParams() {
  SamplingParams params;
  params.temperature = 0;
  params.top_p = 0.25f;
  params.top_k = 7;
  params.min_p = 0.125f;
  params.repetition_penalty = 1.5f;
  params.presence_penalty = -1;
  params.frequency_penalty = 0.5f;
  params.logit_bias = {{3, -4.5f}, {9, 100}};
  params.seed = 0xfedcba9876543210;
  params.logprob_count = 0;
  params.prompt_logprob_count = 20;
  return params;
}

TEST(SamplingProtoTest, EveryFieldSurvivesTheRoundTrip) {
  EXPECT_EQ(FromProto(ToProto(OddParams())), OddParams());
  EXPECT_EQ(FromProto(ToProto(SamplingParams{}), OddParams()).temperature, 1);
  StopCriteria stop;
  stop.max_tokens = 0;
  stop.min_tokens = 3;
  stop.stop = {"a", "b"};
  stop.stop_token_ids = {4, 5};
  stop.ignore_eos = true;
  stop.include_stop_str_in_output = true;
  EXPECT_EQ(FromProto(ToProto(stop)), stop);
}

TEST(SamplingProtoTest, AbsentFieldsTakeTheDefaults) {
  EXPECT_EQ(FromProto(v1::SamplingParams(), OddParams()), OddParams());
  StopCriteria defaults;
  defaults.max_tokens = 99;
  defaults.stop = {"x"};
  EXPECT_EQ(FromProto(v1::StopCriteria(), defaults), defaults);
}

TEST(SamplingProtoTest, ZeroIsAValueAndNotAbsence) {
  v1::SamplingParams proto;
  proto.set_temperature(0);
  proto.set_top_k(0);
  proto.set_seed(0);
  SamplingParams defaults;
  defaults.temperature = 0.5f;
  defaults.top_k = 40;
  defaults.seed = 12;
  const SamplingParams params = FromProto(proto, defaults);
  EXPECT_EQ(params.temperature, 0);
  EXPECT_EQ(params.top_k, 0);
  EXPECT_EQ(params.seed, 0u);
}

}  // namespace
}  // namespace caravan::sampling
