#include "worker/shard/rank_slices.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/ops.h"

namespace caravan::worker {
namespace {

constexpr int64_t kGroupUnit = 32;  // of int8 activations

bool SharesColumns(PackKind kind) {
  return kind == PackKind::kHeadSegments || kind == PackKind::kGroupSegments;
}

bool SharesRows(PackKind kind) {
  return kind == PackKind::kEmbedding || kind == PackKind::kHead;
}

// Borders of segments at which ranks part.
RankBorders SegmentsOfRanks(int64_t k, int64_t unit, int ranks) {
  const auto segments = SegmentBorders(k, unit);
  RankBorders borders;
  for (int rank = 0; rank <= ranks; ++rank) {
    borders.push_back(segments[static_cast<size_t>(kSegments * rank / ranks)]);
  }
  return borders;
}

RankBorders EvenBorders(int64_t count, int64_t unit, int ranks) {
  const int64_t units = (count + unit - 1) / unit;
  RankBorders borders;
  for (int rank = 0; rank <= ranks; ++rank) {
    borders.push_back(std::min(count, rank * units / ranks * unit));
  }
  return borders;
}

RankBorders EvenRows(int64_t rows, int ranks) {
  const auto borders = RowsOfRanks(rows, ranks);
  return {borders.begin(), borders.begin() + ranks + 1};
}

absl::Status Refuse(std::string_view limit, int ranks) {
  return FieldError("--ranks", limit, StrCat(ranks));
}

// Elements that ranks must not part: of a block of the type, and of a group of
// activations where they meet blocks in int8.
int64_t UnpartedElements(WeightType type, ActivationType activations) {
  const int64_t block = InfoOf(type).elements;
  const bool four_bit = type == WeightType::kNf4 || type == WeightType::kFp4;
  if (four_bit) return block;
  return activations == ActivationType::kInt8 && block > 1 ? kGroupUnit : 1;
}

// Whether ranks begin where segments of `unit` do, on whole blocks of `type`.
absl::Status CheckColumns(std::string_view name, int64_t cols, int64_t unit,
                          WeightType type, ActivationType activations,
                          int ranks) {
  const RankBorders borders = SegmentsOfRanks(cols, unit, ranks);
  const int64_t block = InfoOf(type).elements;
  const RankBorders grouped = SegmentsOfRanks(
      cols, std::lcm(unit, UnpartedElements(type, activations)), ranks);
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    if (borders[i] == borders[i + 1] || borders[i] != grouped[i] ||
        borders[i] % block != 0) {
      return Refuse(
          StrCat("such that ", cols, " columns of ", Name(type),
                 " in blocks of ", block, " part on a border of segments (",
                 borders[i], "), as those of ", name, " have to"),
          ranks);
    }
  }
  return absl::OkStatus();
}

}  // namespace

RankBorders BordersOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                      int ranks, bool apart) {
  switch (spec.kind) {
    case PackKind::kHeadSegments:
    case PackKind::kGroupSegments:
      return SegmentsOfRanks(parts[0].cols, spec.unit, ranks);
    case PackKind::kGateUp:
      return SegmentsOfRanks(parts[0].rows, spec.unit, ranks);
    case PackKind::kHead:
      return EvenRows(parts[0].rows, ranks);
    case PackKind::kQkv:
      return EvenBorders(parts[0].rows, spec.unit, ranks);
    case PackKind::kEmbedding:
      if (apart) return EvenRows(parts[0].rows, ranks);
      break;
  }
  RankBorders first_has_all(static_cast<size_t>(ranks) + 1, parts[0].rows);
  first_has_all[0] = 0;
  return first_has_all;
}

RankSlice SliceOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                  int ranks, int rank, bool apart) {
  const RankBorders borders = BordersOf(parts, spec, ranks, apart);
  const int64_t begin = borders[static_cast<size_t>(rank)];
  const int64_t count = borders[static_cast<size_t>(rank) + 1] - begin;
  RankSlice slice = {{}, spec};
  if (SharesColumns(spec.kind)) {
    const int each = kSegments / ranks;
    slice.spec.owned = {rank * each, each, parts[0].cols};
  } else if (apart && SharesRows(spec.kind)) {
    slice.spec.owned_rows = {rank, ranks, parts[0].rows};
  }
  for (const RawMatrix& part : parts) {
    if (SharesColumns(spec.kind)) {
      slice.parts.push_back(part.Columns(begin, count));
    } else if (spec.kind == PackKind::kQkv) {
      slice.parts.push_back(
          part.Rows(rank * (part.rows / ranks), part.rows / ranks));
    } else {
      slice.parts.push_back(part.Rows(begin, count));
    }
  }
  return slice;
}

absl::Status CheckRankCount(int ranks) {
  if (ranks >= 1 && ranks <= kSegments && kSegments % ranks == 0) {
    return absl::OkStatus();
  }
  return Refuse("1, 2, 4 or 8", ranks);
}

absl::Status CheckSlices(std::string_view name,
                         std::span<const RawMatrix> parts, const PackSpec& spec,
                         ActivationType activations, int ranks) {
  for (const RawMatrix& part : parts) {
    if (SharesColumns(spec.kind)) {
      CARAVAN_RETURN_IF_ERROR(CheckColumns(name, part.cols, spec.unit,
                                           part.type, activations, ranks));
    } else if (spec.kind == PackKind::kQkv &&
               part.rows % (spec.unit * ranks) != 0) {
      return Refuse(StrCat("a divisor of the ", part.rows / spec.unit,
                           " heads of ", name),
                    ranks);
    }
  }
  if (spec.kind != PackKind::kGateUp) return absl::OkStatus();
  return CheckColumns(name, parts[0].rows, spec.unit, WeightType::kFp32,
                      ActivationType::kFp32, ranks);
}

absl::Status CheckRows(std::span<const RawMatrix> parts, const PackSpec& spec,
                       int ranks) {
  if (!SharesRows(spec.kind) || parts[0].rows >= kHeadRows * ranks) {
    return absl::OkStatus();
  }
  return Refuse(StrCat("at most ", parts[0].rows, " rows / ", kHeadRows),
                ranks);
}

absl::Status CheckRanks(int32_t kv_heads, std::span<const MatrixShape> matrices,
                        ActivationType activations, int ranks) {
  CARAVAN_RETURN_IF_ERROR(CheckRankCount(ranks));
  if (kv_heads % ranks != 0) {
    return Refuse(StrCat("a divisor of num_key_value_heads = ", kv_heads),
                  ranks);
  }
  if (ranks == 1) return absl::OkStatus();
  for (const MatrixShape& matrix : matrices) {
    CARAVAN_RETURN_IF_ERROR(CheckSlices(matrix.name, matrix.parts, matrix.spec,
                                        activations, ranks));
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker
