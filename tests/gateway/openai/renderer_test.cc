#include "gateway/openai/renderer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gateway/openai/json_writer.h"
#include "tests/gateway/fakes/letters.h"

namespace caravan::gateway::openai {
namespace {

using ::testing::ElementsAre;

TokenPiece Piece(TokenId id, float logprob, int32_t offset,
                 std::vector<Candidate> candidates = {}) {
  return {id, logprob, /*rank=*/1, std::move(candidates), offset};
}

// A prompt "ab" that continues with "cd" and ends by an end token.
class RendererTest : public ::testing::Test {
 protected:
  RendererTest() { request_.prompts.resize(1); }

  StreamEvents First() const {
    StreamEvents events;
    events.started = Started{
        "r1",
        "m",
        7,
        "fp_1",
        /*identity_tag=*/3,
        std::make_shared<const text::Vocabulary>(testing::MakeLetters())};
    PromptReady prompt;
    prompt.token_ids = {'a', 'b'};
    prompt.scores = {Piece('b', -1.5f, 0, {{'x', -0.5f}})};
    prompt.text = "ab";
    prompt.text_offsets = {0, 1};
    events.prompts.push_back(prompt);
    ChoiceDelta delta;
    delta.tokens = {Piece('c', -0.1f, 2, {{'c', -0.1f}, {'z', -2.25f}})};
    delta.text = "c";
    events.deltas.push_back(delta);
    return events;
  }
  StreamEvents Last() const {
    StreamEvents events;
    ChoiceDelta delta;
    delta.first_position = 1;
    delta.tokens = {Piece('d', -0.2f, 3, {{'y', -0.15f}})};
    delta.text = "d";
    delta.finish = FinishReason::kLength;
    events.deltas.push_back(delta);
    events.finished = Finished{2, 2, 0, "receipt", {}};
    return events;
  }
  std::vector<std::string> Stream() const {
    const auto renderer = MakeRenderer(request_, {"id-1", 99});
    std::vector<std::string> chunks = renderer->Chunks(First());
    for (std::string& chunk : renderer->Chunks(Last())) {
      chunks.push_back(std::move(chunk));
    }
    return chunks;
  }
  std::string Body() const {
    Aggregator aggregator(1, request_.n);
    aggregator.Add(First());
    aggregator.Add(Last());
    return MakeRenderer(request_, {"id-1", 99})->Body(aggregator.completion());
  }

  GenerationRequest request_;
};

TEST_F(RendererTest, ChatBody) {
  request_.endpoint = Endpoint::kChat;
  EXPECT_EQ(
      Body(),
      R"({"id":"id-1","object":"chat.completion","created":99,"model":"m",)"
      R"("choices":[{"index":0,"message":{"role":"assistant","content":"cd",)"
      R"("refusal":null},"logprobs":null,"finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,)"
      R"("prompt_tokens_details":{"cached_tokens":0}},)"
      R"("system_fingerprint":"fp_1"})");
}

TEST_F(RendererTest, ChatBodyWithLogprobs) {
  request_.endpoint = Endpoint::kChat;
  request_.sampling.logprob_count = 1;
  EXPECT_EQ(
      Body(),
      R"({"id":"id-1","object":"chat.completion","created":99,"model":"m",)"
      R"("choices":[{"index":0,"message":{"role":"assistant","content":"cd",)"
      R"("refusal":null},"logprobs":{"content":[)"
      R"({"token":"c","logprob":-0.1,"bytes":[99],"top_logprobs":[)"
      R"({"token":"c","logprob":-0.1,"bytes":[99]},)"
      R"({"token":"z","logprob":-2.25,"bytes":[122]}]},)"
      R"({"token":"d","logprob":-0.2,"bytes":[100],"top_logprobs":[)"
      R"({"token":"y","logprob":-0.15,"bytes":[121]}]}],"refusal":null},)"
      R"("finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,)"
      R"("prompt_tokens_details":{"cached_tokens":0}},)"
      R"("system_fingerprint":"fp_1"})");
}

TEST_F(RendererTest, ChatStreamEndsWithTheReceipt) {
  request_.endpoint = Endpoint::kChat;
  const std::string head =
      R"({"id":"id-1","object":"chat.completion.chunk","created":99,)"
      R"("model":"m","system_fingerprint":"fp_1","choices":[{"index":0,)";
  EXPECT_THAT(
      Stream(),
      ElementsAre(
          head + R"("delta":{"role":"assistant","content":""},)"
                 R"("logprobs":null,"finish_reason":null}]})",
          head + R"("delta":{"content":"c"},"logprobs":null,)"
                 R"("finish_reason":null}]})",
          head + R"("delta":{"content":"d"},"logprobs":null,)"
                 R"("finish_reason":null}]})",
          head + R"("delta":{},"logprobs":null,"finish_reason":"length"}],)"
                 R"("receipt":"cmVjZWlwdA=="})"));
}

