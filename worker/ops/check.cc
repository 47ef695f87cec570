#include "worker/ops/check.h"

#include <cstddef>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

absl::Status Fault(std::string_view what, std::string_view limit,
                   int64_t value) {
  return MakeError(Reason::kInternal,
                   StrCat(what, " must be ", limit, "; got ", value));
}

absl::Status Equal(std::string_view what, int64_t expected, int64_t value) {
  if (value == expected) return absl::OkStatus();
  return Fault(what, StrCat(expected), value);
}

// In [least, end).
absl::Status InRange(std::string_view what, int64_t least, int64_t end,
                     int64_t value) {
  if (value >= least && value < end) return absl::OkStatus();
  return Fault(what, StrCat("in [", least, ", ", end, ")"), value);
}

template <typename T>
absl::Status Shape(std::string_view what, int64_t rows, int64_t cols,
                   const View<T>& view) {
  CARAVAN_RETURN_IF_ERROR(Equal(StrCat(what, " rows"), rows, view.rows));
  CARAVAN_RETURN_IF_ERROR(Equal(StrCat(what, " columns"), cols, view.cols));
  if (view.rows > 1 && view.stride < view.cols) {
    return Fault(StrCat(what, " stride"), StrCat("at least ", cols),
                 view.stride);
  }
  if (rows > 0 && cols > 0 && view.data == nullptr) {
    return Fault(StrCat(what, " data"), "there", 0);
  }
  return absl::OkStatus();
}

absl::Status Matrix(std::string_view what, int64_t rows, int64_t cols,
                    const PackedMatrix* matrix) {
  if (matrix == nullptr) return Fault(what, "there", 0);
  CARAVAN_RETURN_IF_ERROR(Equal(StrCat(what, " rows"), rows, matrix->rows));
  return Equal(StrCat(what, " columns"), cols, matrix->cols);
}

absl::Status OptionalSize(std::string_view what, int64_t size,
                          std::span<const float> values) {
  if (values.empty()) return absl::OkStatus();
  return Equal(what, size, static_cast<int64_t>(values.size()));
}

absl::Status Heads(int32_t heads, int32_t kv_heads, int32_t head_dim) {
  if (heads < 1) return Fault("heads", "at least 1", heads);
  if (kv_heads < 1 || heads % kv_heads != 0) {
    return Fault("kv_heads", StrCat("a divisor of heads = ", heads), kv_heads);
  }
  if (head_dim < 2 || head_dim % 2 != 0) {
    return Fault("head_dim", "even and at least 2", head_dim);
  }
  return absl::OkStatus();
}

// The blocks of one row cover its positions and exist.
absl::Status RowBlocks(const AttentionRow& row, const KvStorage& kv) {
  const int64_t positions = int64_t{row.first_position} + row.token_count;
  const int64_t needed = (positions + kBlockSlots - 1) / kBlockSlots;
  if (static_cast<int64_t>(row.blocks.size()) < needed) {
    return Fault("blocks of a row", StrCat("at least ", needed),
                 static_cast<int64_t>(row.blocks.size()));
  }
  for (const BlockId block : row.blocks) {
    CARAVAN_RETURN_IF_ERROR(InRange("block", 0, kv.block_count, block));
  }
  return absl::OkStatus();
}

absl::Status TokenIds(std::string_view what, std::span<const int32_t> ids,
                      int64_t end) {
  for (const int32_t id : ids) {
    CARAVAN_RETURN_IF_ERROR(InRange(what, 0, end, id));
  }
  return absl::OkStatus();
}

