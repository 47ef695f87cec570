#include "services/tokenizer/tokenizer_service.h"

#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/incremental_decoder.h"
#include "services/tokenizer/wire.h"

namespace caravan::tokenizer {
namespace {

absl::Status CheckNotCancelled(const grpc::CallbackServerContext& context) {
  if (!context.IsCancelled()) return absl::OkStatus();
  return MakeError(Reason::kCancelled, "the caller has gone");
}

// Errors of a text name the field it came in.
absl::Status InField(const absl::Status& status, const std::string& field) {
  return status.ok() ? status : Annotate(status, field);
}

// No context is so long; merging needs some 40 bytes for each of these.
constexpr size_t kMaxTextBytes = 16u << 20;

absl::Status CheckSize(const std::string& text, const std::string& field) {
  if (text.size() <= kMaxTextBytes) return absl::OkStatus();
  return FieldError(field, StrCat("at most ", kMaxTextBytes, " bytes"),
                    StrCat(text.size()));
}

template <typename Ids>
void Store(const std::vector<text::TokenId>& from, Ids* to) {
  to->Assign(from.begin(), from.end());
}

}  // namespace

TokenizerService::TokenizerService(const ModelSet* models, const Clock* clock,
                                   absl::TimeZone zone,
                                   MetricsRegistry* registry)
    : models_(models),
      clock_(clock),
      zone_(zone),
      metrics_(registry, static_cast<int>(models->models().size())) {}

template <typename Handle>
grpc::ServerUnaryReactor* TokenizerService::Answer(
    grpc::CallbackServerContext* context, Call call, Handle handle) {
  const absl::Time start = clock_->Now();
  const absl::Status status = handle();
  metrics_.RecordCall(call, status, clock_->Now() - start);
  if (!status.ok()) {
    LogDebug("call_failed",
             {{"call", static_cast<int>(call)}, {"status", status}});
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// --- Prepare ---------------------------------------------------------------

grpc::ServerUnaryReactor* TokenizerService::Prepare(
    grpc::CallbackServerContext* context, const v1::PrepareRequest* request,
    v1::PrepareResponse* response) {
  return Answer(context, Call::kPrepare,
                [&] { return HandlePrepare(context, *request, response); });
}

absl::Status TokenizerService::HandlePrepare(
    grpc::CallbackServerContext* context, const v1::PrepareRequest& request,
    v1::PrepareResponse* response) {
  CARAVAN_ASSIGN_OR_RETURN(const LoadedModel* const model,
                           models_->Find(request.model()));
  if (request.inputs().empty()) {
    return FieldError("inputs", "at least one", "none");
  }
  bool used_template = false;
  for (int i = 0; i < request.inputs_size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckNotCancelled(*context));
    const v1::PrepareInput& input = request.inputs(i);
    used_template |= input.has_conversation();
    CARAVAN_RETURN_IF_ERROR(PrepareInput(
        *model, input, StrCat("inputs[", i, "]"), response->add_prompts()));
  }
  response->set_tokenizer_id(std::string(model->tokenizer->tokenizer_id()));
  if (used_template) {
    response->set_template_id(model->chat_template->template_id());
  }
  return absl::OkStatus();
}

absl::Status TokenizerService::PrepareInput(const LoadedModel& model,
                                            const v1::PrepareInput& input,
                                            const std::string& field,
                                            v1::PreparedPrompt* prompt) {
  switch (input.kind_case()) {
    case v1::PrepareInput::kText:
      break;
    case v1::PrepareInput::kConversation:
      return PrepareConversation(model, input.conversation(),
                                 field + ".conversation", prompt);
    case v1::PrepareInput::kInfill:
      return UnsupportedError(field + ".infill",
                              "send the whole prompt as text");
    case v1::PrepareInput::KIND_NOT_SET:
      return FieldError(field, "a text or a conversation", "nothing");
  }
  CARAVAN_RETURN_IF_ERROR(CheckSize(input.text(), field + ".text"));
  text::EncodeOptions options;
  if (input.has_add_special_tokens()) {
    options.add_special_tokens = input.add_special_tokens();
  }
  options.allow_special_tokens = input.allow_special_tokens();
  const auto ids = model.tokenizer->Encode(input.text(), options);
  if (!ids.ok()) return InField(ids.status(), field);
  metrics_.RecordEncoded(static_cast<int64_t>(input.text().size()),
                         static_cast<int64_t>(ids->size()));
  Store(*ids, prompt->mutable_token_ids());
  return absl::OkStatus();
}

absl::Status TokenizerService::PrepareConversation(
    const LoadedModel& model, const v1::Conversation& conversation,
    const std::string& field, v1::PreparedPrompt* prompt) {
  if (!model.chat_template) return model.template_status;
  CARAVAN_ASSIGN_OR_RETURN(const Conversation parsed,
                           FromProto(conversation, field));
  CARAVAN_ASSIGN_OR_RETURN(
      const jinja::Text rendered,
      model.chat_template->Render(parsed, clock_->Now(), zone_));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<text::TokenId> ids,
                           EncodeRendered(*model.tokenizer, rendered));
  metrics_.RecordEncoded(static_cast<int64_t>(rendered.size()),
                         static_cast<int64_t>(ids.size()));
  Store(ids, prompt->mutable_token_ids());
  prompt->set_rendered(rendered.bytes());
  return absl::OkStatus();
}

// --- Encode and Decode -----------------------------------------------------

grpc::ServerUnaryReactor* TokenizerService::Encode(
    grpc::CallbackServerContext* context, const v1::EncodeRequest* request,
    v1::EncodeResponse* response) {
  return Answer(context, Call::kEncode,
                [&] { return HandleEncode(context, *request, response); });
}

absl::Status TokenizerService::HandleEncode(
    grpc::CallbackServerContext* context, const v1::EncodeRequest& request,
    v1::EncodeResponse* response) {
  CARAVAN_ASSIGN_OR_RETURN(const LoadedModel* const model,
                           models_->Find(request.model()));
  text::EncodeOptions options;
  if (request.has_add_special_tokens()) {
    options.add_special_tokens = request.add_special_tokens();
  }
  options.allow_special_tokens = request.allow_special_tokens();
  for (int i = 0; i < request.texts_size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckNotCancelled(*context));
    const std::string& text = request.texts(i);
    const std::string field = StrCat("texts[", i, "]");
    CARAVAN_RETURN_IF_ERROR(CheckSize(text, field));
    const auto ids = model->tokenizer->Encode(text, options);
    if (!ids.ok()) return InField(ids.status(), field);
    metrics_.RecordEncoded(static_cast<int64_t>(text.size()),
                           static_cast<int64_t>(ids->size()));
    Store(*ids, response->add_results()->mutable_token_ids());
  }
  response->set_tokenizer_id(std::string(model->tokenizer->tokenizer_id()));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* TokenizerService::Decode(
    grpc::CallbackServerContext* context, const v1::DecodeRequest* request,
    v1::DecodeResponse* response) {
  return Answer(context, Call::kDecode,
                [&] { return HandleDecode(context, *request, response); });
}

absl::Status TokenizerService::HandleDecode(
    grpc::CallbackServerContext* context, const v1::DecodeRequest& request,
    v1::DecodeResponse* response) {
  CARAVAN_ASSIGN_OR_RETURN(const LoadedModel* const model,
                           models_->Find(request.model()));
  const text::Vocabulary& vocabulary = model->tokenizer->vocabulary();
  for (int i = 0; i < request.sequences_size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckNotCancelled(*context));
    const auto& ids = request.sequences(i).token_ids();
    for (int j = 0; j < ids.size(); ++j) {
      if (ids[j] >= 0 && ids[j] < vocabulary.size()) continue;
      return FieldError(StrCat("sequences[", i, "].token_ids[", j, "]"),
                        StrCat("in [0, ", vocabulary.size(), ")"),
                        StrCat(ids[j]));
    }
    metrics_.RecordDecoded(ids.size());
    response->add_texts(
        text::Decode(vocabulary,
                     std::span<const text::TokenId>(
                         ids.data(), static_cast<size_t>(ids.size())),
                     request.skip_special_tokens()));
  }
  return absl::OkStatus();
}

