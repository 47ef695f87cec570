// A backend computes the phases of ops.h on one device. Arguments are checked
// by ops/check before they come here; kernels assume them.
#ifndef CARAVAN_WORKER_OPS_BACKEND_H_
#define CARAVAN_WORKER_OPS_BACKEND_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/ops.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

// What a packed matrix is for; decides segments and layout.
enum class PackKind {
  kEmbedding,      // rows are looked up
  kQkv,            // parts q, k, v; K in one segment
  kHeadSegments,   // attention output: K in 8 segments on borders of `unit`
  kGateUp,         // parts gate, up; K in one segment
  kGroupSegments,  // down projection: K in 8 segments on borders of `unit`
  kHead,           // output head; K in one segment
};

// Which of the 8 segments of K a matrix has: those of a rank, which are
// neighbours. All of them where `whole_cols` is 0.
struct OwnedSegments {
  int first = 0;
  int count = kSegments;
  int64_t whole_cols = 0;  // K of all of them

  bool operator==(const OwnedSegments&) const = default;
};

// Which rows of a table or an output head a rank on a device of its own has:
// the borders are RowsOfRanks(). All of them where `ranks` is 1.
struct OwnedRows {
  int32_t rank = 0;
  int32_t ranks = 1;
  int64_t whole_rows = 0;  // of all ranks

  bool operator==(const OwnedRows&) const = default;
};

// Rows that stay together when an output head is shared out.
inline constexpr int64_t kHeadRows = 16;

// Where the rows of each of `ranks` ranks begin, and the end of the last, for
// up to kSegments ranks; those behind are empty.
std::array<int64_t, kSegments + 1> RowsOfRanks(int64_t rows, int ranks);

struct PackSpec {
  PackKind kind = PackKind::kQkv;
  int64_t unit = 32;          // of segments: head size, or 32
  OwnedSegments owned = {};   // of a kind that has segments
  OwnedRows owned_rows = {};  // of kEmbedding and kHead
};

// SegmentBorders() of the owned segments, the first at 0; those that are not
// owned are empty, and behind.
std::array<int64_t, kSegments + 1> OwnedBorders(const OwnedSegments& owned,
                                                int64_t cols, int64_t unit);

// A matrix as Pack is going to be given it; its parts need no data.
struct MatrixShape {
  std::string name;  // of its first tensor, for messages
  std::vector<RawMatrix> parts;
  PackSpec spec;
};

struct KvSpec {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_count = 0;
};

// What the backend's own scratch is sized for.
struct ScratchSpec {
  int32_t max_tokens = 0;   // of a step
  int64_t hidden = 0;       // D
  int64_t qkv_rows = 0;     // (H + 2 G) d
  int64_t widest = 0;       // the most columns of a layer's matrix
  int32_t heads = 0;        // H
  int32_t logits_rows = 0;  // sampled at once; 0 where nothing is
  int64_t vocabulary = 0;   // V
};

// What a step's phases have in common: the spans that their arguments repeat.
struct StepInputs {
  std::span<const int32_t> ids;
  std::span<const int64_t> slots;
  std::span<const AttentionRow> rows;
  View<const float> cos;
  View<const float> sin;
};

// Memory for arguments of phases.
class Arena {
 public:
  virtual ~Arena() = default;
  std::byte* data = nullptr;
  size_t bytes = 0;  // as allocated
};

// What rows are rounded to before they meet a matrix.
enum class ActivationType {
  kFp32,  // nothing
  kBf16,  // bf16, where the matrix is of bf16
  kInt8,  // groups of bytes with a scale, where the matrix is of blocks
  // A row's codes of e4m3 with its scale (worker/tensor/fp8.h) where the matrix
  // is of fp8, else as kBf16.
  kFp8,
};

// "fp32", "bf16", "int8", "fp8".
inline constexpr std::string_view Name(ActivationType type) {
  switch (type) {
    case ActivationType::kFp32:
      return "fp32";
    case ActivationType::kBf16:
      return "bf16";
    case ActivationType::kInt8:
      return "int8";
    case ActivationType::kFp8:
      return "fp8";
  }
  return "unknown";
}

