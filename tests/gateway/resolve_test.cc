#include "gateway/resolve.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

ModelFacts Facts() {
  ModelFacts facts;
  facts.name = "m";
  facts.context_length = 100;
  facts.vocabulary_size = 50;
  facts.default_sampling.temperature = 0.7f;
  return facts;
}

TEST(ResolveTest, TheClientsValueComesBeforeTheModels) {
  SamplingOverrides overrides;
  EXPECT_EQ(ResolveSampling(overrides, Facts().default_sampling, 5).temperature,
            0.7f);
  overrides.temperature = 0;
  overrides.seed = 9;
  const auto params = ResolveSampling(overrides, Facts().default_sampling, 5);
  EXPECT_EQ(params.temperature, 0);
  EXPECT_EQ(params.seed, 9u);
}

TEST(ResolveTest, MaxTokensIsWhatFitsOrTheEndpointsDefault) {
  GenerationRequest request;
  ASSERT_OK_AND_ASSIGN(auto stop, ResolveStop(request, Facts(), 30));
  EXPECT_EQ(stop.max_tokens, 70);
  request.default_max_tokens = 16;
  ASSERT_OK_AND_ASSIGN(stop, ResolveStop(request, Facts(), 30));
  EXPECT_EQ(stop.max_tokens, 16);
  ASSERT_OK_AND_ASSIGN(stop, ResolveStop(request, Facts(), 95));
  EXPECT_EQ(stop.max_tokens, 5);
}

TEST(ResolveTest, APromptThatDoesNotFitIsRefusedWithAllNumbers) {
  GenerationRequest request;
  request.stop.max_tokens = 71;
  EXPECT_THAT(ResolveStop(request, Facts(), 30),
              HasReason(Reason::kPromptTooLong,
                        HasSubstr("at most 100 tokens together, the context "
                                  "of m; got 30 + 71")));
  request.stop.max_tokens.reset();
  EXPECT_THAT(ResolveStop(request, Facts(), 100),
              HasReason(Reason::kPromptTooLong));
  request.stop.max_tokens = 0;
  EXPECT_OK(ResolveStop(request, Facts(), 100));
  EXPECT_THAT(ResolveStop(request, Facts(), 101),
              HasReason(Reason::kPromptTooLong));
}

TEST(ResolveTest, RangesAreChecked) {
  const auto check = [](auto change) {
    GenerationRequest request;
    change(request);
    return CheckRequest(request, Facts());
  };
  EXPECT_OK(check([](GenerationRequest&) {}));
  EXPECT_THAT(check([](auto& r) { r.n = 0; }),
              HasReason(Reason::kInvalidField, HasSubstr("n must be")));
  EXPECT_THAT(check([](auto& r) { r.sampling.temperature = -1; }),
              HasReason(Reason::kInvalidField, HasSubstr("temperature")));
  EXPECT_THAT(check([](auto& r) { r.sampling.top_p = std::nanf(""); }),
              HasReason(Reason::kInvalidField, HasSubstr("top_p")));
  EXPECT_THAT(check([](auto& r) { r.sampling.top_k = 51; }),
              HasReason(Reason::kInvalidField, HasSubstr("top_k")));
  EXPECT_THAT(check([](auto& r) { r.stop.max_tokens = 101; }),
              HasReason(Reason::kInvalidField, HasSubstr("max_tokens")));
  EXPECT_THAT(check([](auto& r) { r.stop.max_tokens = -1; }),
              HasReason(Reason::kInvalidField, HasSubstr("max_tokens")));
  EXPECT_THAT(check([](auto& r) { r.stop.stop = {""}; }),
              HasReason(Reason::kInvalidField, HasSubstr("stop[0]")));
  EXPECT_THAT(check([](auto& r) {
                r.resumed_choices = {{1, {2}}};
              }),
              HasReason(Reason::kInvalidField, HasSubstr("resumed_choices")));
}

TEST(ResolveTest, ATextThatCannotFitIsRefusedBeforeItIsEncoded) {
  text::Vocabulary vocabulary;
  vocabulary.tokens.push_back({"12345678", text::TokenKind::kNormal});
  EXPECT_OK(
      CheckPromptText("prompt", std::string(800, 'x'), vocabulary, Facts()));
  EXPECT_THAT(
      CheckPromptText("prompt", std::string(801, 'x'), vocabulary, Facts()),
      HasReason(Reason::kPromptTooLong, HasSubstr("got 801 bytes")));
  Conversation chat;
  chat.messages.emplace_back().content = {std::string(801, 'x')};
  EXPECT_THAT(CheckPromptText("prompt", chat, vocabulary, Facts()),
              HasReason(Reason::kPromptTooLong));
}

TEST(ResolveTest, PromptIdsAreInTheVocabulary) {
  const std::vector<TokenId> good = {0, 49};
  const std::vector<TokenId> bad = {0, 50};
  EXPECT_OK(CheckPromptIds("prompt", good, Facts()));
  EXPECT_THAT(CheckPromptIds("prompt", bad, Facts()),
              HasReason(Reason::kInvalidField,
                        HasSubstr("prompt[1] must be in [0, 50); got 50")));
  EXPECT_THAT(CheckPromptIds("prompt", {}, Facts()),
              HasReason(Reason::kInvalidField));
}

}  // namespace
}  // namespace caravan::gateway
