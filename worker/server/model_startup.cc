#include "worker/server/model_startup.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/hashing.h"
#include "worker/model/layout.h"
#include "worker/model/model_digest.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/numerics.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/ops/self_test.h"
#include "worker/server/memory_budget.h"
#include "worker/server/model_identity.h"
#include "worker/shard/null_runner.h"
#include "worker/shard/rank_backend.h"
#include "worker/shard/shard_runner.h"
#include "worker/shard/topology.h"

namespace caravan::worker {
namespace {

// What a worker that computes nothing says of how it computes.
constexpr std::string_view kNullClass = "null/v1";

int ThreadCount(const WorkerOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()),
                    options.ranks, 256);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeRanks(
    const WorkerOptions& options, const NumericsOptions& numerics) {
  RankOptions ranks;
  ranks.ranks = options.ranks;
  ranks.threads = ThreadCount(options);
  ranks.pin = options.pin;
  ranks.numerics = numerics;
  ranks.nodes = NumaNodes(AllowedCores());
  ranks.make_rank = [numerics, reference = options.device == "reference"](
                        int threads, bool pin) {
    return reference
               ? MakeReferenceBackend(numerics)
               : MakeCpuBackend(
                     {.numerics = numerics, .threads = threads, .pin = pin});
  };
  return RankBackend::Create(ranks);
}

absl::StatusOr<CudaOptions> CudaOptionsOf(const WorkerOptions& options,
                                          const NumericsOptions& numerics) {
  CudaOptions cuda;
  cuda.numerics = numerics;
  cuda.ranks = options.ranks;
  cuda.graphs = options.cuda_graphs;
  cuda.early_starts = options.early_starts;
  cuda.library_check_tokens = options.library_check_tokens;
  cuda.gemm_algorithms = options.gemm_algorithms;
  if (options.profile == "fast") cuda.profile = CudaProfile::kFast;
  CARAVAN_ASSIGN_OR_RETURN(cuda.tensor_cores,
                           ParseTensorCores(options.tensor_cores));
  return cuda;
}

// A device for each rank, and a thread that launches.
absl::StatusOr<std::unique_ptr<Backend>> MakeRanksOnDevices(
    const WorkerOptions& options, const CudaOptions& cuda) {
  CARAVAN_ASSIGN_OR_RETURN(const CudaPeers peers,
                           ParseCudaPeers(options.peers));
  CARAVAN_ASSIGN_OR_RETURN(CudaRanks made, MakeCudaRanks(cuda, peers));
  RankOptions ranks;
  ranks.ranks = options.ranks;
  ranks.threads = options.ranks;
  ranks.numerics = cuda.numerics;
  ranks.nodes = {AllowedCores()};
  ranks.make_rank = [&made, next = size_t{0}](int, bool) mutable {
    return std::move(made.backends[next++]);
  };
  ranks.give_up = made.give_up;
  return RankBackend::Create(ranks);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(
    const WorkerOptions& options, WeightTypes weights) {
  CARAVAN_ASSIGN_OR_RETURN(
      const NumericsOptions numerics,
      ParseNumerics(options.activations, options.kv, weights));
  if (options.device == "cuda") {
    CARAVAN_ASSIGN_OR_RETURN(const CudaOptions cuda,
                             CudaOptionsOf(options, numerics));
    return options.ranks > 1 ? MakeRanksOnDevices(options, cuda)
                             : MakeCudaBackend(cuda);
  }
  if (options.ranks > 1) return MakeRanks(options, numerics);
  if (options.device == "reference") return MakeReferenceBackend(numerics);
  return MakeCpuBackend({.numerics = numerics,
                         .threads = ThreadCount(options),
                         .pin = options.pin});
}

ModelOptions ModelOptionsOf(const WorkerOptions& options,
                            const LoadProgress& progress) {
  ModelOptions model;
  model.overrides = options.overrides;
  model.use_generation_config = options.generation_config == "auto";
  model.weights = options.weights;
  model.threads = ThreadCount(options);
  model.memory.max_step_tokens = options.max_step_tokens;
  model.stage = options.stage;
  model.progress = progress;
  return model;
}

// With a worker that computes nothing there is nothing to allocate.
void PlanNothing(MemoryPlan& plan) {
  plan.weight_bytes = 0;
  plan.arena_bytes = 0;
  plan.scratch_bytes = 0;
}

absl::Status PlanMemory(const WorkerOptions& options, ServedModel& model) {
  const ModelDescription& description = model.description;
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<size_t> device_bytes,
                           model.backend->FreeBytes());
  KvRequest request{.blocks = options.kv_blocks,
                    .memory_bytes = options.kv_memory_bytes,
                    .max_running = options.max_running,
                    .available_bytes = device_bytes
                                           ? static_cast<int64_t>(*device_bytes)
                                           : AvailableMemoryBytes()};
  CARAVAN_ASSIGN_OR_RETURN(model.block_count,
                           DecideKvBlocks(request, description.config,
                                          description.plan, *model.backend));
  const MemoryPlan& plan = description.plan;
  model.planned.set_weight_bytes(static_cast<int64_t>(plan.weight_bytes));
  model.planned.set_arena_bytes(
      static_cast<int64_t>(plan.arena_bytes + plan.scratch_bytes));
  if (!options.null_model) {
    model.planned.set_kv_bytes(static_cast<int64_t>(model.backend->KvBytes(
        KvSpecOf(description.config, model.block_count))));
  }
  LogInfo("memory_plan",
          {{"checkpoint", description.checkpoint},
           {"weights", options.weights},
           {"matrices", Name(description.weight_types)},
           {"widened_to_fp32",
            Name(WidenedTypes(*model.backend, description.weight_types))},
           {"weight_bytes", model.planned.weight_bytes()},
           {"arena_bytes", model.planned.arena_bytes()},
           {"kv_bytes", model.planned.kv_bytes()},
           {"kv_blocks", model.block_count},
           {"ranks", options.ranks},
           {"available_bytes", request.available_bytes}});
  return absl::OkStatus();
}

// Null where there is one.
RankBackend* RanksOf(const WorkerOptions& options, const ServedModel& model) {
  return options.ranks == 1 ? nullptr
                            : static_cast<RankBackend*>(model.backend.get());
}

absl::Status CheckRanks(const WorkerOptions& options,
                        const ServedModel& model) {
  const RankBackend* const ranks = RanksOf(options, model);
  if (ranks == nullptr) return absl::OkStatus();
  return ranks->CheckModel(model.description.config.kv_heads,
                           model.description.matrices);
}

void PlanRanks(const WorkerOptions& options, ServedModel& model) {
  const RankBackend* const ranks = RanksOf(options, model);
  if (ranks == nullptr || options.null_model) return;
  const ModelDescription& description = model.description;
  for (int rank = 0; rank < ranks->ranks(); ++rank) {
    model.planned_ranks.push_back(ranks->Planned(
        rank, description.matrices,
        KvSpecOf(description.config, model.block_count),
        ScratchSpecOf(description.config, options.max_step_tokens,
                      MemoryPlanOptions().max_logits_rows)));
  }
}

void CountRanks(const WorkerOptions& options, ServedModel& model) {
  const RankBackend* const ranks = RanksOf(options, model);
  if (ranks == nullptr) return;
  for (int rank = 0; rank < ranks->ranks(); ++rank) {
    model.allocated_ranks.push_back(ranks->Allocated(rank));
  }
}

absl::Status MakeShard(const WorkerOptions& options, ServedModel& model) {
  CARAVAN_ASSIGN_OR_RETURN(
      model.shard, Shard::Create(model.loaded.get(), model.backend.get(),
                                 {.block_count = model.block_count,
                                  .max_step_tokens = options.max_step_tokens}));
  model.allocated.set_kv_bytes(static_cast<int64_t>(model.shard->kv_bytes()));
  model.allocated.set_arena_bytes(static_cast<int64_t>(
      model.shard->arena_bytes() + model.backend->scratch_bytes()));
  return absl::OkStatus();
}

absl::Status LoadAndRun(const WorkerOptions& options,
                        const ModelOptions& model_options, ServedModel& model) {
  CARAVAN_ASSIGN_OR_RETURN(
      model.loaded,
      LoadModel(options.model_directory, model_options, model.backend.get()));
  model.allocated.set_weight_bytes(
      static_cast<int64_t>(model.loaded->weights.bytes));
  if (!options.stage.whole()) return MakeShard(options, model);
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<ShardRunner> runner,
      ShardRunner::Create(model.loaded.get(), model.backend.get(),
                          {.block_count = model.block_count,
                           .max_step_tokens = options.max_step_tokens,
                           .max_in_flight = options.EffectiveDepth()}));
  model.allocated.set_kv_bytes(static_cast<int64_t>(runner->kv_bytes()));
  model.allocated.set_arena_bytes(static_cast<int64_t>(
      runner->arena_bytes() + model.backend->scratch_bytes()));
  model.runner = std::move(runner);
  return absl::OkStatus();
}

