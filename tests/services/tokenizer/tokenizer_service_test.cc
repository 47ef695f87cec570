#include "services/tokenizer/tokenizer_service.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/grpc/channel.h"
#include "common/grpc/server.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"
#include "tests/support/manual_clock.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;

// The service with the demo model, behind a real server.
class TokenizerServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string directory = testing::RepositoryPath("deploy/demo-model");
    auto models = ModelSet::Load({{"demo", directory}, {"again", directory}});
    ASSERT_OK(models);
    models_ = std::make_unique<ModelSet>(*std::move(models));
    service_ = std::make_unique<TokenizerService>(
        models_.get(), &clock_, absl::UTCTimeZone(), &registry_);
    auto server = GrpcServer::Start({}, {service_.get()});
    ASSERT_OK(server);
    server_ = *std::move(server);
    auto channel =
        MakeChannel(StrCat("127.0.0.1:", server_->port()), ChannelOptions());
    ASSERT_OK(channel);
    stub_ = v1::TokenizerService::NewStub(*channel);
  }

  template <typename Request, typename Response>
  absl::Status Invoke(grpc::Status (v1::TokenizerService::Stub::*method)(
                          grpc::ClientContext*, const Request&, Response*),
                      const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
    return FromGrpcStatus((stub_.get()->*method)(&context, request, response));
  }
  absl::Status Prepare(const v1::PrepareRequest& request,
                       v1::PrepareResponse* response) {
    return Invoke(&v1::TokenizerService::Stub::Prepare, request, response);
  }

  static v1::PrepareRequest ChatRequest(const std::string& text) {
    v1::PrepareRequest request;
    request.set_model("demo");
    v1::ChatMessage* const message =
        request.add_inputs()->mutable_conversation()->add_messages();
    message->set_role("user");
    message->add_content()->set_text(text);
    return request;
  }

  testing::ManualClock clock_;
  MetricsRegistry registry_;
  std::unique_ptr<ModelSet> models_;
  std::unique_ptr<TokenizerService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<v1::TokenizerService::Stub> stub_;
};

TEST_F(TokenizerServiceTest, EncodesAndDecodes) {
  v1::EncodeRequest request;
  request.set_model("demo");
  request.add_texts("Hello, world!");
  request.add_texts("");
  v1::EncodeResponse encoded;
  ASSERT_OK(Invoke(&v1::TokenizerService::Stub::Encode, request, &encoded));
  ASSERT_EQ(encoded.results_size(), 2);
  EXPECT_THAT(encoded.results(0).token_ids(),
              ::testing::ElementsAre(4090, 1178, 11, 1337, 0));
  EXPECT_THAT(encoded.results(1).token_ids(), ::testing::ElementsAre(4090));
  EXPECT_EQ(encoded.tokenizer_id().size(), 32u);

  v1::DecodeRequest decode;
  decode.set_model("demo");
  *decode.add_sequences() = encoded.results(0);
  decode.set_skip_special_tokens(true);
  v1::DecodeResponse decoded;
  ASSERT_OK(Invoke(&v1::TokenizerService::Stub::Decode, decode, &decoded));
  EXPECT_EQ(decoded.texts(0), "Hello, world!");
}

TEST_F(TokenizerServiceTest, PreparesTextAndConversationsInOrder) {
  v1::PrepareRequest request = ChatRequest("Hi <|eot_id|>");
  request.add_inputs()->set_text("Hello, world!");
  v1::PrepareInput* const plain = request.add_inputs();
  plain->set_text("<|eot_id|>");
  plain->set_add_special_tokens(false);
  plain->set_allow_special_tokens(true);
  v1::PrepareResponse response;
  ASSERT_OK(Prepare(request, &response));
  ASSERT_EQ(response.prompts_size(), 3);
  EXPECT_EQ(response.prompts(0).rendered(),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
            "Hi <|eot_id|><|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  const auto& ids = response.prompts(0).token_ids();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 4090), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 4094), 1);
  EXPECT_THAT(response.prompts(1).token_ids(),
              ::testing::ElementsAre(4090, 1178, 11, 1337, 0));
  EXPECT_THAT(response.prompts(2).token_ids(), ::testing::ElementsAre(4094));
  EXPECT_EQ(response.template_id().size(), 32u);
}

TEST_F(TokenizerServiceTest, BadInputNamesItsField) {
  v1::PrepareResponse response;
  v1::PrepareRequest request = ChatRequest("x");
  request.set_model("nobody");
  EXPECT_THAT(Prepare(request, &response),
              HasReason(Reason::kModelNotFound,
                        AllOf(HasSubstr("nobody"), HasSubstr("demo, again"))));

  request = ChatRequest("x");
  request.add_inputs()->mutable_infill()->set_prefix("a");
  EXPECT_THAT(
      Prepare(request, &response),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("inputs[1].infill")));

  request = ChatRequest("x");
  request.mutable_inputs(0)
      ->mutable_conversation()
      ->mutable_messages(0)
      ->add_content()
      ->mutable_image()
      ->set_data("png");
  EXPECT_THAT(
      Prepare(request, &response),
      HasReason(Reason::kUnsupportedParameter,
                HasSubstr("conversation.messages[0].content[1].image")));

  request = ChatRequest("x");
  request.mutable_inputs(0)
      ->mutable_conversation()
      ->add_tools()
      ->set_definition_json("{");
  EXPECT_THAT(
      Prepare(request, &response),
      HasReason(Reason::kInvalidField, HasSubstr("conversation.tools[0]")));

  request.clear_inputs();
  request.add_inputs()->mutable_conversation();
  EXPECT_THAT(Prepare(request, &response),
              HasReason(Reason::kInvalidField, HasSubstr("messages")));
  request.clear_inputs();
  EXPECT_THAT(Prepare(request, &response),
              HasReason(Reason::kInvalidField, HasSubstr("inputs")));
}

