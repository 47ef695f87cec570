#include "gateway/grpc/generation_translate.h"

#include <string>
#include <utility>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/openai/tools_translate.h"

namespace caravan::gateway {
namespace {

// The same default as for HTTP completions.
constexpr int32_t kDefaultMaxTokens = 16;

absl::Status RefuseUnsupported(const v1::GenerateRequest& proto) {
  const std::pair<std::string_view, const std::string*> strings[] = {
      {"adapter", &proto.adapter()},
      {"response_format_json", &proto.response_format_json()},
  };
  for (const auto& [field, value] : strings) {
    if (!value->empty()) return UnsupportedError(field);
  }
  return absl::OkStatus();
}

absl::StatusOr<Message> ToMessage(const std::string& field,
                                  const v1::ChatMessage& proto) {
  Message message;
  message.role = proto.role();
  if (message.role.empty()) {
    return FieldError(StrCat(field, ".role"), "given", "nothing");
  }
  for (int i = 0; i < proto.content_size(); ++i) {
    if (!proto.content(i).has_text()) {
      return UnsupportedError(StrCat(field, ".content[", i, "]"), "use text");
    }
    message.content.push_back(proto.content(i).text());
  }
  if (proto.has_name()) message.name = proto.name();
  for (const v1::ToolCall& call : proto.tool_calls()) {
    message.tool_calls.push_back(
        {call.id(), call.name(), call.arguments_json()});
  }
  if (proto.has_tool_call_id()) message.tool_call_id = proto.tool_call_id();
  return message;
}

absl::Status ReadTools(const v1::ChatInput& proto, Conversation& conversation) {
  for (int i = 0; i < proto.tools_size(); ++i) {
    const std::string field = StrCat("chat.tools[", i, "]");
    CARAVAN_ASSIGN_OR_RETURN(
        Tool tool,
        openai::ReadToolDefinition(field, proto.tools(i).definition_json()));
    CARAVAN_RETURN_IF_ERROR(
        openai::AddTool(field, std::move(tool), conversation));
  }
  const std::string& choice = proto.tool_choice_json();
  if (choice.empty()) return absl::OkStatus();
  const auto json = ParseJson(choice);
  CARAVAN_ASSIGN_OR_RETURN(const bool allowed,
                           openai::AllowsCalls("chat.tool_choice_json", json));
  if (!allowed) conversation.tools.clear();
  return absl::OkStatus();
}

absl::StatusOr<PromptInput> ToConversation(const v1::ChatInput& proto) {
  if (proto.messages_size() == 0) {
    return FieldError("chat.messages", "at least one message", "none");
  }
  Conversation conversation;
  for (int i = 0; i < proto.messages_size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(
        Message message,
        ToMessage(StrCat("chat.messages[", i, "]"), proto.messages(i)));
    conversation.messages.push_back(std::move(message));
  }
  if (proto.has_add_generation_prompt()) {
    conversation.add_generation_prompt = proto.add_generation_prompt();
  }
  CARAVAN_RETURN_IF_ERROR(ReadTools(proto, conversation));
  return PromptInput(std::move(conversation));
}

absl::StatusOr<PromptInput> FromParts(const v1::PromptParts& proto) {
  std::vector<TokenId> ids;
  for (int i = 0; i < proto.parts_size(); ++i) {
    if (!proto.parts(i).has_tokens()) {
      return UnsupportedError(StrCat("parts.parts[", i, "].embeddings"),
                              "use token ids");
    }
    const auto& part = proto.parts(i).tokens().token_ids();
    ids.insert(ids.end(), part.begin(), part.end());
  }
  return PromptInput(std::move(ids));
}

absl::StatusOr<PromptInput> ToTextOrInfill(const v1::GenerateRequest& proto) {
  if (proto.suffix().empty()) return PromptInput(proto.text());
  if (proto.output().echo()) {
    return UnsupportedError("output.echo",
                            "leave it out where there is a suffix");
  }
  if (!v1::InfillOrder_IsValid(proto.infill_order())) {
    return FieldError("infill_order", "a known order",
                      StrCat(static_cast<int>(proto.infill_order())));
  }
  return PromptInput(
      Infill{proto.text(), proto.suffix(),
             proto.infill_order() == v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE});
}

absl::StatusOr<PromptInput> ToPrompt(const v1::GenerateRequest& proto) {
  switch (proto.input_case()) {
    case v1::GenerateRequest::kText:
      return ToTextOrInfill(proto);
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = proto.token_ids().token_ids();
      return PromptInput(std::vector<TokenId>(ids.begin(), ids.end()));
    }
    case v1::GenerateRequest::kChat:
      return ToConversation(proto.chat());
    case v1::GenerateRequest::kParts:
      return FromParts(proto.parts());
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return FieldError("input", "one of text, token_ids, chat, parts", "none");
}

SamplingOverrides ToOverrides(const v1::SamplingParams& proto) {
  SamplingOverrides sampling;
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  if (proto.has_top_k()) sampling.top_k = proto.top_k();
  if (proto.has_min_p()) sampling.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) {
    sampling.repetition_penalty = proto.repetition_penalty();
  }
  if (proto.has_presence_penalty()) {
    sampling.presence_penalty = proto.presence_penalty();
  }
  if (proto.has_frequency_penalty()) {
    sampling.frequency_penalty = proto.frequency_penalty();
  }
  for (const v1::LogitBias& bias : proto.logit_bias()) {
    sampling.logit_bias.push_back({bias.token_id(), bias.bias()});
  }
  if (proto.has_seed()) sampling.seed = proto.seed();
  if (proto.has_logprob_count()) sampling.logprob_count = proto.logprob_count();
  if (proto.has_prompt_logprob_count()) {
    sampling.prompt_logprob_count = proto.prompt_logprob_count();
  }
  return sampling;
}

StopOverrides ToOverrides(const v1::StopCriteria& proto) {
  StopOverrides stop;
  if (proto.has_max_tokens()) stop.max_tokens = proto.max_tokens();
  if (proto.has_min_tokens()) stop.min_tokens = proto.min_tokens();
  stop.stop.assign(proto.stop().begin(), proto.stop().end());
  stop.stop_token_ids.assign(proto.stop_token_ids().begin(),
                             proto.stop_token_ids().end());
  stop.ignore_eos = proto.ignore_eos();
  stop.include_stop_str_in_output = proto.include_stop_str_in_output();
  return stop;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kToolCalls:
      return v1::FINISH_REASON_TOOL_CALLS;
  }
  return v1::FINISH_REASON_STOP;
}