// Types of a class of numerics beside the weights'.
struct NumericsOptions {
  ActivationType activations = ActivationType::kFp32;
  DType kv = DType::kFp32;
};

// Phases run to completion before they return (a device may return earlier and
// order them by a stream; Sample then waits). Not thread-safe: one caller at a
// time. Fallible where a device can fail; a failure is sticky.
class Backend {
 public:
  virtual ~Backend() = default;

  // Such as "cpu-avx512/w:bf16/a:fp32/kv:fp32/v1"; `weights` are the types of
  // the matrices.
  virtual std::string NumericsClass(WeightTypes weights) const = 0;

  // Bytes that Pack and AllocateKv will allocate: what `caravan plan` prints.
  virtual size_t PackedBytes(std::span<const RawMatrix> parts,
                             const PackSpec& spec) const = 0;
  virtual size_t KvBytes(const KvSpec& spec) const = 0;
  // Bytes of scratch that ReserveScratch allocates.
  virtual size_t ScratchBytes(const ScratchSpec& spec) const = 0;
  // Allocates the scratch once, so that no step has to. Lists of a few words
  // per row are not counted.
  virtual absl::Status ReserveScratch(const ScratchSpec& spec) = 0;
  // Bytes of scratch as allocated.
  virtual size_t scratch_bytes() const = 0;

  // Memory that phases reach fastest, for the views of their arguments; zero at
  // first. A backend that computes elsewhere than on the host takes views of
  // host memory too, and copies. By default host memory.
  virtual absl::StatusOr<std::unique_ptr<Arena>> AllocateArena(size_t bytes);
  // What AllocateArena(bytes) takes.
  virtual size_t ArenaBytes(size_t bytes) const;
  // Bytes that Pack, AllocateKv and the others can still take of memory that is
  // not the host's; nothing where all they take is.
  virtual absl::StatusOr<std::optional<size_t>> FreeBytes() const;
  // Whether the caller may read and write what AllocateArena gives.
  virtual bool ArenasAreHostMemory() const { return true; }

  // Promises that these floats, which phases will be given as norms and
  // biases, stay as and where they are while the backend exists, so that it
  // can keep a copy of its own.
  virtual absl::Status Keep(std::span<const float> vector);

  // Between these two, phases that are given one of the step's spans or views
  // (the same address and size) find it unchanged: it is copied once for all
  // layers. Optional.
  virtual absl::Status BeginStep(const StepInputs& inputs);
  virtual void EndStep() {}

  // Whether Embed looks rows up in a matrix packed as kHead too: tied
  // embeddings then need one copy instead of two.
  virtual bool CanEmbedFromHead() const { return false; }

  // Maps memory at once for matrices that Pack is going to make. Optional:
  // without it each has memory of its own, rounded up to pages. By default
  // nothing. kMemoryPlan when the system refuses.
  virtual absl::Status ReservePacked(std::span<const MatrixShape> matrices);

  // Packs parts with equal cols, rows concatenated in order (kGateUp: two parts
  // of equal rows, in any interleaving of the backend's choice). Types without
  // a kernel of their own, and parts of different ones, are widened to the
  // nearest that loses nothing. The sources may be dropped afterwards.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) = 0;
  virtual absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) = 0;

  virtual absl::Status Embed(const EmbedArgs& args) = 0;
  virtual absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args) = 0;
  virtual absl::Status Attend(const AttendArgs& args) = 0;
  virtual absl::Status ProjectAdd(const ProjectAddArgs& args) = 0;
  virtual absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args) = 0;
  virtual absl::Status DownAdd(const DownAddArgs& args) = 0;
  virtual absl::Status NormHead(const NormHeadArgs& args) = 0;
  virtual absl::Status Sample(const SampleArgs& args) = 0;
  virtual absl::Status CopyBlocks(const CopyBlocksArgs& args) = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_BACKEND_H_
