// The HTTP front door over sockets.
#include <fstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/receipt/receipt.h"
#include "tests/gateway/gateway_fixture.h"

namespace caravan::gateway::testing {
namespace {

using HttpTest = GatewayTest;

TEST_F(HttpTest, CompletesAPrompt) {
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer =
      client.Post("/v1/completions", Completion(R"("max_tokens":5)"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = Parse(answer.body);
  EXPECT_EQ(body["choices"][0]["text"], LettersOf(7, 0, 5));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);  // BOS and two letters
  EXPECT_EQ(body["usage"]["completion_tokens"], 5);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
  const auto receipt =
      receipt::DecodeReceipt(answer.headers.at("x-caravan-receipt"));
  ASSERT_OK(receipt);
  EXPECT_EQ(receipt->sampling().seed(), 7u);
  EXPECT_EQ(receipt->choices(0).output_token_count(), 5);
}

TEST_F(HttpTest, StreamsAndEndsWithDone) {
  Start();
  HttpClient client = Connect();
  const HttpAnswer head = client.PostStream(
      "/v1/completions", Completion(R"("max_tokens":20,"stream":true)"));
  ASSERT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-type"),
            "text/event-stream; charset=utf-8");
  const std::vector<std::string> events = Drain(client);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 20));
  EXPECT_TRUE(Parse(events[events.size() - 2]).contains("receipt"));
}

TEST_F(HttpTest, AConnectionServesManyRequests) {
  Start();
  HttpClient client = Connect();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client
                  .PostStream("/v1/completions",
                              Completion(R"("max_tokens":3,"stream":true)"))
                  .status,
              200);
    EXPECT_EQ(Drain(client).back(), "[DONE]");
    EXPECT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
  }
}

TEST_F(HttpTest, ChatsAndCountsUsageInTheStream) {
  Start();
  HttpClient client = Connect();
  client.PostStream("/v1/chat/completions",
                    R"({"messages":[{"role":"user","content":"hi"}],"seed":7,
                        "max_tokens":4,"stream":true,
                        "stream_options":{"include_usage":true}})");
  const std::vector<std::string> events = Drain(client);
  ASSERT_GE(events.size(), 3u);
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json json = Parse(events[i]);
    if (json["choices"].empty()) continue;
    text += json["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, LettersOf(7, 0, 4));
  const Json last = Parse(events[events.size() - 2]);
  EXPECT_EQ(last["usage"]["completion_tokens"], 4);
  EXPECT_EQ(first_.submits().at(0).prompt(0).tokens().token_ids_size(),
            1 + static_cast<int>(std::string("user:hi\n").size()));
}

TEST_F(HttpTest, SeveralPromptsAndChoicesAreNumberedByPrompt) {
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer =
      client.Post("/v1/completions",
                  R"({"prompt":["a","b"],"n":2,"seed":7,"max_tokens":4})");
  const Json body = Parse(answer.body);
  ASSERT_EQ(body["choices"].size(), 4u) << answer.body;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], LettersOf(7, i % 2, 4));
  }
  EXPECT_EQ(body["usage"]["completion_tokens"], 16);
}

TEST_F(HttpTest, AStreamNamesTheIdsOfEachPromptOnce) {
  Start();
  HttpClient client = Connect();
  client.PostStream("/v1/completions",
                    R"({"prompt":[[97],[98,99]],"max_tokens":2,"stream":true,
                        "return_token_ids":true})");
  Json ids = Json::array({nullptr, nullptr});
  int outputs = 0;
  for (const std::string& event : Drain(client)) {
    if (event == "[DONE]") continue;
    const Json json = Parse(event);
    for (const Json& choice : json["choices"]) {
      const int index = choice["index"];
      if (choice.contains("prompt_token_ids")) {
        EXPECT_TRUE(ids[index].is_null());
        ids[index] = choice["prompt_token_ids"];
      }
      if (choice.contains("token_ids")) {
        outputs += static_cast<int>(choice["token_ids"].size());
      }
    }
  }
  EXPECT_EQ(ids, ParseJson("[[97],[98,99]]"));
  EXPECT_EQ(outputs, 4);
}

