#include "gateway/backend/tokenizer_client.h"

#include <utility>

#include "caravan/v1/tokenizer.grpc.pb.h"
#include "common/status/status_macros.h"
#include "gateway/backend/unary_client.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

// Encoding the longest body takes seconds.
constexpr absl::Duration kCallTimeout = absl::Seconds(30);

v1::ChatMessage ToProto(const Message& message) {
  v1::ChatMessage proto;
  proto.set_role(message.role);
  for (const std::string& text : message.content) {
    proto.add_content()->set_text(text);
  }
  if (message.name) proto.set_name(*message.name);
  for (const ToolCall& call : message.tool_calls) {
    v1::ToolCall& out = *proto.add_tool_calls();
    out.set_id(call.id);
    out.set_name(call.name);
    out.set_arguments_json(call.arguments_json);
  }
  if (message.tool_call_id) proto.set_tool_call_id(*message.tool_call_id);
  return proto;
}

text::Vocabulary FromProto(const v1::GetVocabularyResponse& proto) {
  text::Vocabulary vocabulary;
  vocabulary.tokens.reserve(proto.tokens_size());
  for (const v1::VocabularyToken& token : proto.tokens()) {
    vocabulary.tokens.push_back(
        {token.bytes(), static_cast<text::TokenKind>(token.kind())});
  }
  vocabulary.strip_leading_space = proto.decoder().strip_leading_space();
  return vocabulary;
}

}  // namespace

v1::PrepareInput ToPrepareInput(const PromptInput& prompt,
                                bool add_special_tokens) {
  v1::PrepareInput input;
  input.set_add_special_tokens(add_special_tokens);
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    input.set_text(*text);
  } else if (const auto* chat = std::get_if<Conversation>(&prompt)) {
    v1::Conversation& out = *input.mutable_conversation();
    for (const Message& message : chat->messages) {
      *out.add_messages() = ToProto(message);
    }
    for (const Tool& tool : chat->tools) {
      out.add_tools()->set_definition_json(tool.definition_json);
    }
    out.set_add_generation_prompt(chat->add_generation_prompt);
  } else if (const auto* infill = std::get_if<Infill>(&prompt)) {
    v1::Infill& out = *input.mutable_infill();
    out.set_prefix(infill->prefix);
    out.set_suffix(infill->suffix);
    out.set_order(infill->suffix_first ? v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE
                                       : v1::INFILL_ORDER_PREFIX_SUFFIX_MIDDLE);
  }
  return input;
}

struct TokenizerClient::Stubs {
  explicit Stubs(size_t size) : rotation(size) {}
  std::vector<std::unique_ptr<v1::TokenizerService::Stub>> stubs;
  Rotation rotation;
};

TokenizerClient::TokenizerClient(std::unique_ptr<Stubs> stubs)
    : stubs_(std::move(stubs)) {}

TokenizerClient::~TokenizerClient() = default;

absl::StatusOr<std::unique_ptr<TokenizerClient>> TokenizerClient::Create(
    const std::vector<std::string>& addresses, const ChannelOptions& options) {
  auto stubs = std::make_unique<Stubs>(addresses.size());
  for (const std::string& address : addresses) {
    CARAVAN_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                             MakeChannel(address, options));
    stubs->stubs.push_back(v1::TokenizerService::NewStub(std::move(channel)));
  }
  return std::unique_ptr<TokenizerClient>(
      new TokenizerClient(std::move(stubs)));
}

asio::awaitable<absl::StatusOr<v1::PrepareResponse>> TokenizerClient::Prepare(
    v1::PrepareRequest request, Patience patience) {
  const auto call = [this, &request](size_t index) {
    const auto start = [stub = stubs_->stubs[index].get()](
                           auto* context, auto* in, auto* out, auto done) {
      stub->async()->Prepare(context, in, out, std::move(done));
    };
    return CallUnary<v1::PrepareResponse>(start, request, kCallTimeout);
  };
  co_return co_await CallAny<v1::PrepareResponse>(
      stubs_->rotation, std::move(patience), Reason::kTokenizerUnavailable,
      "the tokenizer", call);
}

asio::awaitable<absl::StatusOr<NamedVocabulary>> TokenizerClient::GetVocabulary(
    std::string model, Patience patience) {
  v1::GetVocabularyRequest request;
  request.set_model(std::move(model));
  const auto call = [this, &request](size_t index) {
    const auto start = [stub = stubs_->stubs[index].get()](
                           auto* context, auto* in, auto* out, auto done) {
      stub->async()->GetVocabulary(context, in, out, std::move(done));
    };
    return CallUnary<v1::GetVocabularyResponse>(start, request, kCallTimeout);
  };
  const absl::StatusOr<v1::GetVocabularyResponse> response =
      co_await CallAny<v1::GetVocabularyResponse>(
          stubs_->rotation, std::move(patience), Reason::kTokenizerUnavailable,
          "the tokenizer", call);
  if (!response.ok()) co_return response.status();
  co_return NamedVocabulary{
      response->tokenizer_id(),
      std::make_shared<const text::Vocabulary>(FromProto(*response))};
}

}  // namespace caravan::gateway