absl::Status CheckSampleRow(const SampleRow& row, const View<float>& logits) {
  CARAVAN_RETURN_IF_ERROR(
      InRange("sample logits row", 0, logits.rows, row.logits_row));
  if (row.state == nullptr) return Fault("sampling state", "there", 0);
  if (row.output_position < 0) {
    return Fault("output position", "at least 0", row.output_position);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Check(const EmbedArgs& args) {
  if (args.table == nullptr) return Fault("embedding table", "there", 0);
  CARAVAN_RETURN_IF_ERROR(
      Shape("x", std::ssize(args.ids), args.table->cols, args.x));
  return TokenIds("token id", args.ids, args.table->rows);
}

absl::Status Check(const NormQkvRopeStoreArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Heads(args.heads, args.kv_heads, args.head_dim));
  const int64_t tokens = args.x.rows;
  const int64_t rows =
      (int64_t{args.heads} + 2 * args.kv_heads) * args.head_dim;
  CARAVAN_RETURN_IF_ERROR(Shape("x", tokens, std::ssize(args.norm), args.x));
  CARAVAN_RETURN_IF_ERROR(Matrix("qkv", rows, args.x.cols, args.qkv));
  CARAVAN_RETURN_IF_ERROR(OptionalSize("qkv bias size", rows, args.bias));
  CARAVAN_RETURN_IF_ERROR(Shape("cos", tokens, args.head_dim / 2, args.cos));
  CARAVAN_RETURN_IF_ERROR(Shape("sin", tokens, args.head_dim / 2, args.sin));
  CARAVAN_RETURN_IF_ERROR(
      Shape("q", tokens, int64_t{args.heads} * args.head_dim, args.q));
  CARAVAN_RETURN_IF_ERROR(Equal("slots", tokens, std::ssize(args.slots)));
  if (args.kv == nullptr) return Fault("kv", "there", 0);
  const int64_t end = int64_t{args.kv->block_count} * kBlockSlots;
  for (const int64_t slot : args.slots) {
    CARAVAN_RETURN_IF_ERROR(InRange("slot", -1, end, slot));
  }
  return InRange("layer", 0, args.kv->layers, args.layer);
}

absl::Status Check(const AttendArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Heads(args.heads, args.kv_heads, args.head_dim));
  const int64_t cols = int64_t{args.heads} * args.head_dim;
  CARAVAN_RETURN_IF_ERROR(Shape("q", args.q.rows, cols, args.q));
  CARAVAN_RETURN_IF_ERROR(Shape("out", args.q.rows, cols, args.out));
  if (args.kv == nullptr) return Fault("kv", "there", 0);
  CARAVAN_RETURN_IF_ERROR(InRange("layer", 0, args.kv->layers, args.layer));
  int64_t next = 0;
  for (const AttentionRow& row : args.rows) {
    CARAVAN_RETURN_IF_ERROR(Equal("first token", next, row.first_token));
    if (row.token_count < 1 || row.first_position < 0) {
      return Fault("tokens of a row", "at least 1", row.token_count);
    }
    CARAVAN_RETURN_IF_ERROR(RowBlocks(row, *args.kv));
    next += row.token_count;
  }
  return Equal("tokens of all rows", args.q.rows, next);
}

absl::Status Check(const ProjectAddArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Shape("a", args.x.rows, args.a.cols, args.a));
  CARAVAN_RETURN_IF_ERROR(Shape("x", args.x.rows, args.x.cols, args.x));
  CARAVAN_RETURN_IF_ERROR(
      OptionalSize("projection bias size", args.x.cols, args.bias));
  return Matrix("projection", args.x.cols, args.a.cols, args.w);
}

absl::Status Check(const NormGateUpSiluArgs& args) {
  const int64_t width = args.out.cols;
  CARAVAN_RETURN_IF_ERROR(
      Shape("x", args.x.rows, std::ssize(args.norm), args.x));
  CARAVAN_RETURN_IF_ERROR(Shape("out", args.x.rows, width, args.out));
  CARAVAN_RETURN_IF_ERROR(
      OptionalSize("gate bias size", width, args.gate_bias));
  CARAVAN_RETURN_IF_ERROR(OptionalSize("up bias size", width, args.up_bias));
  return Matrix("gate and up", 2 * width, args.x.cols, args.gate_up);
}

absl::Status Check(const DownAddArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Shape("h", args.x.rows, args.h.cols, args.h));
  CARAVAN_RETURN_IF_ERROR(Shape("x", args.x.rows, args.x.cols, args.x));
  CARAVAN_RETURN_IF_ERROR(
      OptionalSize("down bias size", args.x.cols, args.bias));
  return Matrix("down", args.x.cols, args.h.cols, args.w);
}

