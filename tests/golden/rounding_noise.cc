#include "tests/golden/rounding_noise.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/quant/weight_group.h"

namespace caravan::worker {
namespace {

// One row of a view, as a view.
template <typename T>
View<T> RowOf(const View<T>& view, int64_t row) {
  return View<T>(view.row(row), 1, view.cols);
}

class NoisyBackend final : public Backend {
 public:
  NoisyBackend(std::unique_ptr<Backend> plain, uint32_t seed)
      : plain_(std::move(plain)), random_(seed) {}

  std::string NumericsClass(WeightTypes weights) const override {
    return plain_->NumericsClass(weights);
  }
  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override {
    return plain_->PackedBytes(parts, spec);
  }
  size_t KvBytes(const KvSpec& spec) const override {
    return plain_->KvBytes(spec);
  }
  size_t ScratchBytes(const ScratchSpec& spec) const override {
    return plain_->ScratchBytes(spec);
  }
  absl::Status ReserveScratch(const ScratchSpec& spec) override {
    return plain_->ReserveScratch(spec);
  }
  size_t scratch_bytes() const override { return plain_->scratch_bytes(); }
  bool CanEmbedFromHead() const override { return plain_->CanEmbedFromHead(); }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override {
    return plain_->AllocateKv(spec);
  }
  absl::Status Embed(const EmbedArgs& args) override {
    return plain_->Embed(args);
  }
  absl::Status Attend(const AttendArgs& args) override {
    return plain_->Attend(args);
  }
  absl::Status Sample(const SampleArgs& args) override {
    return plain_->Sample(args);
  }
  absl::Status CopyBlocks(const CopyBlocksArgs& args) override {
    return plain_->CopyBlocks(args);
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override;
  absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args) override;
  absl::Status ProjectAdd(const ProjectAddArgs& args) override;
  absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args) override;
  absl::Status DownAdd(const DownAddArgs& args) override;
  absl::Status NormHead(const NormHeadArgs& args) override;

 private:
  // A row that a phase normalizes to what it would have been, moved.
  struct Moved {
    std::vector<float> x;
    std::vector<float> norm;
  };
  bool Rounds(const PackedMatrix* matrix) const {
    return rounded_.contains(matrix);
  }
  void AddErrors(std::span<float> x);
  Moved MoveNormed(const float* x, std::span<const float> norm, float epsilon);
  std::vector<float> MoveRows(const View<const float>& rows);