TEST_F(HttpTest, AStopTextEndsTheStreamAndTheWorkersPart) {
  const std::string text = LettersOf(7, 0, 40);
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer = client.Post(
      "/v1/completions",
      Completion(R"("max_tokens":4000,"stop":")" + text.substr(20, 5) + "\""));
  const Json body = Parse(answer.body);
  EXPECT_EQ(body["choices"][0]["text"], text.substr(0, 20));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["stop_reason"], text.substr(20, 5));
  EXPECT_EQ(body["usage"]["completion_tokens"], 25);
  EXPECT_TRUE(first_.AwaitOpen(0));
}

// The first choice meets a stop text at once, the second one never.
text::TokenId StopInTheFirst(uint64_t, int choice, int position) {
  return choice == 0 && position == 3 ? 'b' : 'x';
}

class ChoiceStopTest : public HttpTest {
 protected:
  ChoiceStopTest() {
    first_.HoldAt(10);
    first_.SetScript(StopInTheFirst);
  }
  // Both choices are held; the first one has met its stop text.
  void StartTwoChoices(HttpClient& client) {
    const std::string fields =
        R"("max_tokens":40,"n":2,"stop":"b","stream":true)";
    EXPECT_EQ(client.PostStream("/v1/completions", Completion(fields)).status,
              200);
    while (TextOf(begun_).size() < 3 + 10) {
      const auto event = client.NextEvent();
      ASSERT_TRUE(event);
      begun_.push_back(*event);
    }
  }
  std::string Rest(HttpClient& client) {
    std::vector<std::string> events = begun_;
    for (std::string& event : Drain(client)) events.push_back(std::move(event));
    EXPECT_EQ(events.back(), "[DONE]");
    return TextOf(events);
  }

  std::vector<std::string> begun_;
};

TEST_F(ChoiceStopTest, AStopTextInOneOfTwoChoicesEndsThatOneAtTheWorker) {
  Start();
  HttpClient client = Connect();
  StartTwoChoices(client);
  ASSERT_TRUE(first_.AwaitCancels(1));
  ASSERT_EQ(first_.cancels()[0].choices_size(), 1);
  EXPECT_EQ(first_.cancels()[0].choices(0), 0);
  EXPECT_EQ(first_.cancels()[0].handle(), first_.submits()[0].handle());
  EXPECT_TRUE(first_.AwaitOpen(1));
  first_.HoldAt(1 << 30);
  EXPECT_EQ(Rest(client), std::string(3 + 40, 'x'));
  EXPECT_TRUE(first_.AwaitOpen(0));
  EXPECT_EQ(first_.cancels().size(), 1u);
}

TEST_F(ChoiceStopTest, AStopTextInTheLastChoiceEndsTheHandle) {
  first_.SetScript([](uint64_t, int choice, int position) {
    return position == (choice == 0 ? 3 : 12) ? 'b' : 'x';
  });
  Start();
  HttpClient client = Connect();
  StartTwoChoices(client);
  first_.HoldAt(20);
  EXPECT_EQ(Rest(client), std::string(3 + 12, 'x'));
  ASSERT_TRUE(first_.AwaitCancels(2));
  EXPECT_EQ(first_.cancels()[0].choices_size(), 1);
  EXPECT_EQ(first_.cancels()[1].choices_size(), 0);
  EXPECT_TRUE(first_.AwaitOpen(0));
}

TEST_F(ChoiceStopTest, AWorkerThatEndsWholeHandlesOnlyRunsOn) {
  first_.ForgetCancelChoices();
  Start();
  HttpClient client = Connect();
  StartTwoChoices(client);
  first_.HoldAt(1 << 30);
  EXPECT_EQ(Rest(client), std::string(3 + 40, 'x'));
  EXPECT_TRUE(first_.AwaitOpen(0));
  EXPECT_TRUE(first_.cancels().empty());
}

TEST_F(HttpTest, AnEndTokenEndsTheChoiceWithoutText) {
  first_.SetScript(
      [](uint64_t, int, int position) { return position == 2 ? kEos : 'x'; });
  Start();
  HttpClient client = Connect();
  const Json body = Parse(
      client.Post("/v1/completions", Completion(R"("max_tokens":9)")).body);
  EXPECT_EQ(body["choices"][0]["text"], "xx");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], 3);
}

