#include "worker/server/stage_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <string>
#include <string_view>
#include <utility>

#include "common/crc32c.h"
#include "common/sampling/proto.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr std::string_view kHiddenType = "fp32";

std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Maps in the order of their keys, so that both sides see the same bytes.
std::string DeterministicBytes(const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

template <typename Message>
uint32_t ChecksumOf(Message& message) {
  message.clear_crc32c();
  return Crc32c(BytesOf(DeterministicBytes(message)));
}

absl::Status Changed(std::string_view what, uint32_t expected, uint32_t got) {
  return MakeError(Reason::kWorkerLost,
                   StrCat("CRC32C of ", what, " must be ", expected, "; got ",
                          got, ": the wire changed bytes"),
                   {{"limit", StrCat(expected)}, {"value", StrCat(got)}});
}

template <typename Message>
absl::Status CheckSealOf(Message& message) {
  const uint32_t expected = message.crc32c();
  const uint32_t got = ChecksumOf(message);
  message.set_crc32c(expected);
  if (got == expected) return absl::OkStatus();
  return Changed("a stage's message", expected, got);
}

absl::Status CheckEpoch(uint64_t expected, uint64_t got) {
  if (got == expected) return absl::OkStatus();
  return MakeError(
      Reason::kStaleEpoch,
      StrCat("epoch must be ", expected, ", that of the chain; got ", got),
      {{"limit", StrCat(expected)}, {"value", StrCat(got)}});
}

// What arrived, and what it must be.
class WireHidden final : public HiddenStates {
 public:
  WireHidden(int64_t step, std::unique_ptr<WireBytes> bytes, uint32_t crc)
      : step_(step), bytes_(std::move(bytes)), crc_(crc) {}

  size_t size_bytes() const override { return bytes_->size(); }

  absl::Status CopyTo(std::byte* target) const override {
    bytes_->CopyTo(target);
    const uint32_t crc = Crc32c({target, bytes_->size()});
    if (crc == crc_) return absl::OkStatus();
    return Changed(StrCat("the hidden states of step ", step_), crc_, crc);
  }

 private:
  const int64_t step_;
  const std::unique_ptr<WireBytes> bytes_;
  const uint32_t crc_;
};

v1::StageRow ToProto(const PlanRow& row) {
  v1::StageRow proto;
  proto.set_sequence_id(row.sequence);
  proto.set_first_position(row.first_position);
  proto.set_token_count(static_cast<int32_t>(row.tokens.size()));
  proto.mutable_block_ids()->Add(row.blocks.begin(), row.blocks.end());
  proto.set_sample(row.sample);
  proto.set_first_stored_position(row.first_stored_position);
  proto.set_output_position(row.output_position);
  proto.set_score_prompt(row.score_prompt);
  return proto;
}

// `tokens_left` bounds what a row may ask to be allocated.
absl::StatusOr<PlanRow> FromProto(const v1::StageRow& proto,
                                  int64_t tokens_left) {
  if (proto.token_count() < 0 || proto.token_count() > tokens_left) {
    return FieldError("plan.rows.token_count",
                      StrCat("in [0, ", tokens_left, "]"),
                      StrCat(proto.token_count()));
  }
  if (proto.first_position() < 0 || proto.output_position() < 0) {
    return FieldError("plan.rows.first_position", "at least 0",
                      StrCat(proto.first_position()));
  }
  PlanRow row;
  row.sequence = proto.sequence_id();
  row.first_position = proto.first_position();
  row.tokens.resize(static_cast<size_t>(proto.token_count()));
  row.blocks = {proto.block_ids().begin(), proto.block_ids().end()};
  row.first_stored_position = proto.first_stored_position();
  row.sample = proto.sample();
  row.output_position = proto.output_position();
  row.score_prompt = proto.score_prompt();
  return row;
}

template <typename Record>
void FillScore(const ScoredToken& token, Record* record) {
  record->set_token_id(token.token_id);
  if (token.logprob) record->set_logprob(*token.logprob);
  record->set_rank(token.rank);
  for (const Candidate& candidate : token.candidates) {
    v1::Candidate* const added = record->add_candidates();
    added->set_token_id(candidate.token_id);
    added->set_logprob(candidate.logprob);
  }
}

template <typename Record>
ScoredToken ScoreOf(const Record& record) {
  ScoredToken token;
  token.token_id = record.token_id();
  token.rank = record.rank();
  for (const v1::Candidate& candidate : record.candidates()) {
    token.candidates.push_back({candidate.token_id(), candidate.logprob()});
  }
  return token;
}

void FillRow(const RowResult& row, v1::StageToken* proto) {
  proto->set_sequence_id(row.sequence);
  if (!row.status.ok()) *proto->mutable_error() = ToProtoError(row.status);
  proto->set_sampled(row.token.has_value());
  if (row.token) FillScore(*row.token, proto);
  proto->set_first_scored_position(row.first_scored_position);
  int32_t position = row.first_scored_position;
  for (const ScoredToken& score : row.prompt_scores) {
    v1::PromptTokenLogprob* const scored = proto->add_prompt_logprobs();
    scored->set_position(position++);
    FillScore(score, scored);
  }
}

RowResult RowOf(const v1::StageToken& proto) {
  RowResult row;
  row.sequence = proto.sequence_id();
  if (proto.has_error()) row.status = FromProtoError(proto.error());
  if (proto.sampled()) {
    row.token = ScoreOf(proto);
    if (proto.has_logprob()) row.token->logprob = proto.logprob();
  }
  row.first_scored_position = proto.first_scored_position();
  for (const v1::PromptTokenLogprob& score : proto.prompt_logprobs()) {
    row.prompt_scores.push_back(ScoreOf(score));
    row.prompt_scores.back().logprob = score.logprob();
  }
  return row;
}

}  // namespace