// Which computation this is: class and result bits of the self-test. Before
// the runner has the backend for itself.
absl::Status IdentifyComputation(const WorkerOptions& options,
                                 ServedModel& model) {
  const WeightTypes types = model.description.weight_types;
  // Ranks are alike, and the small model of the self-test is not shared out.
  RankBackend* const ranks = RanksOf(options, model);
  Backend* const backend =
      ranks == nullptr ? model.backend.get() : &ranks->rank(0);
  model.numerics_class = model.backend->NumericsClass(types);
  CARAVAN_ASSIGN_OR_RETURN(model.fingerprint, RunSelfTest(backend, types));
  return absl::OkStatus();
}

// Streams of a worker that computes nothing continue on no other.
absl::Status RunNothing(ServedModel& model) {
  model.runner =
      std::make_unique<NullRunner>(model.description.config.vocab_size);
  model.numerics_class = kNullClass;
  CARAVAN_ASSIGN_OR_RETURN(model.fingerprint,
                           BytesFromHex(Sha256Hex(kNullClass)));
  return absl::OkStatus();
}

absl::Status Identify(const WorkerOptions& options,
                      const std::string& weights_id, int32_t block_count,
                      ServedModel& model) {
  ModelInfoParts parts;
  parts.name = options.served_model_name;
  parts.weights_id = weights_id;
  parts.numerics_class = model.numerics_class;
  parts.fingerprint = model.fingerprint;
  parts.block_count = block_count;
  parts.max_running = options.max_running;
  parts.created = absl::Now();
  CARAVAN_ASSIGN_OR_RETURN(model.info, MakeModelInfo(model.description, parts));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> StartModel(
    const WorkerOptions& options, const LoadProgress& progress) {
  const ModelOptions model_options = ModelOptionsOf(options, progress);
  auto model = std::make_unique<ServedModel>();
  CARAVAN_ASSIGN_OR_RETURN(
      const WeightTypes weights,
      ReadWeightTypes(options.model_directory, model_options));
  CARAVAN_ASSIGN_OR_RETURN(model->backend, MakeBackend(options, weights));
  CARAVAN_ASSIGN_OR_RETURN(
      model->description,
      DescribeModel(options.model_directory, model_options, *model->backend));
  CARAVAN_RETURN_IF_ERROR(CheckRanks(options, *model));
  if (options.stage.first()) {
    CARAVAN_RETURN_IF_ERROR(CheckTokenizer(model->description));
  }
  if (options.null_model) PlanNothing(model->description.plan);
  CARAVAN_RETURN_IF_ERROR(PlanMemory(options, *model));
  PlanRanks(options, *model);
  if (options.null_model) {
    CARAVAN_RETURN_IF_ERROR(RunNothing(*model));
  } else {
    CARAVAN_RETURN_IF_ERROR(IdentifyComputation(options, *model));
    CARAVAN_RETURN_IF_ERROR(LoadAndRun(options, model_options, *model));
    CountRanks(options, *model);
    // What a fast profile has measured while it loaded is part of its class;
    // stages, which measure apart, are told by what they began with.
    if (options.stage.whole()) {
      model->numerics_class =
          model->backend->NumericsClass(model->description.weight_types);
    }
  }
  if (!options.stage.whole()) return model;
  const std::string weights_id = model->loaded != nullptr
                                     ? model->loaded->weights.id
                                     : Sha256Hex(kNullClass);
  CARAVAN_RETURN_IF_ERROR(
      Identify(options, weights_id, model->block_count, *model));
  return model;
}

absl::StatusOr<StageFacts> StageFactsOf(const WorkerOptions& options,
                                        const ServedModel& model,
                                        const std::string& worker_id) {
  StageFacts facts;
  facts.worker_id = worker_id;
  facts.config = model.description.config;
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           CheckpointTensors::Open(options.model_directory));
  CARAVAN_ASSIGN_OR_RETURN(
      facts.model_digest, BytesFromHex(ModelDigest(facts.config, *checkpoint)));
  facts.numerics_class = model.numerics_class;
  facts.fingerprint = model.fingerprint;
  facts.tensor_listing = model.loaded->weights.listing.Listing();
  facts.block_count = model.block_count;
  facts.max_step_tokens = options.max_step_tokens;
  return facts;
}