TEST_F(HttpTest, EchoScoresThePromptWithoutOutput) {
  Start();
  HttpClient client = Connect();
  const Json body =
      Parse(client
                .Post("/v1/completions",
                      R"({"prompt":[104,105,33],"echo":true,"logprobs":0,
                    "max_tokens":0})")
                .body);
  const Json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "hi!");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"],
            ParseJson("[null,-0.25,-0.5]"));
  EXPECT_EQ(choice["logprobs"]["text_offset"], ParseJson("[0,1,2]"));
  EXPECT_EQ(choice["finish_reason"], "length");
}

TEST_F(HttpTest, ListsModelsAndTokenizes) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
  const Json list = Parse(client.Get("/v1/models").body);
  EXPECT_EQ(list["data"][0]["id"], "fake");
  EXPECT_EQ(Parse(client.Get("/v1/models/fake").body)["created"], 12345);
  EXPECT_EQ(client.Get("/v1/models/other").status, 404);
  EXPECT_EQ(client.Post("/tokenize", R"({"prompt":"ab"})").body,
            R"({"tokens":[256,97,98],"count":3})");
  EXPECT_EQ(
      client.Post("/tokenize", R"({"prompt":"a","add_special_tokens":false})")
          .body,
      R"({"tokens":[97],"count":1})");
  EXPECT_EQ(client.Post("/detokenize", R"({"tokens":[97,258]})").body,
            R"({"prompt":"a the"})");
  EXPECT_EQ(client.Post("/detokenize", R"({"tokens":[9999]})").status, 400);
}

// The gap's own end token ends the choice, here and at the worker.
TEST_F(HttpTest, FillsInBeforeASuffix) {
  first_.SetScript([](uint64_t, int, int position) {
    return position == 2 ? kThe : text::TokenId{'m'};
  });
  Start();
  HttpClient client = Connect();
  const Json body =
      Parse(client
                .Post("/v1/completions",
                      R"({"prompt":"a","suffix":"z","max_tokens":9,
                    "return_token_ids":true})")
                .body);
  const Json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "mm");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["prompt_token_ids"],
            ParseJson("[256,60,97,124,122,62]"));  // <a|z>
  const v1::Submit submit = first_.submits().back();
  ASSERT_EQ(submit.stop().stop_token_ids_size(), 1);
  EXPECT_EQ(submit.stop().stop_token_ids(0), kThe);
}

// A worker that writes `text` and ends.
void Recite(const std::string& text, FakeWorker& worker) {
  worker.SetScript([text](uint64_t, int, int position) {
    return position < static_cast<int>(text.size())
               ? text::TokenId{static_cast<uint8_t>(text[position])}
               : kEos;
  });
}

constexpr char kToolChat[] = R"({"messages":[{"role":"user","content":"hi"}],
    "tools":[{"type":"function","function":{"name":"add"}}],"stream":)";

TEST_F(HttpTest, AnAnswerThatCallsAToolIsGivenAsACall) {
  Recite(R"({"name": "add", "parameters": {"a": 1}})", first_);
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer =
      client.Post("/v1/chat/completions", std::string(kToolChat) + "false}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json choice = Parse(answer.body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  const Json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"]["name"], "add");
  EXPECT_EQ(call["function"]["arguments"], R"({"a":1})");
  EXPECT_THAT(call["id"].get<std::string>(), ::testing::StartsWith("call_"));
}

TEST_F(HttpTest, AStreamedCallComesWhole) {
  Recite("[add(a=1)]", first_);
  Start();
  HttpClient client = Connect();
  const HttpAnswer head = client.PostStream("/v1/chat/completions",
                                            std::string(kToolChat) + "true}");
  ASSERT_EQ(head.status, 200);
  std::string content;
  Json calls = Json::array();
  std::string finish;
  for (const std::string& event : Drain(client)) {
    if (event == "[DONE]") continue;
    const Json choice = Parse(event)["choices"][0];
    content += choice["delta"].value("content", "");
    for (const Json& call : choice["delta"].value("tool_calls", Json())) {
      calls.push_back(call);
    }
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
  }
  EXPECT_EQ(content, "");
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0]["index"], 0);
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"a":1})");
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(HttpTest, AnAnswerInWordsIsStreamedAsItComes) {
  Recite("{1} is a set", first_);
  first_.HoldAt(5);
  Start();
  HttpClient client = Connect();
  const HttpAnswer head = client.PostStream("/v1/chat/completions",
                                            std::string(kToolChat) + "true}");
  ASSERT_EQ(head.status, 200);
  std::string content;
  while (const auto event = client.NextEvent()) {
    if (*event == "[DONE]") break;
    content += Parse(*event)["choices"][0]["delta"].value("content", "");
    if (content.size() == 5) first_.HoldAt(1000);  // it was sent before the end
  }
  EXPECT_EQ(content, "{1} is a set");
}

