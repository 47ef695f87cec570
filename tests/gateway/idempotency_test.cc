// Requests with an idempotency key, as the client sees them.
#include "gateway/idempotency.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "caravan/v1/inference.grpc.pb.h"
#include "common/status/grpc_status.h"
#include "tests/gateway/gateway_fixture.h"

namespace caravan::gateway::testing {
namespace {

constexpr char kKey[] = "Idempotency-Key: order-1\r\n";

class IdempotencyTest : public GatewayTest {
 protected:
  static std::string After(const std::string& event_id) {
    return kKey + ("Last-Event-ID: " + event_id + "\r\n");
  }
  static std::string Stream(const std::string& fields = "") {
    return R"({"model":"fake","prompt":"hi","max_tokens":40,"stream":true)" +
           (fields.empty() ? "" : "," + fields) + "}";
  }
  // Reads events until there are `size` letters.
  std::string ReadText(HttpClient& client, size_t size) {
    std::string text;
    while (text.size() < size) {
      const auto event = client.NextEvent();
      if (!event) break;
      text += TextOf({*event});
    }
    return text;
  }
};

TEST_F(IdempotencyTest, ABrokenClientAttachesWhereItStopped) {
  Start();
  first_.HoldAt(10);
  HttpClient client = Connect();
  ASSERT_EQ(client.PostStream("/v1/completions", Stream(), kKey).status, 200);
  const std::string begun = ReadText(client, 10);
  const std::string id = client.last_event_id();
  ASSERT_FALSE(id.empty());
  client.Close();
  first_.HoldAt(1 << 30);
  HttpClient again = Connect();
  ASSERT_EQ(again.PostStream("/v1/completions", Stream(), After(id)).status,
            200);
  const std::vector<std::string> rest = Drain(again);
  EXPECT_EQ(rest.back(), "[DONE]");
  EXPECT_EQ(TextOf(rest).size(), 30u);
  ASSERT_EQ(first_.submits().size(), 1u);
  const uint64_t seed = first_.submits()[0].sampling().seed();
  EXPECT_EQ(begun + TextOf(rest), LettersOf(seed, 0, 40));
}

TEST_F(IdempotencyTest, AnotherGatewayComputesTheRestFromTheEventsId) {
  Start();
  ASSERT_OK_AND_ASSIGN(const auto other, Gateway::Start(options_));
  HttpClient client = Connect();
  const std::string body = Stream(R"("n":2,"return_token_ids":true)");
  ASSERT_EQ(client.PostStream("/v1/completions", body, kKey).status, 200);
  std::vector<std::string> events;
  std::vector<std::string> ids;
  while (auto event = client.NextEvent()) {
    events.push_back(*event);
    ids.push_back(client.last_event_id());
  }
  ASSERT_EQ(events.back(), "[DONE]");
  const uint64_t seed = first_.submits()[0].sampling().seed();
  for (size_t at = 0; at + 1 < events.size(); at += 7) {
    HttpClient retry(other->http_port());
    ASSERT_EQ(retry.PostStream("/v1/completions", body, After(ids[at])).status,
              200);
    std::vector<std::string> joined(events.begin(), events.begin() + at + 1);
    for (std::string& event : Drain(retry)) joined.push_back(std::move(event));
    std::string texts[2];
    std::vector<int> tokens[2];
    for (const std::string& event : joined) {
      if (event == "[DONE]") continue;
      const Json chunk = Parse(event);
      for (const Json& choice : chunk["choices"]) {
        const auto index = choice["index"].get<size_t>();
        texts[index] += choice["text"].get<std::string>();
        if (!choice.contains("token_ids")) continue;
        for (const Json& id : choice["token_ids"]) tokens[index].push_back(id);
      }
    }
    for (int c = 0; c < 2; ++c) {
      EXPECT_EQ(texts[c], LettersOf(seed, c, 40)) << at;
      EXPECT_EQ(tokens[c].size(), 40u) << at;
    }
    EXPECT_EQ(joined.back(), "[DONE]");
  }
}

TEST_F(IdempotencyTest, AnEndedRequestIsAnsweredAgainWithoutComputing) {
  Start();
  HttpClient client = Connect();
  const HttpAnswer one =
      client.Post("/v1/completions", Completion(R"("max_tokens":5)"), kKey);
  const HttpAnswer two =
      client.Post("/v1/completions", Completion(R"("max_tokens":5)"), kKey);
  ASSERT_EQ(one.status, 200) << one.body;
  ASSERT_EQ(two.status, 200) << two.body;
  EXPECT_EQ(Parse(one.body)["choices"], Parse(two.body)["choices"]);
  EXPECT_EQ(one.headers.at("x-caravan-receipt"),
            two.headers.at("x-caravan-receipt"));
  EXPECT_EQ(first_.submits().size(), 1u);
}

TEST_F(IdempotencyTest, AnotherBodyUnderTheKeyIsAConflict) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.Post("/v1/completions", Completion(""), kKey).status, 200);
  const HttpAnswer answer =
      client.Post("/v1/completions", Completion(R"("max_tokens":5)"), kKey);
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "IDEMPOTENCY_CONFLICT");
}

