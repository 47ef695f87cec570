#include "worker/server/submit_validation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/server/submits.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::MakeSubmit;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

SubmitLimits Limits() {
  return {.epoch = 9,
          .vocabulary_size = 100,
          .context_length = 32,
          .eos_ids = {2, 3}};
}

v1::Submit Valid() { return MakeSubmit(/*handle=*/1, {5, 6, 7}, /*epoch=*/9); }

TEST(SubmitValidationTest, AValidSubmitBecomesAGroup) {
  v1::Submit submit = Valid();
  submit.set_request_id("r1");
  submit.set_priority(-7);
  submit.set_tenant_salt("salt");
  submit.mutable_sampling()->set_seed(0xFFFFFFFFFFFFFFFF);
  submit.mutable_sampling()->set_temperature(0.5f);
  submit.mutable_stop()->add_stop_token_ids(50);
  submit.mutable_choices(0)->add_output_token_ids(11);
  v1::PromptPart* const second = submit.add_prompt();
  second->mutable_tokens()->add_token_ids(8);
  ASSERT_OK_AND_ASSIGN(const GroupRequest group,
                       MakeGroupRequest(submit, Limits(), kNow));
  EXPECT_EQ(group.request_id, "r1");
  EXPECT_EQ(group.priority, -7);
  EXPECT_EQ(group.tenant_salt, "salt");
  EXPECT_EQ(group.sampling.seed, 0xFFFFFFFFFFFFFFFF);
  EXPECT_EQ(group.sampling.temperature, 0.5f);
  EXPECT_THAT(*group.prompt, ElementsAre(5, 6, 7, 8));
  ASSERT_EQ(group.choices.size(), 1u);
  EXPECT_THAT(group.choices[0].output, ElementsAre(11));
  EXPECT_THAT(group.end_ids, ElementsAre(2, 3, 50));
  EXPECT_EQ(group.deadline, absl::InfiniteFuture());
}

TEST(SubmitValidationTest, IgnoreEosLeavesTheRequestsOwnEndIds) {
  v1::Submit submit = Valid();
  submit.mutable_stop()->set_ignore_eos(true);
  ASSERT_OK_AND_ASSIGN(GroupRequest group,
                       MakeGroupRequest(submit, Limits(), kNow));
  EXPECT_THAT(group.end_ids, IsEmpty());
  submit.mutable_stop()->add_stop_token_ids(4);
  ASSERT_OK_AND_ASSIGN(group, MakeGroupRequest(submit, Limits(), kNow));
  EXPECT_THAT(group.end_ids, ElementsAre(4));
}

TEST(SubmitValidationTest, TimeLeftBecomesADeadline) {
  v1::Submit submit = Valid();
  submit.mutable_time_left()->set_seconds(2);
  submit.mutable_time_left()->set_nanos(500'000'000);
  ASSERT_OK_AND_ASSIGN(const GroupRequest group,
                       MakeGroupRequest(submit, Limits(), kNow));
  EXPECT_EQ(group.deadline, kNow + absl::Milliseconds(2500));
}

TEST(SubmitValidationTest, NoTimeLeftIsADeadlineExceeded) {
  v1::Submit submit = Valid();
  submit.mutable_time_left()->set_seconds(0);
  EXPECT_THAT(MakeGroupRequest(submit, Limits(), kNow),
              HasReason(Reason::kDeadlineExceeded));
}

TEST(SubmitValidationTest, AMaxTokensOfZeroOnlyScores) {
  v1::Submit submit = Valid();
  submit.mutable_stop()->set_max_tokens(0);
  EXPECT_OK(MakeGroupRequest(submit, Limits(), kNow));
}

struct BadCase {
  std::string name;
  std::function<void(v1::Submit&)> spoil;
  Reason reason;
  std::string message;  // a part of it
};

void PrintTo(const BadCase& value, std::ostream* out) { *out << value.name; }