absl::Status Check(const NormHeadArgs& args) {
  CARAVAN_RETURN_IF_ERROR(
      Shape("x", args.x.rows, std::ssize(args.norm), args.x));
  CARAVAN_RETURN_IF_ERROR(
      Shape("logits", std::ssize(args.tokens), args.logits.cols, args.logits));
  CARAVAN_RETURN_IF_ERROR(
      TokenIds("index of a token", args.tokens, args.x.rows));
  return Matrix("head", args.logits.cols, args.x.cols, args.head);
}

absl::Status Check(const SampleArgs& args) {
  CARAVAN_RETURN_IF_ERROR(
      Shape("logits", args.logits.rows, args.logits.cols, args.logits));
  CARAVAN_RETURN_IF_ERROR(Equal("sampled size", std::ssize(args.samples),
                                std::ssize(args.sampled)));
  CARAVAN_RETURN_IF_ERROR(
      Equal("scored size", std::ssize(args.scores), std::ssize(args.scored)));
  for (const SampleRow& row : args.samples) {
    CARAVAN_RETURN_IF_ERROR(CheckSampleRow(row, args.logits));
  }
  for (const ScoreRow& row : args.scores) {
    CARAVAN_RETURN_IF_ERROR(
        InRange("score logits row", 0, args.logits.rows, row.logits_row));
    CARAVAN_RETURN_IF_ERROR(
        InRange("scored token id", 0, args.logits.cols, row.token_id));
    CARAVAN_RETURN_IF_ERROR(InRange("candidate count", 0,
                                    sampling::kMaxLogprobCount + 1,
                                    row.candidate_count));
  }
  return absl::OkStatus();
}

absl::Status Check(const CopyBlocksArgs& args) {
  if (args.kv == nullptr) return Fault("kv", "there", 0);
  for (const BlockCopy& copy : args.copies) {
    CARAVAN_RETURN_IF_ERROR(
        InRange("source block", 0, args.kv->block_count, copy.source));
    CARAVAN_RETURN_IF_ERROR(
        InRange("target block", 0, args.kv->block_count, copy.target));
  }
  return absl::OkStatus();
}

absl::Status Check(std::span<const RawMatrix> parts, const PackSpec& spec) {
  if (parts.empty()) return Fault("parts of a matrix", "at least 1", 0);
  if (spec.unit < 1) return Fault("unit of segments", "at least 1", spec.unit);
  for (const RawMatrix& part : parts) {
    if (part.rows < 1) return Fault("rows of a part", "at least 1", part.rows);
    CARAVAN_RETURN_IF_ERROR(
        Equal("columns of a part", parts[0].cols, part.cols));
    if (part.cols % InfoOf(part.type).elements != 0) {
      return Fault("columns of a part", "whole blocks of its type", part.cols);
    }
    if (part.data == nullptr) return Fault("data of a part", "there", 0);
  }
  if (parts[0].cols < 1) return Fault("columns", "at least 1", parts[0].cols);
  if (spec.kind != PackKind::kGateUp) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(Equal("parts of gate and up", 2, std::ssize(parts)));
  return Equal("rows of up", parts[0].rows, parts[1].rows);
}

absl::Status Check(const KvSpec& spec) {
  if (spec.layers < 1) return Fault("layers", "at least 1", spec.layers);
  if (spec.block_count < 1) {
    return Fault("block count", "at least 1", spec.block_count);
  }
  return Heads(spec.kv_heads, spec.kv_heads, spec.head_dim);
}

absl::Status CheckedOps::Embed(const EmbedArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->Embed(args);
}
absl::Status CheckedOps::NormQkvRopeStore(const NormQkvRopeStoreArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->NormQkvRopeStore(args);
}
absl::Status CheckedOps::Attend(const AttendArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->Attend(args);
}
absl::Status CheckedOps::ProjectAdd(const ProjectAddArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->ProjectAdd(args);
}
absl::Status CheckedOps::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->NormGateUpSilu(args);
}
absl::Status CheckedOps::DownAdd(const DownAddArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->DownAdd(args);
}
absl::Status CheckedOps::NormHead(const NormHeadArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->NormHead(args);
}
absl::Status CheckedOps::Sample(const SampleArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->Sample(args);
}
absl::Status CheckedOps::CopyBlocks(const CopyBlocksArgs& args) {
  CARAVAN_RETURN_IF_ERROR(Check(args));
  return backend_->CopyBlocks(args);
}

}  // namespace caravan::worker
