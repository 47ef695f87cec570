// A backend made of ranks: each phase of a stage is dealt out to backends of
// their own, each with its threads, its slice of the weights and its heads of
// the cache. To the forward page it is one backend like any other.
//
// Rank r of N has the key-value heads [r G/N, (r + 1) G/N) and their query
// heads, the feed-forward columns and the segments [8 r/N, 8 (r + 1)/N) of
// attention output and down projection, and rows of the output head. The sums
// over segments are those of one rank (collective.h), so that the bits are,
// but for the sign of a zero to which all segments of a rank underflow.
//
// Ranks that compute in host memory share their arenas. Those that lie apart,
// on a device each, have one each of the same layout: x and the logits are
// whole in all of them, and their backends end sums, look-ups and logits
// together (CudaOptions::ranks); an embedding's rows are shared out too.
#ifndef CARAVAN_WORKER_SHARD_RANK_BACKEND_H_
#define CARAVAN_WORKER_SHARD_RANK_BACKEND_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/shard/collective.h"
#include "worker/shard/topology.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// Bytes that are one rank's own.
struct RankMemory {
  size_t weight_bytes = 0;  // of matrices
  size_t kv_bytes = 0;
  size_t scratch_bytes = 0;
  friend bool operator==(const RankMemory&, const RankMemory&) = default;
};

struct RankOptions {
  int ranks = 2;    // 2, 4 or 8
  int threads = 2;  // of all ranks together; at least one each
  bool pin = false;
  // Of the backends that `make_rank` gives.
  NumericsOptions numerics;
  // The cores of each NUMA node.
  std::vector<Cores> nodes;
  // The next rank's backend, of which all are alike: over host memory for
  // `threads` threads, the caller's included, or over a device.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(int threads, bool pin)>
      make_rank;
  // Called by a rank on a device that has failed: ends what others wait for.
  std::function<void(const absl::Status&)> give_up = {};
};

// Not thread-safe: one caller at a time, which is rank 0.
class RankBackend final : public Backend {
 public:
  // Errors: kInvalidField (ranks, threads), and those of `make_rank`.
  static absl::StatusOr<std::unique_ptr<RankBackend>> Create(
      const RankOptions& options);

  int ranks() const { return team_->size(); }
  // One of the backends, for what is true of each, such as the self-test.
  Backend& rank(int index) const { return *ranks_[static_cast<size_t>(index)]; }

  // CheckRanks (rank_slices.h) of a model that these ranks are to compute.
  absl::Status CheckModel(int32_t kv_heads,
                          std::span<const MatrixShape> matrices) const;
  // What a rank will take of a model; what all share (arenas, the partial
  // sums, vectors) is no rank's own. Precondition: CheckModel.
  RankMemory Planned(int rank, std::span<const MatrixShape> matrices,
                     const KvSpec& kv, const ScratchSpec& scratch) const;
  // What it has taken so far.
  RankMemory Allocated(int rank) const;

  std::string NumericsClass(WeightTypes weights) const override;
  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override;
  size_t KvBytes(const KvSpec& spec) const override;
  size_t ScratchBytes(const ScratchSpec& spec) const override;
  absl::Status ReserveScratch(const ScratchSpec& spec) override;
  size_t scratch_bytes() const override;
  absl::StatusOr<std::unique_ptr<Arena>> AllocateArena(size_t bytes) override;
  size_t ArenaBytes(size_t bytes) const override;
  // As many on each as on the one that has least.
  absl::StatusOr<std::optional<size_t>> FreeBytes() const override;
  bool ArenasAreHostMemory() const override { return !apart_; }

  absl::Status Keep(std::span<const float> vector) override;
  absl::Status BeginStep(const StepInputs& inputs) override;
  void EndStep() override;
  bool CanEmbedFromHead() const override;

  absl::Status ReservePacked(std::span<const MatrixShape> matrices) override;
  // kInvalidField where a matrix cannot be shared out.
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override;

  absl::Status Embed(const EmbedArgs& args) override;
  absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args) override;
  absl::Status Attend(const AttendArgs& args) override;
  absl::Status ProjectAdd(const ProjectAddArgs& args) override;
  absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args) override;
  absl::Status DownAdd(const DownAddArgs& args) override;
  absl::Status NormHead(const NormHeadArgs& args) override;
  absl::Status Sample(const SampleArgs& args) override;
  absl::Status CopyBlocks(const CopyBlocksArgs& args) override;

 private:
  class RankArena;

  RankBackend(const RankOptions& options, std::unique_ptr<cpu::ThreadTeam> team,
              std::vector<std::unique_ptr<Backend>> ranks);

  // Calls body(rank) on every rank's thread; the first error of the lowest
  // rank.
  template <typename Body>
  absl::Status OnRanks(const Body& body);
  // The rank's own of what lies in an arena.
  template <typename T>
  View<T> Place(int rank, const View<T>& view) const;
  // Of that, the rank's columns of heads.
  template <typename T>
  View<T> OwnHeads(int rank, const View<T>& view) const;
  // Of the partial sums of all ranks in host memory.
  size_t PartialBytes(int64_t tokens, int64_t hidden) const;
  size_t PackedBytesOf(int rank, std::span<const RawMatrix> parts,
                       const PackSpec& spec) const;
  KvSpec OwnKv(const KvSpec& spec) const;
  ScratchSpec OwnScratch(const ScratchSpec& spec) const;
  absl::Status ReservePartials(int64_t tokens, int64_t hidden);
  absl::Status EmbedApart(const EmbedArgs& args);
  // ProjectAdd of ranks in host memory.
  absl::Status AddPartials(const ProjectAddArgs& args);
  // The rank's heads of a bias of q, k and v.
  absl::StatusOr<std::span<const float>> OwnQkvBias(
      int rank, const NormQkvRopeStoreArgs& args);

  const NumericsOptions numerics_;
  const std::function<void(const absl::Status&)> give_up_;
  const std::vector<Cores> cores_;  // of each rank's lead
  const std::unique_ptr<cpu::ThreadTeam> team_;
  const std::vector<std::unique_ptr<Backend>> ranks_;
  const bool apart_;  // a device each
  HostCollective collective_;
  Buffer partials_;  // (ranks, T, D)
  // By where the first rank's arena begins.
  std::map<const std::byte*, const RankArena*> arenas_;
  std::set<const float*> kept_;  // vectors that stay where they are
  // Each rank's own: its heads of biases, by where those begin, and (null) of
  // one that may change.
  std::vector<std::map<const float*, std::vector<float>>> qkv_bias_;
  std::vector<absl::Status> statuses_;  // of each rank
  std::vector<RankMemory> allocated_;   // the same; no scratch
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_RANK_BACKEND_H_
