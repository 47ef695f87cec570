#include "services/tokenizer/prepare.h"

#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/infill.h"
#include "services/tokenizer/wire.h"

namespace caravan::tokenizer {
namespace {

using text::TokenId;

void Store(const std::vector<TokenId>& ids, v1::PreparedPrompt* prompt) {
  prompt->mutable_token_ids()->Assign(ids.begin(), ids.end());
}

absl::StatusOr<PreparedInput> PrepareText(const LoadedModel& model,
                                          const v1::PrepareInput& input,
                                          const std::string& field) {
  const std::string& text = input.text();
  CARAVAN_RETURN_IF_ERROR(CheckTextSize(text.size(), field + ".text"));
  text::EncodeOptions options;
  if (input.has_add_special_tokens()) {
    options.add_special_tokens = input.add_special_tokens();
  }
  options.allow_special_tokens = input.allow_special_tokens();
  const auto ids = model.tokenizer->Encode(text, options);
  if (!ids.ok()) return Annotate(ids.status(), field);
  PreparedInput prepared;
  Store(*ids, &prepared.prompt);
  prepared.text_bytes = static_cast<int64_t>(text.size());
  return prepared;
}

absl::StatusOr<PreparedInput> PrepareConversation(
    const LoadedModel& model, const v1::Conversation& conversation,
    const std::string& field, const RenderTime& time) {
  CARAVAN_RETURN_IF_ERROR(model.template_status);
  CARAVAN_ASSIGN_OR_RETURN(const Conversation parsed,
                           FromProto(conversation, field));
  const ChatTemplate& chat_template = *model.TemplateFor(parsed);
  if (conversation.tools_size() > 0 && !chat_template.knows_tools()) {
    return Annotate(
        UnsupportedError("tools",
                         "the model's chat template has no place for them"),
        field);
  }
  CARAVAN_ASSIGN_OR_RETURN(const jinja::Text rendered,
                           chat_template.Render(parsed, time.now, time.zone));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                           EncodeRendered(*model.tokenizer, rendered));
  PreparedInput prepared;
  v1::PreparedPrompt& prompt = prepared.prompt;
  Store(ids, &prompt);
  prompt.set_rendered(rendered.bytes());
  const AnswerEnd& end = model.answer_end;
  prompt.mutable_stop_texts()->Assign(end.texts.begin(), end.texts.end());
  prompt.mutable_end_token_ids()->Assign(end.token_ids.begin(),
                                         end.token_ids.end());
  prepared.text_bytes = static_cast<int64_t>(rendered.size());
  prepared.template_id = chat_template.template_id();
  return prepared;
}

InfillOrder OrderOf(const v1::Infill& infill) {
  return infill.order() == v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE
             ? InfillOrder::kSuffixPrefixMiddle
             : InfillOrder::kPrefixSuffixMiddle;
}

absl::StatusOr<PreparedInput> PrepareInfill(const LoadedModel& model,
                                            const v1::Infill& infill,
                                            const std::string& field) {
  const size_t bytes = infill.prefix().size() + infill.suffix().size();
  CARAVAN_RETURN_IF_ERROR(CheckTextSize(bytes, field));
  if (!v1::InfillOrder_IsValid(infill.order())) {
    return FieldError(field + ".order", "a known order",
                      StrCat(static_cast<int>(infill.order())));
  }
  const auto ids = EncodeInfill(*model.tokenizer, infill.prefix(),
                                infill.suffix(), OrderOf(infill));
  if (!ids.ok()) return Annotate(ids.status(), field);
  PreparedInput prepared;
  Store(*ids, &prepared.prompt);
  prepared.prompt.add_end_token_ids(model.tokenizer->vocabulary().infill->end);
  prepared.text_bytes = static_cast<int64_t>(bytes);
  return prepared;
}

}  // namespace

absl::Status CheckTextSize(size_t bytes, const std::string& field) {
  if (bytes <= kMaxTextBytes) return absl::OkStatus();
  return FieldError(field, StrCat("at most ", kMaxTextBytes, " bytes"),
                    StrCat(bytes));
}

absl::StatusOr<PreparedInput> PrepareInput(const LoadedModel& model,
                                           const v1::PrepareInput& input,
                                           const std::string& field,
                                           const RenderTime& time) {
  switch (input.kind_case()) {
    case v1::PrepareInput::kText:
      return PrepareText(model, input, field);
    case v1::PrepareInput::kConversation:
      return PrepareConversation(model, input.conversation(),
                                 field + ".conversation", time);
    case v1::PrepareInput::kInfill:
      return PrepareInfill(model, input.infill(), field + ".infill");
    case v1::PrepareInput::KIND_NOT_SET:
      break;
  }
  return FieldError(field, "a text, a conversation or an infill", "nothing");
}

}  // namespace caravan::tokenizer