void Seal(v1::StageRequest* request) {
  request->set_crc32c(ChecksumOf(*request));
}

void Seal(v1::StageResponse* response) {
  response->set_crc32c(ChecksumOf(*response));
}

absl::Status CheckSeal(v1::StageRequest& request) {
  return CheckSealOf(request);
}

absl::Status CheckSeal(v1::StageResponse& response) {
  return CheckSealOf(response);
}

v1::StageSequence ToProto(const SequenceSpec& spec) {
  v1::StageSequence proto;
  proto.set_sequence_id(spec.id);
  proto.set_choice(spec.choice);
  proto.mutable_prompt_token_ids()->Add(spec.prompt->begin(),
                                        spec.prompt->end());
  proto.mutable_output_token_ids()->Add(spec.output.begin(), spec.output.end());
  *proto.mutable_sampling() = sampling::ToProto(spec.sampling);
  proto.mutable_stop()->set_min_tokens(spec.min_tokens);
  proto.mutable_end_token_ids()->Add(spec.end_ids.begin(), spec.end_ids.end());
  return proto;
}

absl::StatusOr<SequenceSpec> FromProto(const v1::StageSequence& sequence,
                                       int32_t vocab_size) {
  if (sequence.prompt_token_ids().empty()) {
    return FieldError("add_sequence.prompt_token_ids", "at least one", "none");
  }
  SequenceSpec spec;
  spec.id = sequence.sequence_id();
  spec.choice = sequence.choice();
  spec.prompt = std::make_shared<const std::vector<TokenId>>(
      sequence.prompt_token_ids().begin(), sequence.prompt_token_ids().end());
  spec.output = {sequence.output_token_ids().begin(),
                 sequence.output_token_ids().end()};
  spec.sampling = sampling::FromProto(sequence.sampling());
  CARAVAN_RETURN_IF_ERROR(sampling::Validate(spec.sampling, vocab_size));
  spec.min_tokens = sequence.stop().min_tokens();
  spec.end_ids = {sequence.end_token_ids().begin(),
                  sequence.end_token_ids().end()};
  return spec;
}

v1::StagePlan ToProto(const BatchPlan& plan, std::span<const float> hidden,
                      uint64_t epoch) {
  v1::StagePlan proto;
  proto.set_step(plan.step);
  proto.set_epoch(epoch);
  for (const PlanRow& row : plan.rows) *proto.add_rows() = ToProto(row);
  for (const PlanBlockCopy& copy : plan.copies) {
    v1::StageBlockCopy* const added = proto.add_copies();
    added->set_source_block_id(copy.source);
    added->set_target_block_id(copy.target);
  }
  proto.set_dtype(std::string(kHiddenType));
  proto.set_hidden_crc32c(Crc32c(std::as_bytes(hidden)));
  return proto;
}

absl::StatusOr<StageStep> FromProto(const v1::StagePlan& plan,
                                    std::unique_ptr<WireBytes> hidden,
                                    uint64_t epoch) {
  CARAVAN_RETURN_IF_ERROR(CheckEpoch(epoch, plan.epoch()));
  if (plan.dtype() != kHiddenType) {
    return FieldError("plan.dtype", kHiddenType, plan.dtype());
  }
  // A token has a float at least, unless its sequence is at fault.
  constexpr int64_t kMostTokens = 1 << 20;
  int64_t tokens_left = kMostTokens;
  StageStep step;
  step.plan.step = plan.step();
  for (const v1::StageRow& row : plan.rows()) {
    CARAVAN_ASSIGN_OR_RETURN(PlanRow added, FromProto(row, tokens_left));
    tokens_left -= std::ssize(added.tokens);
    step.plan.rows.push_back(std::move(added));
  }
  for (const v1::StageBlockCopy& copy : plan.copies()) {
    step.plan.copies.push_back(
        {copy.source_block_id(), copy.target_block_id()});
  }
  step.hidden = std::make_unique<WireHidden>(plan.step(), std::move(hidden),
                                             plan.hidden_crc32c());
  return step;
}

v1::StageResult ToProto(const StepResult& result, uint64_t epoch) {
  v1::StageResult proto;
  proto.set_step(result.step);
  proto.set_epoch(epoch);
  for (const RowResult& row : result.rows) FillRow(row, proto.add_tokens());
  return proto;
}

absl::StatusOr<StepResult> FromProto(const v1::StageResult& result,
                                     uint64_t epoch) {
  CARAVAN_RETURN_IF_ERROR(CheckEpoch(epoch, result.epoch()));
  StepResult step;
  step.step = result.step();
  for (const v1::StageToken& token : result.tokens()) {
    step.rows.push_back(RowOf(token));
  }
  return step;
}

}  // namespace caravan::worker