TEST_F(TokenizerServiceTest, VeryLongTextIsRefusedBeforeItIsEncoded) {
  v1::EncodeRequest request;
  request.set_model("demo");
  request.add_texts(std::string((16 << 20) + 1, 'a'));
  v1::EncodeResponse response;
  EXPECT_THAT(Invoke(&v1::TokenizerService::Stub::Encode, request, &response),
              HasReason(Reason::kInvalidField,
                        AllOf(HasSubstr("texts[0]"), HasSubstr("16777216"),
                              HasSubstr("16777217"))));
}

TEST_F(TokenizerServiceTest, DecodeRefusesIdsThatDoNotExist) {
  v1::DecodeRequest request;
  request.set_model("demo");
  request.add_sequences()->add_token_ids(4096);
  v1::DecodeResponse response;
  EXPECT_THAT(Invoke(&v1::TokenizerService::Stub::Decode, request, &response),
              HasReason(Reason::kInvalidField,
                        AllOf(HasSubstr("sequences[0].token_ids[0]"),
                              HasSubstr("[0, 4096)"), HasSubstr("4096"))));
}

TEST_F(TokenizerServiceTest, GivesTheVocabularyAndItsModels) {
  v1::GetVocabularyRequest request;
  request.set_model("again");
  v1::GetVocabularyResponse vocabulary;
  ASSERT_OK(
      Invoke(&v1::TokenizerService::Stub::GetVocabulary, request, &vocabulary));
  ASSERT_EQ(vocabulary.tokens_size(), 4096);
  EXPECT_EQ(vocabulary.tokens(4094).kind(), v1::TOKEN_KIND_SPECIAL);
  EXPECT_EQ(vocabulary.tokens(0).bytes(), "!");
  EXPECT_FALSE(vocabulary.decoder().strip_leading_space());

  v1::ListTokenizerModelsResponse models;
  ASSERT_OK(Invoke(&v1::TokenizerService::Stub::ListTokenizerModels,
                   v1::ListTokenizerModelsRequest(), &models));
  ASSERT_EQ(models.models_size(), 2);
  EXPECT_EQ(models.models(0).name(), "demo");
  EXPECT_EQ(models.models(0).bos_token_id(), 4090);
  EXPECT_THAT(models.models(0).eos_token_ids(),
              ::testing::ElementsAre(4091, 4094));
  EXPECT_EQ(models.models(0).vocabulary_size(), 4096);
  EXPECT_EQ(models.models(0).tokenizer_id(), vocabulary.tokenizer_id());
}

TEST_F(TokenizerServiceTest, AKnownVocabularyIsNotSentAgain) {
  v1::GetVocabularyRequest request;
  request.set_model("demo");
  v1::GetVocabularyResponse first;
  ASSERT_OK(
      Invoke(&v1::TokenizerService::Stub::GetVocabulary, request, &first));
  EXPECT_EQ(first.content_hash().size(), 32u);
  EXPECT_FALSE(first.unchanged());

  request.set_known_content_hash(first.content_hash());
  v1::GetVocabularyResponse again;
  ASSERT_OK(
      Invoke(&v1::TokenizerService::Stub::GetVocabulary, request, &again));
  EXPECT_TRUE(again.unchanged());
  EXPECT_EQ(again.tokens_size(), 0);
  EXPECT_EQ(again.tokenizer_id(), first.tokenizer_id());

  request.set_known_content_hash("another");
  ASSERT_OK(
      Invoke(&v1::TokenizerService::Stub::GetVocabulary, request, &again));
  EXPECT_EQ(again.tokens_size(), 4096);
}

TEST_F(TokenizerServiceTest, CountsWhatItDid) {
  v1::PrepareResponse response;
  ASSERT_OK(Prepare(ChatRequest("Hi"), &response));
  v1::PrepareRequest unknown = ChatRequest("Hi");
  unknown.set_model("nobody");
  EXPECT_FALSE(Prepare(unknown, &response).ok());
  const std::string metrics = registry_.Serialize();
  EXPECT_THAT(
      metrics,
      AllOf(HasSubstr("caravan_tokenizer_requests_total{method=\"prepare\","
                      "outcome=\"ok\"} 1"),
            HasSubstr("outcome=\"MODEL_NOT_FOUND\"} 1"),
            HasSubstr("caravan_tokenizer_encoded_tokens_total{method="
                      "\"prepare\"}"),
            HasSubstr("caravan_tokenizer_text_bytes_total{method=\"encode\"} "
                      "0"),
            HasSubstr("caravan_tokenizer_models 2")));
}

}  // namespace
}  // namespace caravan::tokenizer