v1::ToolCall ToProto(const ToolCall& call) {
  v1::ToolCall proto;
  proto.set_id(call.id);
  proto.set_name(call.name);
  proto.set_arguments_json(call.arguments_json);
  return proto;
}

v1::Usage UsageOf(const Finished& finished) {
  v1::Usage usage;
  usage.set_prompt_token_count(finished.prompt_token_count);
  usage.set_output_token_count(finished.output_token_count);
  usage.set_cached_token_count(finished.cached_token_count);
  return usage;
}

}  // namespace

absl::StatusOr<GenerationRequest> TranslateGenerate(
    const v1::GenerateRequest& proto) {
  CARAVAN_RETURN_IF_ERROR(RefuseUnsupported(proto));
  if (!proto.suffix().empty() && !proto.has_text()) {
    return FieldError("suffix", "given with a prompt that is text", "no text");
  }
  GenerationRequest request;
  request.request_id = proto.request_id();
  request.model = proto.model();
  CARAVAN_ASSIGN_OR_RETURN(PromptInput prompt, ToPrompt(proto));
  request.prompts.push_back(std::move(prompt));
  request.sampling = ToOverrides(proto.sampling());
  request.stop = ToOverrides(proto.stop());
  if (!proto.has_chat()) request.default_max_tokens = kDefaultMaxTokens;
  if (proto.has_n()) request.n = proto.n();
  request.priority = proto.priority();
  request.idempotency_key = proto.idempotency_key();
  request.resume_cursor = proto.resume_cursor();
  request.allow_inexact_resume = proto.allow_inexact_resume();
  for (const v1::ResumedChoice& choice : proto.resumed_choices()) {
    request.resumed_choices.push_back(
        {choice.index(),
         {choice.output_token_ids().begin(), choice.output_token_ids().end()}});
  }
  request.return_token_ids = proto.output().return_token_ids();
  if (proto.output().has_skip_special_tokens()) {
    request.skip_special_tokens = proto.output().skip_special_tokens();
  }
  request.echo = proto.output().echo();
  return request;
}

v1::TokenLogprob ResponseMaker::MakeLogprob(const TokenPiece& token) const {
  const auto bytes_of = [this](TokenId id) {
    return id >= 0 && id < started_.vocabulary->size()
               ? started_.vocabulary->tokens[id].bytes
               : std::string();
  };
  v1::TokenLogprob proto;
  proto.set_token_id(token.id);
  proto.set_logprob(token.logprob.value_or(0));
  proto.set_bytes(bytes_of(token.id));
  proto.set_rank(token.rank);
  for (size_t i = 0; i < token.candidates.size(); ++i) {
    v1::TokenLogprob& rival = *proto.add_candidates();
    rival.set_token_id(token.candidates[i].id);
    rival.set_logprob(token.candidates[i].logprob);
    rival.set_bytes(bytes_of(token.candidates[i].id));
    rival.set_rank(static_cast<int32_t>(i) + 1);
  }
  return proto;
}

