// The gRPC front door.
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "caravan/v1/inference.grpc.pb.h"
#include "common/status/grpc_status.h"
#include "tests/gateway/gateway_fixture.h"

namespace caravan::gateway::testing {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

class GrpcTest : public GatewayTest {
 protected:
  void StartAndConnect() {
    Start();
    stub_ = v1::InferenceService::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(gateway_->grpc_port()),
        grpc::InsecureChannelCredentials()));
  }
  static v1::GenerateRequest Request(int max_tokens) {
    v1::GenerateRequest request;
    request.set_text("hi");
    request.mutable_sampling()->set_seed(7);
    request.mutable_stop()->set_max_tokens(max_tokens);
    return request;
  }
  absl::Status Complete(const v1::GenerateRequest& request,
                        v1::CompleteResponse* response) {
    grpc::ClientContext context;
    return FromGrpcStatus(stub_->Complete(&context, request, response));
  }

  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

TEST_F(GrpcTest, StreamsStartedDeltasAndFinished) {
  StartAndConnect();
  v1::GenerateRequest request = Request(6);
  request.set_request_id("mine");
  request.mutable_output()->set_return_token_ids(true);
  request.mutable_sampling()->set_logprob_count(1);
  request.mutable_sampling()->set_prompt_logprob_count(0);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  std::vector<v1::GenerateResponse> responses;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    responses.push_back(response);
  }
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_GE(responses.size(), 3u);
  const v1::Started& started = responses.front().started();
  EXPECT_EQ(started.request_id(), "mine");
  EXPECT_EQ(started.seed(), 7u);
  EXPECT_EQ(started.prompt_token_ids_size(), 3);
  EXPECT_EQ(started.prompt_logprobs_size(), 2);
  std::string text;
  int position = 0;
  for (size_t i = 1; i + 1 < responses.size(); ++i) {
    const v1::Delta& delta = responses[i].delta();
    text += delta.text();
    EXPECT_EQ(delta.first_position(), position);
    EXPECT_EQ(delta.logprobs_size(), delta.token_ids_size());
    position += delta.token_ids_size();
  }
  EXPECT_EQ(text, LettersOf(7, 0, 6));
  EXPECT_EQ(position, 6);
  const v1::Finished& finished = responses.back().finished();
  EXPECT_EQ(finished.usage().output_token_count(), 6);
  EXPECT_FALSE(finished.receipt().empty());
  EXPECT_FALSE(finished.system_fingerprint().empty());
}