TEST_F(HttpTest, TokenizesConversationsWithTheirTools) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
  const auto count = [&](const std::string& fields) {
    const HttpAnswer answer = client.Post(
        "/tokenize",
        R"({"messages":[{"role":"user","content":"a"}])" + fields + "}");
    EXPECT_EQ(answer.status, 200) << answer.body;
    return Parse(answer.body).value("count", 0);
  };
  EXPECT_EQ(count(R"(,"tools":[{"name":"f"}])") - count(""),
            static_cast<int>(std::string(R"({"name":"f"})").size()) + 1);
}

// A worker and a tokenizer of different vocabularies do not work together,
// whether that is so from the beginning or since a restart.
TEST_F(HttpTest, AnotherTokenizerThanTheWorkersIsRefused) {
  fleet_.SetTokenizerId(std::string(32, 'u'));
  Start();
  HttpClient client = Connect();
  const auto reason = [&] {
    const HttpAnswer answer =
        client.Post("/v1/completions", Completion(R"("max_tokens":2)"));
    EXPECT_GE(answer.status, 500) << answer.body;
    return Parse(answer.body)["error"].value("code", "");
  };
  EXPECT_EQ(reason(), "IDENTITY_MISMATCH");
  EXPECT_EQ(client.Get("/readyz").status, 503);

  fleet_.SetTokenizerId(std::string(32, 't'));
  ASSERT_EQ(
      client.Post("/v1/completions", Completion(R"("max_tokens":2)")).status,
      200);
  fleet_.SetTokenizerId(std::string(32, 'u'));  // the vocabulary is cached
  EXPECT_EQ(reason(), "IDENTITY_MISMATCH");
  EXPECT_EQ(first_.submits().size(), 1u);
}

// More embedding rows than token ids are legal.
TEST_F(HttpTest, IdsBeyondTheVocabularyDecodeToNothing) {
  first_.SetScript([](uint64_t, int, int position) {
    return position == 1 ? text::TokenId{kLettersSize + 5} : text::TokenId{'a'};
  });
  Start();
  HttpClient client = Connect();
  const Json body =
      Parse(client
                .Post("/v1/completions",
                      Completion(R"("max_tokens":3,"return_token_ids":true,
                            "logprobs":1)"))
                .body);
  EXPECT_EQ(body["choices"][0]["text"], "aa");
  EXPECT_EQ(body["choices"][0]["token_ids"], ParseJson("[97,265,97]"));
}

TEST_F(HttpTest, RefusesWhatIsWrongByStatusAndName) {
  Start();
  HttpClient client = Connect();
  const auto code = [&](const std::string& body, int status) {
    const HttpAnswer answer = client.Post("/v1/completions", body);
    EXPECT_EQ(answer.status, status) << answer.body;
    return Parse(answer.body)["error"].value("code", "");
  };
  EXPECT_EQ(code("{", 400), "MALFORMED_JSON");
  EXPECT_EQ(code(Completion(R"("temperature":-1)"), 400), "INVALID_FIELD");
  EXPECT_EQ(code(Completion(R"("what":1)"), 400), "UNKNOWN_PARAMETER");
  EXPECT_EQ(code(Completion(R"("suffix":"x","echo":true)"), 400),
            "UNSUPPORTED_PARAMETER");
  EXPECT_EQ(code(R"({"model":"no","prompt":"a"})", 404), "MODEL_NOT_FOUND");
  EXPECT_EQ(code(R"({"prompt":[99999]})", 400), "INVALID_FIELD");
  EXPECT_EQ(code(Completion(R"("max_tokens":4096)"), 400), "PROMPT_TOO_LONG");
  EXPECT_EQ(client.Get("/nothing").status, 404);
  EXPECT_EQ(client.Get("/v1/completions").status, 405);
  EXPECT_EQ(client.Get("/healthz").status, 200);
}

TEST_F(HttpTest, RefusesALongBodyAtItsHeader) {
  options_.max_body_bytes = 1000;
  Start();
  HttpClient client = Connect();
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\n"
      "Content-Length: 100000001\r\n\r\n");
  const HttpAnswer answer = client.Receive();
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "BODY_TOO_LARGE");
}