absl::Status IdentifyReplica(const WorkerOptions& options,
                             const ReplicaFacts& replica, ServedModel* model) {
  CARAVAN_RETURN_IF_ERROR(
      Identify(options, replica.weights_id, replica.block_count, *model));
  ModelConfig whole = model->description.config;
  whole.stage = Stage();
  int64_t parameters = 0;
  for (const TensorSpec& tensor : AllTensors(MakeLayout(whole))) {
    parameters += tensor.elements();
  }
  model->info.set_parameter_count(parameters);
  return absl::OkStatus();
}

EngineOptions EngineOptionsOf(const WorkerOptions& options,
                              const ServedModel& model) {
  EngineOptions engine;
  engine.block_count = model.info.block_count();
  engine.max_running = options.max_running;
  engine.max_step_tokens = options.max_step_tokens;
  engine.max_prefill_chunk = options.max_prefill_chunk;
  engine.max_prefill_tokens = options.max_prefill_tokens;
  engine.max_waiting = options.max_waiting;
  engine.context_length = model.info.context_length();
  engine.depth = options.EffectiveDepth();
  engine.micro_batches = options.stage.count;
  engine.prefix_cache = options.prefix_cache;
  engine.unscaled_context_length = model.info.unscaled_context_length();
  engine.weights_id = model.info.identity().weights_id();
  engine.numerics_class = model.info.identity().numerics_class();
  engine.fingerprint = model.info.identity().fingerprint();
  return engine;
}

}  // namespace caravan::worker