// --- What is loaded --------------------------------------------------------

grpc::ServerUnaryReactor* TokenizerService::GetVocabulary(
    grpc::CallbackServerContext* context,
    const v1::GetVocabularyRequest* request,
    v1::GetVocabularyResponse* response) {
  return Answer(context, Call::kVocabulary,
                [&] { return HandleGetVocabulary(*request, response); });
}

absl::Status TokenizerService::HandleGetVocabulary(
    const v1::GetVocabularyRequest& request,
    v1::GetVocabularyResponse* response) {
  CARAVAN_ASSIGN_OR_RETURN(const LoadedModel* const model,
                           models_->Find(request.model()));
  const text::Vocabulary& vocabulary = model->tokenizer->vocabulary();
  response->mutable_tokens()->Reserve(vocabulary.size());
  for (const text::TokenEntry& entry : vocabulary.tokens) {
    v1::VocabularyToken* const token = response->add_tokens();
    token->set_bytes(entry.bytes);
    token->set_kind(static_cast<v1::TokenKind>(entry.kind));
  }
  response->mutable_decoder()->set_strip_leading_space(
      vocabulary.strip_leading_space);
  response->set_tokenizer_id(std::string(model->tokenizer->tokenizer_id()));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* TokenizerService::ListTokenizerModels(
    grpc::CallbackServerContext* context,
    const v1::ListTokenizerModelsRequest* request,
    v1::ListTokenizerModelsResponse* response) {
  return Answer(context, Call::kModels, [&] {
    for (const LoadedModel& model : models_->models()) {
      const text::Vocabulary& vocabulary = model.tokenizer->vocabulary();
      v1::TokenizerModel* const listed = response->add_models();
      listed->set_name(model.name);
      listed->set_tokenizer_id(std::string(model.tokenizer->tokenizer_id()));
      if (model.chat_template) {
        listed->set_template_id(model.chat_template->template_id());
      }
      listed->set_vocabulary_size(vocabulary.size());
      if (vocabulary.bos_id) listed->set_bos_token_id(*vocabulary.bos_id);
      Store(vocabulary.eos_ids, listed->mutable_eos_token_ids());
    }
    return absl::OkStatus();
  });
}

}  // namespace caravan::tokenizer
