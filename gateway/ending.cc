#include "gateway/ending.h"

#include <utility>
#include <vector>

#include "common/build_info.h"
#include "common/log.h"
#include "common/receipt/receipt.h"
#include "common/sampling/proto.h"

namespace caravan::gateway {
namespace {

// A receipt stays below 2 KB: no more choices than this are listed.
constexpr size_t kMaxReceiptChoices = 16;

v1::FinishReason ToProto(FinishReason reason) {
  return reason == FinishReason::kLength ? v1::FINISH_REASON_LENGTH
                                         : v1::FINISH_REASON_STOP;
}

}  // namespace

Finished MakeFinished(const RunningRequest& run) {
  Finished finished;
  for (const PromptGroup& group : run.groups) {
    finished.prompt_token_count += static_cast<int32_t>(group.ids().size());
    finished.output_token_count += group.output_token_count();
    finished.cached_token_count += group.cached_token_count();
  }
  finished.receipt = MakeReceipt(run);
  finished.inexact_resumes = run.inexact_resumes;
  return finished;
}

std::string MakeReceipt(const RunningRequest& run) {
  v1::Receipt receipt;
  receipt.set_build(std::string(BuildId()));
  receipt.set_model(run.facts.name);
  if (run.first_identity) *receipt.mutable_identity() = *run.first_identity;
  *receipt.mutable_sampling() = sampling::ToProto(run.sampling);
  *receipt.mutable_stop() = sampling::ToProto(run.groups.front().stop());
  // Several prompts are hashed as one, in order; so are more choices than a
  // receipt has room for, by leaving them out.
  std::vector<TokenId> ids;
  for (const PromptGroup& group : run.groups) {
    ids.insert(ids.end(), group.ids().begin(), group.ids().end());
  }
  receipt.set_prompt_token_count(static_cast<int32_t>(ids.size()));
  receipt.set_prompt_sha256(receipt::Sha256OfIds(ids));
  const bool listed = run.groups.size() * run.request.n <= kMaxReceiptChoices;
  for (size_t g = 0; listed && g < run.groups.size(); ++g) {
    for (const ChoiceStream& stream : run.groups[g].choices()) {
      v1::ReceiptChoice& choice = *receipt.add_choices();
      choice.set_index(receipt.choices_size() - 1);
      choice.set_output_token_count(
          static_cast<int32_t>(stream.output().size()));
      choice.set_output_sha256(receipt::Sha256OfIds(stream.output()));
      choice.set_finish_reason(ToProto(stream.finish_reason()));
    }
  }
  for (const InexactResume& resume : run.inexact_resumes) {
    v1::InexactResume& out = *receipt.add_inexact_resumes();
    out.set_numerics_class(resume.numerics_class);
    out.set_from_position(resume.from_position);
    out.set_choice(resume.choice);
  }
  absl::StatusOr<std::string> serialized =
      receipt::SerializeReceipt(std::move(receipt));
  if (serialized.ok()) return *std::move(serialized);
  LogError("receipt_failed", {{"request_id", run.request.request_id},
                              {"cause", serialized.status()}});
  return "";
}

}  // namespace caravan::gateway