std::vector<BadCase> BadCases() {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  using S = v1::Submit;
  return {
      {"StaleEpoch", [](S& s) { s.set_epoch(8); }, Reason::kStaleEpoch,
       "epoch must be 9; got 8"},
      {"UnknownFeature",
       [](S& s) { s.add_required_features(v1::FEATURE_SPECULATION); },
       Reason::kUnsupportedFeature, "FEATURE_SPECULATION"},
      {"FeatureOfALaterRevision",
       [](S& s) { s.add_required_features(static_cast<v1::Feature>(99)); },
       Reason::kUnsupportedFeature, "99"},
      {"Adapter", [](S& s) { s.set_adapter("lora"); },
       Reason::kUnsupportedParameter, "adapter"},
      {"ResponseFormat", [](S& s) { s.set_response_format_json("{}"); },
       Reason::kUnsupportedParameter, "response_format_json"},
      {"EmbeddingSpan",
       [](S& s) { s.add_prompt()->mutable_embeddings()->set_row_count(1); },
       Reason::kUnsupportedParameter, "prompt.embeddings"},
      {"NoPrompt", [](S& s) { s.clear_prompt(); }, Reason::kInvalidField,
       "at least 1 token"},
      {"PromptTooLong",
       [](S& s) {
         for (int i = 0; i < 30; ++i) {
           s.mutable_prompt(0)->mutable_tokens()->add_token_ids(1);
         }
       },
       Reason::kPromptTooLong, "at most 32 tokens; got 33"},
      {"NegativeToken",
       [](S& s) { s.mutable_prompt(0)->mutable_tokens()->add_token_ids(-1); },
       Reason::kInvalidField, "prompt[3] must be in [0, 99]; got -1"},
      {"TokenBeyondVocabulary",
       [](S& s) { s.mutable_prompt(0)->mutable_tokens()->add_token_ids(100); },
       Reason::kInvalidField, "prompt[3] must be in [0, 99]; got 100"},
      {"PriorityTooHigh", [](S& s) { s.set_priority(101); },
       Reason::kInvalidField, "priority must be in [-100, 100]; got 101"},
      {"NegativeAttempt", [](S& s) { s.set_attempt(-1); },
       Reason::kInvalidField, "attempt"},
      {"NoChoices", [](S& s) { s.clear_choices(); }, Reason::kInvalidField,
       "choices must be in [1, 16]; got 0"},
      {"TooManyChoices",
       [](S& s) {
         for (int i = 1; i < 17; ++i) s.add_choices()->set_index(i);
       },
       Reason::kInvalidField, "choices must be in [1, 16]; got 17"},
      {"ChoiceTwice", [](S& s) { s.add_choices()->set_index(0); },
       Reason::kInvalidField, "unique; got 0"},
      {"NegativeChoice", [](S& s) { s.mutable_choices(0)->set_index(-1); },
       Reason::kInvalidField, "choices.index"},
      {"OutputTokenBeyondVocabulary",
       [](S& s) { s.mutable_choices(0)->add_output_token_ids(100); },
       Reason::kInvalidField, "choices.output_token_ids[0]"},
      {"OutputAlreadyComplete",
       [](S& s) {
         for (int i = 0; i < 8; ++i) {
           s.mutable_choices(0)->add_output_token_ids(1);
         }
       },
       Reason::kInvalidField, "fewer than max_tokens = 8; got 8"},
      {"NoSeed", [](S& s) { s.mutable_sampling()->clear_seed(); },
       Reason::kInvalidField, "sampling.seed"},
      {"NoMaxTokens", [](S& s) { s.mutable_stop()->clear_max_tokens(); },
       Reason::kInvalidField, "stop.max_tokens"},
      {"MaxTokensBeyondContext",
       [](S& s) { s.mutable_stop()->set_max_tokens(30); },
       Reason::kInvalidField, "max_tokens"},
      {"NegativeMaxTokens", [](S& s) { s.mutable_stop()->set_max_tokens(-1); },
       Reason::kInvalidField, "max_tokens"},
      {"TemperatureNaN",
       [nan](S& s) { s.mutable_sampling()->set_temperature(nan); },
       Reason::kInvalidField, "temperature"},
      {"TemperatureInfinite",
       [infinity](S& s) { s.mutable_sampling()->set_temperature(infinity); },
       Reason::kInvalidField, "temperature"},
      {"TemperatureNegative",
       [](S& s) { s.mutable_sampling()->set_temperature(-1); },
       Reason::kInvalidField, "temperature"},
      {"TopPZero", [](S& s) { s.mutable_sampling()->set_top_p(0); },
       Reason::kInvalidField, "top_p"},
      {"TopKBeyondVocabulary",
       [](S& s) { s.mutable_sampling()->set_top_k(101); },
       Reason::kInvalidField, "top_k"},
      {"BiasOfUnknownToken",
       [](S& s) { s.mutable_sampling()->add_logit_bias()->set_token_id(100); },
       Reason::kInvalidField, "logit_bias"},
      {"LogprobCountTooHigh",
       [](S& s) { s.mutable_sampling()->set_logprob_count(21); },
       Reason::kInvalidField, "logprob"},
      {"StopTokenBeyondVocabulary",
       [](S& s) { s.mutable_stop()->add_stop_token_ids(100); },
       Reason::kInvalidField, "stop_token_ids"},
      {"RequestIdTooLong",
       [](S& s) { s.set_request_id(std::string(257, 'x')); },
       Reason::kInvalidField, "request_id must be at most 256 bytes"},
  };
}

class BadSubmitTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadSubmitTest, IsRefusedByName) {
  v1::Submit submit = Valid();
  ASSERT_OK(MakeGroupRequest(submit, Limits(), kNow));
  GetParam().spoil(submit);
  EXPECT_THAT(MakeGroupRequest(submit, Limits(), kNow),
              HasReason(GetParam().reason, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(Fields, BadSubmitTest, ::testing::ValuesIn(BadCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace caravan::worker
