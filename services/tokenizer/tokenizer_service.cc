#include "services/tokenizer/tokenizer_service.h"

#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/incremental_decoder.h"
#include "services/tokenizer/prepare.h"

namespace caravan::tokenizer {
namespace {

absl::Status CheckNotCancelled(const grpc::CallbackServerContext& context) {
  if (!context.IsCancelled()) return absl::OkStatus();
  return MakeError(Reason::kCancelled, "the caller has gone");
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
  const RenderTime time = {clock_->Now(), zone_};
  for (int i = 0; i < request.inputs_size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckNotCancelled(*context));
    CARAVAN_ASSIGN_OR_RETURN(PreparedInput prepared,
                             PrepareInput(*model, request.inputs(i),
                                          StrCat("inputs[", i, "]"), time));
    metrics_.RecordEncoded(Call::kPrepare, prepared.text_bytes,
                           prepared.prompt.token_ids_size());
    *response->add_prompts() = std::move(prepared.prompt);
    if (response->template_id().empty()) {
      response->set_template_id(prepared.template_id);
    }
  }
  response->set_tokenizer_id(std::string(model->tokenizer->tokenizer_id()));
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
    CARAVAN_RETURN_IF_ERROR(CheckTextSize(text.size(), field));
    const auto ids = model->tokenizer->Encode(text, options);
    if (!ids.ok()) return Annotate(ids.status(), field);
    metrics_.RecordEncoded(Call::kEncode, static_cast<int64_t>(text.size()),
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
  response->set_tokenizer_id(std::string(model->tokenizer->tokenizer_id()));
  response->set_content_hash(model->content_hash);
  response->mutable_decoder()->set_strip_leading_space(
      vocabulary.strip_leading_space);
  response->set_unchanged(request.known_content_hash() == model->content_hash);
  if (response->unchanged()) return absl::OkStatus();
  response->mutable_tokens()->Reserve(vocabulary.size());
  for (const text::TokenEntry& entry : vocabulary.tokens) {
    v1::VocabularyToken* const token = response->add_tokens();
    token->set_bytes(entry.bytes);
    token->set_kind(static_cast<v1::TokenKind>(entry.kind));
  }
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
      listed->set_content_hash(model.content_hash);
      listed->set_infill(vocabulary.infill.has_value());
    }
    return absl::OkStatus();
  });
}

}  // namespace caravan::tokenizer