TEST_F(IdempotencyTest, AFailureIsForgotten) {
  Start();
  HttpClient client = Connect();
  first_.FailSubmits(v1::ERROR_REASON_KV_EXHAUSTED, true);
  EXPECT_EQ(client.Post("/v1/completions", Completion(""), kKey).status, 429);
  first_.FailSubmits(v1::ERROR_REASON_UNSPECIFIED, false);
  EXPECT_EQ(client.Post("/v1/completions", Completion(""), kKey).status, 200);
}

// A reader learns of a failure before the store does.
TEST(IdempotencyStoreTest, AFailedGenerationIsNotAttachedTo) {
  IdempotencyStore store({}, &SystemClock::Get());
  std::vector<std::shared_ptr<Recording>> recordings;
  const auto start = [&](GenerationRequest,
                         std::shared_ptr<Recording> recording) {
    recordings.push_back(std::move(recording));
    return absl::OkStatus();
  };
  GenerationRequest request;
  request.idempotency_key = "order-1";
  request.prompts.emplace_back();
  ASSERT_OK(store.Open(request, start));
  ASSERT_OK(store.Open(request, start));
  ASSERT_EQ(recordings.size(), 1u);
  recordings[0]->End(MakeError(Reason::kKvExhausted, "no blocks"));
  ASSERT_OK(store.Open(request, start));
  EXPECT_EQ(recordings.size(), 2u);
}

TEST_F(IdempotencyTest, WhatNobodyReadsEndsAfterAWhile) {
  options_.idempotency_linger_s = 1;
  Start();
  first_.HoldAt(10);
  HttpClient client = Connect();
  ASSERT_EQ(client.PostStream("/v1/completions", Stream(), kKey).status, 200);
  ReadText(client, 10);
  client.Close();
  EXPECT_TRUE(first_.AwaitCancels(1));
}

TEST_F(IdempotencyTest, AnIdOfAnotherStreamIsRefused) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.PostStream("/v1/completions", Stream(), kKey).status, 200);
  Drain(client);
  const std::string id = client.last_event_id();
  const std::string last = "Last-Event-ID: " + id + "\r\n";
  EXPECT_EQ(client.Post("/v1/completions", Stream(), last).status, 400);
  EXPECT_EQ(client
                .Post("/v1/completions", Stream(),
                      "Idempotency-Key: order-2\r\n" + last)
                .status,
            400);
  EXPECT_EQ(client.Post("/v1/completions", Stream(), After("junk")).status,
            400);
}

TEST_F(IdempotencyTest, AnotherClassDoesNotContinueAStream) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.PostStream("/v1/completions", Stream(), kKey).status, 200);
  ReadText(client, 10);
  const std::string id = client.last_event_id();
  FakeFleet elsewhere;
  FakeWorker worker("worker-9", "other/v1");
  elsewhere.Add(worker);
  GatewayOptions options = options_;
  options.routers = {elsewhere.router_address()};
  options.tokenizers = {elsewhere.tokenizer_address()};
  ASSERT_OK_AND_ASSIGN(const auto other, Gateway::Start(options));
  HttpClient retry(other->http_port());
  const HttpAnswer answer = retry.Post("/v1/completions", Stream(), After(id));
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "NO_REPLICA_OF_CLASS");
}

TEST_F(IdempotencyTest, GrpcCallsGoOnFromTheirCursor) {
  Start();
  const auto stub = v1::InferenceService::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(gateway_->grpc_port()),
                          grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request;
  request.set_text("hi");
  request.mutable_stop()->set_max_tokens(20);
  request.set_idempotency_key("order-1");
  std::vector<v1::GenerateResponse> all;
  for (int attempt = 0; attempt < 2; ++attempt) {
    grpc::ClientContext context;
    const auto reader = stub->Generate(&context, request);
    std::string text;
    std::vector<v1::GenerateResponse> responses;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      text += response.delta().text();
      responses.push_back(response);
    }
    ASSERT_OK(FromGrpcStatus(reader->Finish()));
    const uint64_t seed = first_.submits()[0].sampling().seed();
    if (attempt == 0) {
      EXPECT_EQ(text, LettersOf(seed, 0, 20));
      all = responses;
      request.set_resume_cursor(all[all.size() / 2].cursor());
      continue;
    }
    std::string begun;
    for (size_t i = 0; i <= all.size() / 2; ++i) {
      begun += all[i].delta().text();
    }
    EXPECT_EQ(begun + text, LettersOf(seed, 0, 20));
    EXPECT_TRUE(responses.back().has_finished());
  }
  EXPECT_EQ(first_.submits().size(), 1u);
}

}  // namespace
}  // namespace caravan::gateway::testing
