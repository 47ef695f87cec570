#include "worker/shard/rank_backend.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/check.h"
#include "worker/shard/rank_slices.h"

namespace caravan::worker {
namespace {

// A matrix in slices; a rank without rows has none.
struct RankMatrix final : PackedMatrix {
  std::vector<std::unique_ptr<PackedMatrix>> slices;
  RankBorders borders;  // of columns where they are shared out, else of rows
  bool flushes = false;

  int64_t begin(int rank) const { return borders[static_cast<size_t>(rank)]; }
  int64_t count(int rank) const { return begin(rank + 1) - begin(rank); }
  const PackedMatrix* slice(int rank) const {
    return slices[static_cast<size_t>(rank)].get();
  }
};

struct RankKv final : KvStorage {
  std::vector<std::unique_ptr<KvStorage>> parts;
  KvStorage* part(int rank) const {
    return parts[static_cast<size_t>(rank)].get();
  }
};

const RankMatrix& Own(const PackedMatrix* matrix) {
  return static_cast<const RankMatrix&>(*matrix);
}
const RankKv& Own(const KvStorage* kv) {
  return static_cast<const RankKv&>(*kv);
}

int ThreadsOf(const RankOptions& options, int rank) {
  return (rank + 1) * options.threads / options.ranks -
         rank * options.threads / options.ranks;
}

// Where the thread that leads each rank computes: the first of its cores where
// the others are bound to the rest.
std::vector<Cores> CoresOfLeads(const RankOptions& options) {
  std::vector<Cores> all =
      CoresOfRanks(options.nodes, options.ranks, options.pin);
  for (Cores& cores : all) {
    if (options.pin && !cores.empty()) cores = {cores[0]};
  }
  return all;
}

// Part `rank` of `values`.
template <typename T>
std::span<T> ShareOf(std::span<T> values, int rank, int ranks) {
  const size_t begin =
      values.size() * static_cast<size_t>(rank) / static_cast<size_t>(ranks);
  const size_t end = values.size() * (static_cast<size_t>(rank) + 1) /
                     static_cast<size_t>(ranks);
  return values.subspan(begin, end - begin);
}

}  // namespace

// One on each device; `data` is the first one's.
class RankBackend::RankArena final : public Arena {
 public:
  static absl::StatusOr<std::unique_ptr<Arena>> Allocate(RankBackend* ranks,
                                                         size_t bytes) {
    auto arena = std::make_unique<RankArena>();
    for (const auto& rank : ranks->ranks_) {
      CARAVAN_ASSIGN_OR_RETURN(arena->parts_.emplace_back(),
                               rank->AllocateArena(bytes));
      arena->bytes += arena->parts_.back()->bytes;
    }
    arena->data = arena->parts_[0]->data;
    arena->ranks_ = ranks;
    if (arena->data != nullptr) ranks->arenas_[arena->data] = arena.get();
    return arena;
  }
  ~RankArena() override {
    if (ranks_ != nullptr) ranks_->arenas_.erase(data);
  }
  bool Has(const std::byte* address) const {
    return address >= data && address < data + parts_[0]->bytes;
  }
  // Where the rank has what the first one has at `address`.
  std::byte* Of(int rank, const std::byte* address) const {
    return parts_[static_cast<size_t>(rank)]->data + (address - data);
  }

 private:
  RankBackend* ranks_ = nullptr;
  std::vector<std::unique_ptr<Arena>> parts_;
};

absl::StatusOr<std::unique_ptr<RankBackend>> RankBackend::Create(
    const RankOptions& options) {
  CARAVAN_RETURN_IF_ERROR(CheckRankCount(options.ranks));
  if (options.threads < options.ranks) {
    return FieldError("--threads", StrCat("at least --ranks ", options.ranks),
                      StrCat(options.threads));
  }
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<cpu::ThreadTeam> team,
      cpu::ThreadTeam::Create(options.ranks, /*pin=*/false, /*lead=*/true));
  const std::vector<Cores> cores =
      CoresOfRanks(options.nodes, options.ranks, options.pin);
  std::vector<std::unique_ptr<Backend>> ranks;
  for (int rank = 0; rank < options.ranks; ++rank) {
    absl::StatusOr<std::unique_ptr<Backend>> made;
    // A thread of its own, whose cores those that the backend starts inherit.
    std::jthread([&] {
      BindThread(cores[static_cast<size_t>(rank)]);
      made = options.make_rank(ThreadsOf(options, rank), options.pin);
    }).join();
    CARAVAN_RETURN_IF_ERROR(made.status());
    ranks.push_back(*std::move(made));
  }
  return std::unique_ptr<RankBackend>(
      new RankBackend(options, std::move(team), std::move(ranks)));
}