TEST_F(HttpTest, RefusesALongChunkedBodyWhenItIsTooLong) {
  options_.max_body_bytes = 1000;
  Start();
  HttpClient client = Connect();
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "200\r\n" + std::string(512, 'x') + "\r\n";
  for (int i = 0; i < 4; ++i) client.Send(chunk);
  EXPECT_EQ(client.Receive().status, 413);
}

TEST_F(HttpTest, RefusesLongHeaders) {
  Start();
  HttpClient client = Connect();
  client.Send("GET /healthz HTTP/1.1\r\nHost: t\r\nX: " +
              std::string(70'000, 'x') + "\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 431);
}

TEST_F(HttpTest, RefusesASlowBody) {
  options_.body_timeout_s = 0.2;
  Start();
  HttpClient client = Connect();
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\n"
      "Content-Length: 100\r\n\r\n{");
  EXPECT_EQ(client.Receive().status, 408);
}

TEST_F(HttpTest, RefusesWhatIsNotHttp) {
  Start();
  HttpClient client = Connect();
  client.Send("\x16\x03\x01\x02garbage\r\n\r\n");
  EXPECT_EQ(client.Receive().status, 400);
}

TEST_F(HttpTest, AsksForTheBodyOfAClientThatWaits) {
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer = client.Post("/v1/completions", Completion(""),
                                        "Expect: 100-continue\r\n");
  EXPECT_EQ(answer.status, 200);
}

TEST_F(HttpTest, ADisconnectedClientsRequestEndsAtTheWorker) {
  first_.HoldAt(3);
  Start();
  for (const char* stream : {"true", "false"}) {
    HttpClient client = Connect();
    const std::string body =
        Completion(R"("max_tokens":100,"stream":)" + std::string(stream));
    client.Send(
        "POST /v1/completions HTTP/1.1\r\nHost: t\r\n"
        "Content-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
    ASSERT_TRUE(first_.AwaitOpen(1));
    client.Close();
    EXPECT_TRUE(first_.AwaitOpen(0)) << stream;
  }
  EXPECT_TRUE(first_.AwaitCancels(2));
}

TEST_F(HttpTest, KeysAreAskedForAndNameTheTenant) {
  options_.api_keys_file = ::testing::TempDir() + "/gateway_keys.txt";
  {
    std::ofstream file(options_.api_keys_file);
    file << "secret alice 2\n";
  }
  Start();
  HttpClient client = Connect();
  EXPECT_EQ(client.Post("/v1/completions", Completion("")).status, 401);
  EXPECT_EQ(client.Get("/healthz").status, 200);
  EXPECT_EQ(client
                .Post("/v1/completions", Completion(""),
                      "Authorization: Bearer secret\r\n")
                .status,
            200);
  EXPECT_EQ(first_.submits().at(0).tenant(), "alice");
}

TEST_F(HttpTest, AFullQueueIsRefusedAtOnceWithATimeToRetry) {
  options_.max_queued = 0;
  options_.max_starting = 1;
  first_.HoldAt(0);
  first_.SetSilent(true);  // no word of the prompt: it stays "starting"
  Start();
  HttpClient starting = Connect();
  const std::string body = Completion("");
  starting.Send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
  ASSERT_TRUE(first_.AwaitOpen(1));
  HttpClient client = Connect();
  const HttpAnswer refused = client.Post("/v1/completions", body);
  EXPECT_EQ(refused.status, 429);
  EXPECT_GE(std::stoi(refused.headers.at("retry-after")), 1);
  EXPECT_EQ(Parse(refused.body)["error"]["code"], "QUEUE_FULL");
  first_.HoldAt(1 << 30);
  EXPECT_EQ(starting.Receive().status, 200);
  EXPECT_EQ(client.Post("/v1/completions", body).status, 200);
}

}  // namespace
}  // namespace caravan::gateway::testing
