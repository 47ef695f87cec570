// What a failure gets (DESIGN.md section 6), as the client sees it.
#include <string>
#include <thread>
#include <vector>

#include "common/receipt/receipt.h"
#include "tests/gateway/gateway_fixture.h"

namespace caravan::gateway::testing {
namespace {

class FailoverTest : public GatewayTest {
 protected:
  // Starts a stream that the first worker holds after `position` tokens.
  void StartHeld(HttpClient& client, int position,
                 const std::string& fields = "") {
    first_.HoldAt(position);
    EXPECT_EQ(
        client
            .PostStream("/v1/completions",
                        Completion(R"("max_tokens":40,"stream":true)" + fields))
            .status,
        200);
    ASSERT_TRUE(first_.AwaitOpen(1));
    while (static_cast<int>(TextOf(begun_).size()) < position) {
      const auto event = client.NextEvent();
      ASSERT_TRUE(event);
      begun_.push_back(*event);
    }
  }
  std::vector<std::string> Rest(HttpClient& client) {
    std::vector<std::string> events = begun_;
    for (std::string& event : Drain(client)) events.push_back(std::move(event));
    return events;
  }
  static std::string ErrorCode(const std::vector<std::string>& events) {
    if (events.empty()) return "";
    const Json last = Parse(events.back());
    return last.contains("error") ? last["error"].value("code", "") : "";
  }

  std::vector<std::string> begun_;
};

TEST_F(FailoverTest, AKilledWorkersStreamGoesOnElsewhereTokenForToken) {
  FakeWorker second("worker-2");
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  fleet_.Add(second);
  first_.Kill();
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  ASSERT_EQ(second.submits().size(), 1u);
  const v1::Submit submit = second.submits()[0];
  EXPECT_EQ(submit.choices(0).output_token_ids_size(), 10);
  EXPECT_EQ(submit.sampling().seed(), 7u);
  const v1::PlaceRequest place = fleet_.places().back();
  EXPECT_EQ(place.excluded_worker_ids(0), "worker-1");
  EXPECT_EQ(place.required_identity().numerics_class(), "fake/v1");
}

TEST_F(FailoverTest, AWorkerThatComesBackInANewEpochGoesOn) {
  Start();
  HttpClient client = Connect();
  StartHeld(client, 5);
  fleet_.Remove("worker-1");
  first_.Kill();
  FakeWorker again("worker-1");
  again.SetEpoch(77);
  fleet_.Add(again);
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST_F(FailoverTest, AHungWorkersStreamGoesOnElsewhere) {
  first_.PromiseHeartbeats(absl::Milliseconds(40));
  FakeWorker second("worker-2");
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  fleet_.Add(second);
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  ASSERT_EQ(second.submits().size(), 1u);
  EXPECT_EQ(second.submits()[0].choices(0).output_token_ids_size(), 10);
}

TEST_F(FailoverTest, ADrainingWorkersStreamMoves) {
  FakeWorker second("worker-2");
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  fleet_.Add(second);
  first_.Drain();
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  EXPECT_TRUE(first_.AwaitCancels(1));
}

// What is known is computed there first, as a prompt of which nothing is
// wanted.
TEST_F(FailoverTest, AMoveWaitsUntilItsTargetIsReady) {
  FakeWorker second("worker-2");
  Start();
  HttpClient client = Connect();
  first_.HoldAt(10);
  Json body = Parse(Completion(R"("max_tokens":40,"stream":true)"));
  body["prompt"] = std::vector<int>(100, 'a');
  ASSERT_EQ(client.PostStream("/v1/completions", body.dump()).status, 200);
  while (TextOf(begun_).size() < 10) {
    const auto event = client.NextEvent();
    ASSERT_TRUE(event);
    begun_.push_back(*event);
  }
  fleet_.Add(second);
  first_.Drain();
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  ASSERT_EQ(second.submits().size(), 2u);
  const v1::Submit warmup = second.submits()[0];
  EXPECT_EQ(warmup.prompt(0).tokens().token_ids_size(), 110);
  EXPECT_EQ(warmup.choices(0).output_token_ids_size(), 0);
  EXPECT_EQ(warmup.stop().max_tokens(), 0);
  EXPECT_EQ(warmup.priority(), -1);
  const v1::Submit moved = second.submits()[1];
  EXPECT_EQ(moved.prompt(0).tokens().token_ids_size(), 100);
  EXPECT_EQ(moved.choices(0).output_token_ids_size(), 10);
}

TEST_F(FailoverTest, ADrainingWorkerWithoutPeersRunsOn) {
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  first_.Drain();
  first_.HoldAt(1 << 30);
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST_F(FailoverTest, TwoDeathsWithoutATokenEndASuspectRequest) {
  FakeWorker second("worker-2");
  second.HoldAt(0);
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  fleet_.Add(second);
  second.HoldAt(10);
  first_.Kill();
  ASSERT_TRUE(second.AwaitOpen(1));
  second.Kill();
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(ErrorCode(events), "SUSPECT_REQUEST");
}

TEST_F(FailoverTest, TwoLostStagesAreTwoDeaths) {
  FakeWorker second("worker-2");
  fleet_.Add(second);
  first_.FailSubmits(v1::ERROR_REASON_WORKER_LOST, true);
  second.FailSubmits(v1::ERROR_REASON_WORKER_LOST, true);
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer = client.Post("/v1/completions", Completion(""));
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "SUSPECT_REQUEST");
  EXPECT_EQ(first_.submits().size() + second.submits().size(), 2u);
}

TEST_F(FailoverTest, WithoutAReplicaOfTheClassTheStreamSaysSo) {
  options_.resume_patience_s = 0.2;
  FakeWorker other("worker-2", "other/v1");
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  fleet_.Add(other);
  fleet_.Remove("worker-1");
  first_.Kill();
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(ErrorCode(events), "NO_REPLICA_OF_CLASS");
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 10));
}

TEST_F(FailoverTest, AnInexactResumeIsAllowedByTheClientAndMarked) {
  FakeWorker other("worker-2", "other/v1");
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10, R"(,"allow_inexact_resume":true)");
  fleet_.Add(other);
  fleet_.Remove("worker-1");
  first_.Kill();
  const std::vector<std::string> events = Rest(client);
  ASSERT_EQ(events.back(), "[DONE]");
  const Json last = Parse(events[events.size() - 2]);
  EXPECT_EQ(last["inexact_resumes"][0]["from_position"], 10);
  EXPECT_EQ(last["inexact_resumes"][0]["numerics_class"], "other/v1");
  const auto receipt =
      receipt::DecodeReceipt(last["receipt"].get<std::string>());
  ASSERT_OK(receipt);
  EXPECT_EQ(receipt->identity().numerics_class(), "fake/v1");
  EXPECT_EQ(receipt->inexact_resumes_size(), 1);
}