RankBackend::RankBackend(const RankOptions& options,
                         std::unique_ptr<cpu::ThreadTeam> team,
                         std::vector<std::unique_ptr<Backend>> ranks)
    : numerics_(options.numerics),
      give_up_(options.give_up),
      cores_(CoresOfLeads(options)),
      team_(std::move(team)),
      ranks_(std::move(ranks)),
      apart_(!ranks_[0]->ArenasAreHostMemory()),
      collective_(team_.get()),
      qkv_bias_(ranks_.size()),
      statuses_(ranks_.size()),
      allocated_(ranks_.size()) {
  // The caller's thread is bound where its steps begin.
  team_->Run([this](int rank) {
    if (rank > 0) BindThread(cores_[static_cast<size_t>(rank)]);
  });
}

template <typename Body>
absl::Status RankBackend::OnRanks(const Body& body) {
  team_->Run([&](int rank) {
    absl::Status& status = statuses_[static_cast<size_t>(rank)];
    status = body(rank);
    if (!status.ok() && give_up_) give_up_(status);
  });
  for (const absl::Status& status : statuses_) {
    CARAVAN_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

std::string RankBackend::NumericsClass(WeightTypes weights) const {
  return ranks_[0]->NumericsClass(weights);
}

template <typename T>
View<T> RankBackend::Place(int rank, const View<T>& view) const {
  if (!apart_ || rank == 0) return view;
  const auto* const address = reinterpret_cast<const std::byte*>(view.data);
  const auto after = arenas_.upper_bound(address);
  if (after == arenas_.begin()) return view;
  const RankArena& arena = *std::prev(after)->second;
  if (!arena.Has(address)) return view;
  View<T> placed = view;
  placed.data = reinterpret_cast<T*>(arena.Of(rank, address));
  return placed;
}

template <typename T>
View<T> RankBackend::OwnHeads(int rank, const View<T>& view) const {
  const int64_t own = view.cols / team_->size();
  return Place(rank, view).Columns(rank * own, own);
}

size_t RankBackend::PackedBytes(std::span<const RawMatrix> parts,
                                const PackSpec& spec) const {
  size_t bytes = 0;
  for (int rank = 0; rank < ranks(); ++rank) {
    bytes += PackedBytesOf(rank, parts, spec);
  }
  return bytes;
}

size_t RankBackend::PackedBytesOf(int rank, std::span<const RawMatrix> parts,
                                  const PackSpec& spec) const {
  const RankSlice slice = SliceOf(parts, spec, ranks(), rank, apart_);
  if (slice.parts[0].rows == 0) return 0;
  return this->rank(rank).PackedBytes(slice.parts, slice.spec);
}

absl::Status RankBackend::CheckModel(
    int32_t kv_heads, std::span<const MatrixShape> matrices) const {
  return CheckRanks(kv_heads, matrices, numerics_.activations, ranks());
}

RankMemory RankBackend::Planned(int rank, std::span<const MatrixShape> matrices,
                                const KvSpec& kv,
                                const ScratchSpec& scratch) const {
  RankMemory memory;
  for (const MatrixShape& matrix : matrices) {
    memory.weight_bytes += PackedBytesOf(rank, matrix.parts, matrix.spec);
  }
  memory.kv_bytes = this->rank(rank).KvBytes(OwnKv(kv));
  memory.scratch_bytes = this->rank(rank).ScratchBytes(OwnScratch(scratch));
  return memory;
}

RankMemory RankBackend::Allocated(int rank) const {
  RankMemory memory = allocated_[static_cast<size_t>(rank)];
  memory.scratch_bytes = this->rank(rank).scratch_bytes();
  return memory;
}

// Each rank's in one mapping, made by the thread that is on its node.
absl::Status RankBackend::ReservePacked(std::span<const MatrixShape> matrices) {
  return OnRanks([&](int rank) {
    std::vector<MatrixShape> own;
    for (const MatrixShape& matrix : matrices) {
      RankSlice slice =
          SliceOf(matrix.parts, matrix.spec, ranks(), rank, apart_);
      if (slice.parts[0].rows == 0) continue;
      own.push_back({matrix.name, std::move(slice.parts), slice.spec});
    }
    return this->rank(rank).ReservePacked(own);
  });
}

KvSpec RankBackend::OwnKv(const KvSpec& spec) const {
  KvSpec own = spec;
  own.kv_heads = spec.kv_heads / team_->size();
  return own;
}

size_t RankBackend::KvBytes(const KvSpec& spec) const {
  return ranks_.size() * ranks_[0]->KvBytes(OwnKv(spec));
}

ScratchSpec RankBackend::OwnScratch(const ScratchSpec& spec) const {
  ScratchSpec own = spec;
  own.qkv_rows = spec.qkv_rows / team_->size();
  own.heads = spec.heads / team_->size();
  return own;
}

size_t RankBackend::PartialBytes(int64_t tokens, int64_t hidden) const {
  if (apart_) return 0;
  return ranks_.size() * static_cast<size_t>(tokens * hidden) * sizeof(float);
}

size_t RankBackend::ScratchBytes(const ScratchSpec& spec) const {
  size_t bytes =
      Buffer::AllocatedBytes(PartialBytes(spec.max_tokens, spec.hidden));
  for (const auto& rank : ranks_) bytes += rank->ScratchBytes(OwnScratch(spec));
  return bytes;
}

absl::Status RankBackend::ReserveScratch(const ScratchSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(ReservePartials(spec.max_tokens, spec.hidden));
  return OnRanks([&](int rank) {
    return this->rank(rank).ReserveScratch(OwnScratch(spec));
  });
}

size_t RankBackend::scratch_bytes() const {
  size_t bytes = Buffer::AllocatedBytes(partials_.size());
  for (const auto& rank : ranks_) bytes += rank->scratch_bytes();
  return bytes;
}

absl::Status RankBackend::ReservePartials(int64_t tokens, int64_t hidden) {
  const size_t bytes = PartialBytes(tokens, hidden);
  if (bytes <= partials_.size()) return absl::OkStatus();
  partials_ = Buffer();  // first return the old memory
  CARAVAN_ASSIGN_OR_RETURN(partials_, Buffer::Allocate(bytes));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Arena>> RankBackend::AllocateArena(
    size_t bytes) {
  if (!apart_) return Backend::AllocateArena(bytes);
  return RankArena::Allocate(this, bytes);
}

size_t RankBackend::ArenaBytes(size_t bytes) const {
  if (!apart_) return Backend::ArenaBytes(bytes);
  return ranks_.size() * ranks_[0]->ArenaBytes(bytes);
}

absl::StatusOr<std::optional<size_t>> RankBackend::FreeBytes() const {
  std::optional<size_t> least;
  for (const auto& rank : ranks_) {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<size_t> bytes,
                             rank->FreeBytes());
    if (!bytes) return std::optional<size_t>();
    least = std::min(*bytes, least.value_or(*bytes));
  }
  return std::optional<size_t>(*least * ranks_.size());
}

absl::Status RankBackend::Keep(std::span<const float> vector) {
  kept_.insert(vector.data());
  for (const auto& rank : ranks_) CARAVAN_RETURN_IF_ERROR(rank->Keep(vector));
  return absl::OkStatus();
}

absl::Status RankBackend::BeginStep(const StepInputs& inputs) {
  // One thread begins all steps of a shard.
  static thread_local const RankBackend* bound_for = nullptr;
  if (std::exchange(bound_for, this) != this) BindThread(cores_[0]);
  return OnRanks([&](int rank) { return this->rank(rank).BeginStep(inputs); });
}

// Devices launch here what they have put off, and meet while they do.
void RankBackend::EndStep() {
  team_->Run([this](int rank) { this->rank(rank).EndStep(); });
}

bool RankBackend::CanEmbedFromHead() const {
  return ranks_[0]->CanEmbedFromHead();
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> RankBackend::Pack(
    std::span<const RawMatrix> parts, const PackSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(parts, spec));
  CARAVAN_RETURN_IF_ERROR(
      CheckSlices("a matrix", parts, spec, numerics_.activations, ranks()));
  if (apart_) CARAVAN_RETURN_IF_ERROR(CheckRows(parts, spec, ranks()));
  auto matrix = std::make_unique<RankMatrix>();
  matrix->borders = BordersOf(parts, spec, ranks(), apart_);
  matrix->slices.resize(ranks_.size());
  matrix->cols = parts[0].cols;
  matrix->flushes = numerics_.activations == ActivationType::kBf16;
  for (const RawMatrix& part : parts) {
    matrix->rows += part.rows;
    matrix->flushes = matrix->flushes && part.type == WeightType::kBf16;
  }
  CARAVAN_RETURN_IF_ERROR(OnRanks([&](int rank) -> absl::Status {
    const RankSlice slice = SliceOf(parts, spec, ranks(), rank, apart_);
    if (slice.parts[0].rows == 0) return absl::OkStatus();
    CARAVAN_ASSIGN_OR_RETURN(matrix->slices[static_cast<size_t>(rank)],
                             this->rank(rank).Pack(slice.parts, slice.spec));
    return absl::OkStatus();
  }));
  for (int rank = 0; rank < ranks(); ++rank) {
    const PackedMatrix* const slice = matrix->slice(rank);
    if (slice == nullptr) continue;
    matrix->bytes += slice->bytes;
    matrix->data_bytes += slice->data_bytes;
    allocated_[static_cast<size_t>(rank)].weight_bytes += slice->bytes;
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<KvStorage>> RankBackend::AllocateKv(
    const KvSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(spec));
  if (spec.kv_heads % ranks() != 0) {
    return FieldError(
        "--ranks", StrCat("a divisor of ", spec.kv_heads, " key-value heads"),
        StrCat(ranks()));
  }
  auto kv = std::make_unique<RankKv>();
  kv->layers = spec.layers;
  kv->block_count = spec.block_count;
  kv->parts.resize(ranks_.size());
  CARAVAN_RETURN_IF_ERROR(OnRanks([&](int rank) -> absl::Status {
    CARAVAN_ASSIGN_OR_RETURN(kv->parts[static_cast<size_t>(rank)],
                             this->rank(rank).AllocateKv(OwnKv(spec)));
    return absl::OkStatus();
  }));
  for (int rank = 0; rank < ranks(); ++rank) {
    kv->bytes += kv->part(rank)->bytes;
    allocated_[static_cast<size_t>(rank)].kv_bytes += kv->part(rank)->bytes;
  }
  return kv;
}

// Token after token, from the rank that has its row.
absl::Status RankBackend::Embed(const EmbedArgs& args) {
  if (apart_) return EmbedApart(args);
  const RankMatrix& table = Own(args.table);
  for (size_t t = 0; t < args.ids.size(); ++t) {
    const auto above = std::upper_bound(table.borders.begin(),
                                        table.borders.end(), args.ids[t]);
    const int owner = static_cast<int>(above - table.borders.begin()) - 1;
    const int32_t row = args.ids[t] - static_cast<int32_t>(table.begin(owner));
    CARAVAN_RETURN_IF_ERROR(
        rank(owner).Embed({.ids = {&row, 1},
                           .table = table.slice(owner),
                           .x = args.x.Rows(static_cast<int64_t>(t), 1)}));
  }
  return absl::OkStatus();
}

absl::Status RankBackend::EmbedApart(const EmbedArgs& args) {
  const RankMatrix& table = Own(args.table);
  return OnRanks([&](int rank) {
    return this->rank(rank).Embed({.ids = args.ids,
                                   .table = table.slice(rank),
                                   .x = Place(rank, args.x)});
  });
}

absl::StatusOr<std::span<const float>> RankBackend::OwnQkvBias(
    int rank, const NormQkvRopeStoreArgs& args) {
  if (args.bias.empty()) return std::span<const float>();
  const bool kept = kept_.contains(args.bias.data());
  std::vector<float>& own =
      qkv_bias_[static_cast<size_t>(rank)][kept ? args.bias.data() : nullptr];
  if (kept && !own.empty()) return own;
  own.clear();
  const size_t q = static_cast<size_t>(args.heads * args.head_dim);
  const size_t kv = static_cast<size_t>(args.kv_heads * args.head_dim);
  for (const auto part :
       {args.bias.first(q), args.bias.subspan(q, kv), args.bias.last(kv)}) {
    const auto share = ShareOf(part, rank, ranks());
    own.insert(own.end(), share.begin(), share.end());
  }
  if (kept) CARAVAN_RETURN_IF_ERROR(this->rank(rank).Keep(own));
  return own;
}

absl::Status RankBackend::NormQkvRopeStore(const NormQkvRopeStoreArgs& args) {
  return OnRanks([&](int rank) -> absl::Status {
    NormQkvRopeStoreArgs own = args;
    own.x = Place(rank, args.x);
    own.qkv = Own(args.qkv).slice(rank);
    CARAVAN_ASSIGN_OR_RETURN(own.bias, OwnQkvBias(rank, args));
    own.heads = args.heads / ranks();
    own.kv_heads = args.kv_heads / ranks();
    own.kv = Own(args.kv).part(rank);
    own.q = OwnHeads(rank, args.q);
    return this->rank(rank).NormQkvRopeStore(own);
  });
}

absl::Status RankBackend::Attend(const AttendArgs& args) {
  return OnRanks([&](int rank) {
    AttendArgs own = args;
    own.q = OwnHeads(rank, args.q);
    own.heads = args.heads / ranks();
    own.kv_heads = args.kv_heads / ranks();
    own.kv = Own(args.kv).part(rank);
    own.out = OwnHeads(rank, args.out);
    return this->rank(rank).Attend(own);
  });
}

absl::Status RankBackend::ProjectAdd(const ProjectAddArgs& args) {
  if (!apart_) return AddPartials(args);
  const RankMatrix& w = Own(args.w);
  return OnRanks([&](int rank) {
    return this->rank(rank).ProjectAdd(
        {.a = Place(rank, args.a).Columns(w.begin(rank), w.count(rank)),
         .w = w.slice(rank),
         .bias = args.bias,
         .x = Place(rank, args.x)});
  });
}

// Each rank adds the products of its columns to zeros, and the sums of those
// are added to x.
absl::Status RankBackend::AddPartials(const ProjectAddArgs& args) {
  const RankMatrix& w = Own(args.w);
  const View<float> x = args.x;
  CARAVAN_RETURN_IF_ERROR(ReservePartials(x.rows, x.cols));
  return OnRanks([&](int rank) {
    const View<float> partial(partials_.As<float>() + rank * x.rows * x.cols,
                              x.rows, x.cols);
    std::memset(partial.data, 0,
                static_cast<size_t>(x.rows * x.cols) * sizeof(float));
    absl::Status status = this->rank(rank).ProjectAdd(
        {.a = args.a.Columns(w.begin(rank), w.count(rank)),
         .w = w.slice(rank),
         .bias = {},
         .x = partial});
    status.Update(collective_.AllReduceAdd(
        rank,
        {.partial = partial, .bias = args.bias, .flush = w.flushes, .x = x}));
    return status;
  });
}

absl::Status RankBackend::DownAdd(const DownAddArgs& args) {
  return ProjectAdd({.a = args.h, .w = args.w, .bias = args.bias, .x = args.x});
}

absl::Status RankBackend::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  const RankMatrix& w = Own(args.gate_up);
  return OnRanks([&](int rank) {
    const int64_t begin = w.begin(rank);
    const int64_t count = w.count(rank);
    const auto own_bias = [&](std::span<const float> bias) {
      return bias.empty() ? bias
                          : bias.subspan(static_cast<size_t>(begin),
                                         static_cast<size_t>(count));
    };
    NormGateUpSiluArgs own = args;
    own.gate_up = w.slice(rank);
    own.gate_bias = own_bias(args.gate_bias);
    own.up_bias = own_bias(args.up_bias);
    own.x = Place(rank, args.x);
    own.out = Place(rank, args.out).Columns(begin, count);
    return this->rank(rank).NormGateUpSilu(own);
  });
}

absl::Status RankBackend::NormHead(const NormHeadArgs& args) {
  const RankMatrix& head = Own(args.head);
  return OnRanks([&](int rank) {
    if (head.count(rank) == 0) return absl::OkStatus();
    NormHeadArgs own = args;
    own.x = Place(rank, args.x);
    own.head = head.slice(rank);
    own.logits = Place(rank, args.logits);
    if (!apart_) {
      own.logits = args.logits.Columns(head.begin(rank), head.count(rank));
    }
    return this->rank(rank).NormHead(own);
  });
}

absl::Status RankBackend::Sample(const SampleArgs& args) {
  return OnRanks([&](int rank) {
    return this->rank(rank).Sample(
        {.logits = Place(rank, args.logits),
         .samples = ShareOf(args.samples, rank, ranks()),
         .scores = ShareOf(args.scores, rank, ranks()),
         .sampled = ShareOf(args.sampled, rank, ranks()),
         .scored = ShareOf(args.scored, rank, ranks())});
  });
}

absl::Status RankBackend::CopyBlocks(const CopyBlocksArgs& args) {
  return OnRanks([&](int rank) {
    return this->rank(rank).CopyBlocks({args.copies, Own(args.kv).part(rank)});
  });
}

}  // namespace caravan::worker