TEST_F(RendererTest, UsageComesLastWhereAskedFor) {
  request_.endpoint = Endpoint::kChat;
  request_.include_usage = true;
  const std::vector<std::string> chunks = Stream();
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_NE(chunks[i].find(R"("usage":null)"), std::string::npos);
    EXPECT_EQ(chunks[i].find("receipt"), std::string::npos);
  }
  EXPECT_EQ(
      chunks.back(),
      R"({"id":"id-1","object":"chat.completion.chunk","created":99,)"
      R"("model":"m","system_fingerprint":"fp_1","choices":[],)"
      R"("usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,)"
      R"("prompt_tokens_details":{"cached_tokens":0}},)"
      R"("receipt":"cmVjZWlwdA=="})");
}

TEST_F(RendererTest, CompletionBodyWithEchoAndLogprobs) {
  request_.endpoint = Endpoint::kCompletions;
  request_.echo = true;
  request_.sampling.logprob_count = 1;
  EXPECT_EQ(
      Body(),
      R"({"id":"id-1","object":"text_completion","created":99,"model":"m",)"
      R"("choices":[{"text":"abcd","index":0,"logprobs":{)"
      R"("tokens":["a","b","c","d"],)"
      R"("token_logprobs":[null,-1.5,-0.1,-0.2],)"
      R"("top_logprobs":[null,{"x":-0.5,"b":-1.5},{"c":-0.1},)"
      R"({"y":-0.15,"d":-0.2}],"text_offset":[0,1,2,3]},)"
      R"("finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,)"
      R"("prompt_tokens_details":{"cached_tokens":0}},)"
      R"("system_fingerprint":"fp_1"})");
}

TEST_F(RendererTest, CompletionStreamEchoesThePromptFirst) {
  request_.endpoint = Endpoint::kCompletions;
  request_.echo = true;
  const std::string head =
      R"({"id":"id-1","object":"text_completion","created":99,"model":"m",)"
      R"("system_fingerprint":"fp_1","choices":[)";
  EXPECT_THAT(Stream(),
              ElementsAre(head + R"({"text":"ab","index":0,"logprobs":null,)"
                                 R"("finish_reason":null}]})",
                          head + R"({"text":"c","index":0,"logprobs":null,)"
                                 R"("finish_reason":null}]})",
                          head + R"({"text":"d","index":0,"logprobs":null,)"
                                 R"("finish_reason":"length"}],)"
                                 R"("receipt":"cmVjZWlwdA=="})"));
}

TEST_F(RendererTest, TokenIdsWhereAskedFor) {
  request_.endpoint = Endpoint::kCompletions;
  request_.return_token_ids = true;
  const std::string body = Body();
  EXPECT_NE(body.find(R"("token_ids":[99,100],"prompt_token_ids":[97,98])"),
            std::string::npos)
      << body;
  EXPECT_NE(body.find(R"("prompt_token_ids":[97,98]})"), std::string::npos);
}

TEST(TokenTextTest, BytesThatAreNoTextAreEscaped) {
  const text::Vocabulary letters = testing::MakeLetters();
  EXPECT_EQ(TokenText(letters, testing::kSmile, "bytes:"), "bytes:\\xf0\\x9f");
  EXPECT_EQ(TokenText(letters, 'a', "bytes:"), "a");
  EXPECT_EQ(TokenText(letters, -1, ""), "");
  EXPECT_EQ(TokenText(letters, 99999, ""), "");
}

TEST(JsonWriterTest, EscapesWhatMustBe) {
  JsonWriter json;
  json.String(std::string("a\"\\\b\f\n\r\t\x01\x1f/\xC3\xA9", 13));
  EXPECT_EQ(json.text(), "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f/\xC3\xA9\"");
}

TEST(JsonWriterTest, FloatsReadBackAsTheSameBits) {
  for (const float value : {-0.1f, -1e-7f, -3.4028235e38f, 0.0f, -16.635532f}) {
    JsonWriter json;
    json.Float(value);
    EXPECT_EQ(std::stof(json.text()), value);
  }
  JsonWriter json;
  json.Float(-std::numeric_limits<float>::infinity());
  EXPECT_EQ(json.text(), "-9999");
}

}  // namespace
}  // namespace caravan::gateway::openai