TEST_F(FailoverTest, ARefusedSubmitIsPlacedElsewhere) {
  FakeWorker second("worker-2");
  fleet_.Add(second);
  for (const auto reason :
       {v1::ERROR_REASON_STALE_EPOCH, v1::ERROR_REASON_DRAINING,
        v1::ERROR_REASON_NUMERIC_FAULT}) {
    first_.FailSubmits(reason, true);
    if (!gateway_) Start();
    HttpClient client = Connect();
    EXPECT_EQ(client.Post("/v1/completions", Completion("")).status, 200)
        << reason;
  }
}

TEST_F(FailoverTest, AnErrorThatNoOtherWorkerHelpsGoesToTheClient) {
  FakeWorker second("worker-2");
  fleet_.Add(second);
  first_.FailSubmits(v1::ERROR_REASON_KV_EXHAUSTED, true);
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer = client.Post("/v1/completions", Completion(""));
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "KV_EXHAUSTED");
  EXPECT_TRUE(second.submits().empty());
}

TEST_F(FailoverTest, WithoutARouterTheLastKnownReplicasAreUsed) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
  fleet_.StopRouter();
  EXPECT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
}

TEST_F(FailoverTest, ARequestWaitsForATokenizerThatIsAway) {
  Start();
  HttpClient client = Connect();
  ASSERT_EQ(client.Post("/v1/completions", Completion("")).status, 200);
  fleet_.StopTokenizer();
  const std::string body = Completion(R"("max_tokens":3)");
  client.Send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  fleet_.StartTokenizer();
  EXPECT_EQ(client.Receive().status, 200);
}

TEST_F(FailoverTest, WithoutAnyWorkerTheRefusalCanBeRetried) {
  fleet_.Remove("worker-1");
  Start();
  HttpClient client = Connect();
  const HttpAnswer answer = client.Post("/v1/completions", Completion(""));
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "NO_REPLICA");
  EXPECT_EQ(client.Get("/readyz").status, 503);
}

TEST_F(FailoverTest, ShutdownLetsStreamsEndAndRefusesNewOnes) {
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  std::jthread shutdown([this] { gateway_->Shutdown(absl::Seconds(10)); });
  HttpAnswer refused;
  while (refused.status != 503) {
    HttpClient late = Connect();
    refused = late.Get("/readyz");
  }
  HttpClient late = Connect();
  const HttpAnswer answer = late.Post("/v1/completions", Completion(""));
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(Parse(answer.body)["error"]["code"], "DRAINING");
  first_.HoldAt(1 << 30);
  const std::vector<std::string> events = Rest(client);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(TextOf(events), LettersOf(7, 0, 40));
}

TEST_F(FailoverTest, AfterTheGraceStreamsEndWithARetryableError) {
  Start();
  HttpClient client = Connect();
  StartHeld(client, 10);
  std::jthread shutdown([this] { gateway_->Shutdown(absl::Milliseconds(50)); });
  EXPECT_EQ(ErrorCode(Rest(client)), "DRAINING");
}

}  // namespace
}  // namespace caravan::gateway::testing