v1::GenerateResponse ResponseMaker::MakeStarted(
    const PromptReady& prompt) const {
  v1::GenerateResponse response;
  v1::Started& started = *response.mutable_started();
  started.set_request_id(started_.request_id);
  started.set_seed(started_.seed);
  started.set_model(started_.model);
  started.set_prompt_token_count(static_cast<int32_t>(prompt.token_ids.size()));
  if (request_.return_token_ids) {
    started.mutable_prompt_token_ids()->Add(prompt.token_ids.begin(),
                                            prompt.token_ids.end());
  }
  for (const TokenPiece& score : prompt.scores) {
    *started.add_prompt_logprobs() = MakeLogprob(score);
  }
  return response;
}

v1::GenerateResponse ResponseMaker::MakeDelta(const ChoiceDelta& delta) const {
  v1::GenerateResponse response;
  v1::Delta& proto = *response.mutable_delta();
  proto.set_choice(delta.choice);
  proto.set_text(delta.text);
  proto.set_first_position(delta.first_position);
  for (const TokenPiece& token : delta.tokens) {
    if (request_.return_token_ids) proto.add_token_ids(token.id);
    if (token.logprob) *proto.add_logprobs() = MakeLogprob(token);
  }
  if (delta.finish) proto.set_finish_reason(ToProto(*delta.finish));
  if (delta.stop_text) proto.set_stop_text(*delta.stop_text);
  if (delta.stop_token_id) proto.set_stop_token_id(*delta.stop_token_id);
  for (const ToolCall& call : delta.tool_calls) {
    *proto.add_tool_calls() = ToProto(call);
  }
  return response;
}

v1::GenerateResponse ResponseMaker::MakeFinished(
    const Finished& finished) const {
  v1::GenerateResponse response;
  v1::Finished& proto = *response.mutable_finished();
  *proto.mutable_usage() = UsageOf(finished);
  proto.set_receipt(finished.receipt);
  proto.set_system_fingerprint(started_.system_fingerprint);
  return response;
}

// An echoed prompt is the first text of each choice.
std::vector<v1::GenerateResponse> ResponseMaker::Responses(
    StreamEvents events) {
  std::vector<v1::GenerateResponse> responses;
  if (events.started) started_ = *std::move(events.started);
  if (events.repeated) events.prompts.clear();
  for (const PromptReady& prompt : events.prompts) {
    responses.push_back(MakeStarted(prompt));
    for (int32_t i = 0; request_.echo && i < request_.n; ++i) {
      v1::Delta& echo = *responses.emplace_back().mutable_delta();
      echo.set_choice(i);
      echo.set_text(prompt.text);
    }
  }
  for (const ChoiceDelta& delta : events.deltas) {
    responses.push_back(MakeDelta(delta));
  }
  if (events.finished) responses.push_back(MakeFinished(*events.finished));
  return responses;
}

v1::CompletedChoice ResponseMaker::MakeChoice(int32_t index,
                                              const CompletedChoice& choice,
                                              const PromptReady& prompt) const {
  v1::CompletedChoice proto;
  proto.set_index(index);
  proto.set_text(request_.echo ? prompt.text + choice.text : choice.text);
  for (const TokenPiece& token : choice.tokens) {
    if (request_.return_token_ids) proto.add_token_ids(token.id);
    if (token.logprob) *proto.add_logprobs() = MakeLogprob(token);
  }
  proto.set_finish_reason(ToProto(choice.finish));
  if (choice.stop_text) proto.set_stop_text(*choice.stop_text);
  if (choice.stop_token_id) proto.set_stop_token_id(*choice.stop_token_id);
  for (const ToolCall& call : choice.tool_calls) {
    *proto.add_tool_calls() = ToProto(call);
  }
  return proto;
}

v1::CompleteResponse ResponseMaker::Response(const Completion& completion) {
  started_ = completion.started;
  const PromptReady& prompt = completion.prompts.front();
  v1::CompleteResponse response;
  response.set_request_id(started_.request_id);
  response.set_model(started_.model);
  response.set_seed(started_.seed);
  for (size_t i = 0; i < completion.choices.size(); ++i) {
    *response.add_choices() =
        MakeChoice(static_cast<int32_t>(i), completion.choices[i], prompt);
  }
  *response.mutable_usage() = UsageOf(completion.finished);
  response.set_receipt(completion.finished.receipt);
  response.set_system_fingerprint(started_.system_fingerprint);
  if (request_.return_token_ids) {
    response.mutable_prompt_token_ids()->Add(prompt.token_ids.begin(),
                                             prompt.token_ids.end());
  }
  for (const TokenPiece& score : prompt.scores) {
    *response.add_prompt_logprobs() = MakeLogprob(score);
  }
  return response;
}

}  // namespace caravan::gateway