  const std::unique_ptr<Backend> plain_;
  std::mt19937 random_;
  std::set<const PackedMatrix*> rounded_;
};

absl::StatusOr<std::unique_ptr<PackedMatrix>> NoisyBackend::Pack(
    std::span<const RawMatrix> parts, const PackSpec& spec) {
  CARAVAN_ASSIGN_OR_RETURN(auto matrix, plain_->Pack(parts, spec));
  const bool rounds =
      spec.kind != PackKind::kEmbedding &&
      std::ranges::all_of(parts, [&](const RawMatrix& part) {
        return quant::Int8FormatOf(part.type) &&
               (spec.kind == PackKind::kQkv || part.type == parts[0].type);
      });
  if (rounds) rounded_.insert(matrix.get());
  return matrix;
}

void NoisyBackend::AddErrors(std::span<float> x) {
  std::uniform_real_distribution<float> part(-0.5f, 0.5f);
  for (size_t begin = 0; begin < x.size(); begin += kGroupElements) {
    const auto group = x.subspan(begin, kGroupElements);
    float most = 0;
    for (const float value : group) most = std::max(most, std::fabs(value));
    for (float& value : group) value += part(random_) * most / 127;
  }
}

// Norm weights that are all the root of the mean square undo the norm.
NoisyBackend::Moved NoisyBackend::MoveNormed(const float* x,
                                             std::span<const float> norm,
                                             float epsilon) {
  const auto root = [&](std::span<const float> values) {
    double squares = 0;
    for (const float value : values) squares += double{value} * value;
    return std::sqrt(squares / static_cast<double>(values.size()) + epsilon);
  };
  Moved moved = {{x, x + norm.size()}, {}};
  const double inverse = 1 / root(moved.x);
  for (size_t i = 0; i < norm.size(); ++i) {
    moved.x[i] = static_cast<float>(moved.x[i] * inverse) * norm[i];
  }
  AddErrors(moved.x);
  moved.norm.assign(norm.size(), static_cast<float>(root(moved.x)));
  return moved;
}

std::vector<float> NoisyBackend::MoveRows(const View<const float>& rows) {
  std::vector<float> moved;
  for (int64_t r = 0; r < rows.rows; ++r) {
    moved.insert(moved.end(), rows.row(r), rows.row(r) + rows.cols);
  }
  AddErrors(moved);
  return moved;
}

absl::Status NoisyBackend::NormQkvRopeStore(const NormQkvRopeStoreArgs& args) {
  if (!Rounds(args.qkv)) return plain_->NormQkvRopeStore(args);
  for (int64_t t = 0; t < args.x.rows; ++t) {
    const Moved moved = MoveNormed(args.x.row(t), args.norm, args.epsilon);
    NormQkvRopeStoreArgs one = args;
    one.x = View<const float>(moved.x.data(), 1, args.x.cols);
    one.norm = moved.norm;
    one.cos = RowOf(args.cos, t);
    one.sin = RowOf(args.sin, t);
    one.slots = args.slots.subspan(static_cast<size_t>(t), 1);
    one.q = RowOf(args.q, t);
    CARAVAN_RETURN_IF_ERROR(plain_->NormQkvRopeStore(one));
  }
  return absl::OkStatus();
}

absl::Status NoisyBackend::ProjectAdd(const ProjectAddArgs& args) {
  if (!Rounds(args.w)) return plain_->ProjectAdd(args);
  const std::vector<float> moved = MoveRows(args.a);
  ProjectAddArgs own = args;
  own.a = View<const float>(moved.data(), args.a.rows, args.a.cols);
  return plain_->ProjectAdd(own);
}

absl::Status NoisyBackend::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  if (!Rounds(args.gate_up)) return plain_->NormGateUpSilu(args);
  for (int64_t t = 0; t < args.x.rows; ++t) {
    const Moved moved = MoveNormed(args.x.row(t), args.norm, args.epsilon);
    NormGateUpSiluArgs one = args;
    one.x = View<const float>(moved.x.data(), 1, args.x.cols);
    one.norm = moved.norm;
    one.out = RowOf(args.out, t);
    CARAVAN_RETURN_IF_ERROR(plain_->NormGateUpSilu(one));
  }
  return absl::OkStatus();
}

absl::Status NoisyBackend::DownAdd(const DownAddArgs& args) {
  if (!Rounds(args.w)) return plain_->DownAdd(args);
  const std::vector<float> moved = MoveRows(args.h);
  DownAddArgs own = args;
  own.h = View<const float>(moved.data(), args.h.rows, args.h.cols);
  return plain_->DownAdd(own);
}

absl::Status NoisyBackend::NormHead(const NormHeadArgs& args) {
  if (!Rounds(args.head)) return plain_->NormHead(args);
  constexpr int32_t kFirst[] = {0};
  for (size_t i = 0; i < args.tokens.size(); ++i) {
    const Moved moved =
        MoveNormed(args.x.row(args.tokens[i]), args.norm, args.epsilon);
    NormHeadArgs one = args;
    one.x = View<const float>(moved.x.data(), 1, args.x.cols);
    one.tokens = kFirst;
    one.norm = moved.norm;
    one.logits = RowOf(args.logits, static_cast<int64_t>(i));
    CARAVAN_RETURN_IF_ERROR(plain_->NormHead(one));
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Backend> MakeNoisyBackend(uint32_t seed) {
  auto plain = MakeCpuBackend({.numerics = {}});
  return std::make_unique<NoisyBackend>(*std::move(plain), seed);
}

}  // namespace caravan::worker