TEST_F(GrpcTest, CompletesChatAndChoices) {
  StartAndConnect();
  v1::GenerateRequest request = Request(3);
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.add_content()->set_text("hi");
  request.set_n(2);
  v1::CompleteResponse response;
  ASSERT_OK(Complete(request, &response));
  ASSERT_EQ(response.choices_size(), 2);
  EXPECT_EQ(response.choices(1).text(), LettersOf(7, 1, 3));
  EXPECT_EQ(response.choices(1).finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(GrpcTest, ContinuesAfterOutputOfAnEarlierCall) {
  StartAndConnect();
  for (int k = 0; k <= 6; ++k) {
    v1::GenerateRequest request = Request(6);
    v1::ResumedChoice& resumed = *request.add_resumed_choices();
    for (int i = 0; i < k; ++i) resumed.add_output_token_ids(LetterAt(7, 0, i));
    v1::CompleteResponse response;
    ASSERT_OK(Complete(request, &response));
    EXPECT_EQ(response.choices(0).text(), LettersOf(7, 0, 6).substr(k)) << k;
    EXPECT_EQ(response.usage().output_token_count(), 6);
  }
}

TEST_F(GrpcTest, FillsInAndCallsTools) {
  StartAndConnect();
  v1::GenerateRequest request = Request(3);
  request.set_suffix("z");
  request.set_infill_order(v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE);
  request.mutable_output()->set_return_token_ids(true);
  v1::CompleteResponse response;
  ASSERT_OK(Complete(request, &response));
  EXPECT_EQ(response.prompt_token_ids(2), 'z');

  const std::string call = R"({"name":"f","parameters":{}})";
  first_.SetScript([call](uint64_t, int, int position) {
    return position < static_cast<int>(call.size())
               ? text::TokenId{static_cast<uint8_t>(call[position])}
               : kEos;
  });
  request = Request(100);
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.add_content()->set_text("hi");
  request.mutable_chat()->add_tools()->set_definition_json(R"({"name":"f"})");
  ASSERT_OK(Complete(request, &response));
  const v1::CompletedChoice& choice = response.choices(0);
  EXPECT_EQ(choice.finish_reason(), v1::FINISH_REASON_TOOL_CALLS);
  EXPECT_EQ(choice.text(), "");
  ASSERT_EQ(choice.tool_calls_size(), 1);
  EXPECT_EQ(choice.tool_calls(0).arguments_json(), "{}");
}

TEST_F(GrpcTest, RefusesByName) {
  StartAndConnect();
  const auto refuse = [this](auto change) {
    v1::GenerateRequest request = Request(3);
    change(request);
    v1::CompleteResponse response;
    return Complete(request, &response);
  };
  EXPECT_THAT(refuse([](auto& r) { r.clear_text(); }),
              HasReason(Reason::kInvalidField, HasSubstr("input")));
  EXPECT_THAT(refuse([](auto& r) {
                r.set_suffix("x");
                r.mutable_output()->set_echo(true);
              }),
              HasReason(Reason::kUnsupportedParameter, HasSubstr("echo")));
  EXPECT_THAT(refuse([](auto& r) {
                r.set_suffix("x");
                r.mutable_token_ids()->add_token_ids(1);
              }),
              HasReason(Reason::kInvalidField, HasSubstr("suffix")));
  EXPECT_THAT(refuse([](auto& r) {
                r.mutable_chat()->add_messages()->set_role("user");
                r.mutable_chat()->add_tools()->set_definition_json("[");
              }),
              HasReason(Reason::kInvalidField, HasSubstr("chat.tools[0]")));
  EXPECT_THAT(refuse([](auto& r) { r.set_resume_cursor("x"); }),
              HasReason(Reason::kInvalidField, HasSubstr("idempotency key")));
  EXPECT_THAT(refuse([](auto& r) { r.mutable_chat(); }),
              HasReason(Reason::kInvalidField, HasSubstr("messages")));
  EXPECT_THAT(refuse([](auto& r) { r.set_n(0); }),
              HasReason(Reason::kInvalidField, HasSubstr("n must be")));
  EXPECT_THAT(
      refuse([](auto& r) { r.mutable_sampling()->set_temperature(NAN); }),
      HasReason(Reason::kInvalidField, HasSubstr("temperature")));
  EXPECT_THAT(refuse([](auto& r) { r.set_model("no"); }),
              HasReason(Reason::kModelNotFound));
  EXPECT_THAT(refuse([](auto& r) { r.set_priority(1000); }),
              HasReason(Reason::kInvalidField, HasSubstr("priority")));
}

// A write that is hinted to be buffered waits for gRPC's own timers, 133 ms at
// the median: fifty of those would not fit into the deadline.
TEST_F(GrpcTest, TheFirstEventNeedsNoTimerAndNoSecondEvent) {
  first_.HoldAt(1);
  StartAndConnect();
  const auto deadline =
      std::chrono::system_clock::now() + std::chrono::seconds(4);
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    const auto reader = stub_->Generate(&context, Request(100));
    v1::GenerateResponse response;
    ASSERT_TRUE(reader->Read(&response)) << i;
    ASSERT_TRUE(response.has_started());
    ASSERT_TRUE(reader->Read(&response)) << i;
    EXPECT_EQ(response.delta().text(), LettersOf(7, 0, 1));
    context.TryCancel();
    reader->Finish();
  }
}

TEST_F(GrpcTest, CancellingACallEndsItAtTheWorker) {
  first_.HoldAt(2);
  StartAndConnect();
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request(100));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_TRUE(first_.AwaitOpen(1));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(first_.AwaitOpen(0));
}

TEST_F(GrpcTest, ADeadlineTravelsAndEndsTheCall) {
  first_.HoldAt(2);
  StartAndConnect();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(300));
  v1::CompleteResponse response;
  EXPECT_EQ(stub_->Complete(&context, Request(100), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(first_.AwaitOpen(0));
  EXPECT_TRUE(first_.submits().at(0).has_time_left());
}

TEST_F(GrpcTest, ListsModels) {
  StartAndConnect();
  v1::CompleteResponse completed;
  ASSERT_OK(Complete(Request(1), &completed));
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  ASSERT_TRUE(stub_->ListModels(&context, {}, &response).ok());
  ASSERT_EQ(response.models_size(), 1);
  EXPECT_EQ(response.models(0).name(), "fake");
}

}  // namespace
}  // namespace caravan::gateway::testing
