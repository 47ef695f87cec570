// caravan plan: what a model takes, before anything is taken.
#include <unistd.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/table.h"
#include "worker/model/memory_plan.h"
#include "worker/model/model_loader.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/numerics.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/shard/rank_backend.h"
#include "worker/shard/topology.h"

namespace caravan::cli {
namespace {

struct PlanOptions {
  std::string directory;
  std::string device = "auto";
  std::string profile = "exact";
  std::string activations = "auto";
  std::string kv = "auto";
  std::vector<std::string> overrides;
  std::string weights = "keep";
  worker::MemoryPlanOptions memory;
  int ranks = 1;
  int32_t stages = 1;
  double memory_gib = 0;  // 0: this machine's
};

constexpr int32_t kBlockTokens = 16;

absl::Status CheckProfile(const PlanOptions& options) {
  if (options.profile != "exact" && options.profile != "fast") {
    return FieldError("--profile", "exact or fast", options.profile);
  }
  if (options.profile == "fast" && options.device != "cuda") {
    return UnsupportedError("--profile=fast", "it needs --device cuda");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<worker::Backend>> MakeBackend(
    const PlanOptions& options, const worker::NumericsOptions& numerics) {
  const std::string& device = options.device;
  CARAVAN_RETURN_IF_ERROR(CheckProfile(options));
  if (device == "reference") return worker::MakeReferenceBackend(numerics);
  if (device == "auto" || device == "cpu") {
    return worker::MakeCpuBackend({.numerics = numerics});
  }
  if (device == "cuda") {  // a plan needs no device
    worker::CudaOptions cuda;
    cuda.numerics = numerics;
    cuda.ranks = options.ranks;
    if (options.profile == "fast") cuda.profile = worker::CudaProfile::kFast;
    return worker::MakeCudaPlanner(cuda);
  }
  return FieldError("--device", "auto, cpu, reference or cuda", device);
}

// Null where there is one.
const worker::RankBackend* RanksOf(const PlanOptions& options,
                                   const worker::Backend& backend) {
  return options.ranks == 1 ? nullptr
                            : static_cast<const worker::RankBackend*>(&backend);
}

absl::StatusOr<std::unique_ptr<worker::Backend>> MakeRanks(
    const PlanOptions& options, const worker::NumericsOptions& numerics) {
  if (options.ranks == 1) return MakeBackend(options, numerics);
  worker::RankOptions ranks;
  ranks.ranks = options.ranks;
  ranks.threads = options.ranks;
  ranks.numerics = numerics;
  ranks.nodes = {worker::AllowedCores()};
  ranks.make_rank = [&](int, bool) { return MakeBackend(options, numerics); };
  return worker::RankBackend::Create(ranks);
}

std::string Rounded(double value, const char* unit) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(3) << value << " " << unit;
  return text.str();
}

std::string Gigabytes(size_t bytes) {
  return Rounded(static_cast<double>(bytes) / 1e9, "GB");
}

std::string Gibibytes(size_t bytes) {
  return Rounded(static_cast<double>(bytes) / (1u << 30), "GiB");
}

size_t MachineBytes() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

void AddBytesRow(Table& table, const std::string& name, size_t bytes) {
  table.AddRow(
      {name, "", "", StrCat(bytes), Gigabytes(bytes), Gibibytes(bytes)});
}

void PrintBytes(const worker::MemoryPlan& plan) {
  Table table({"", "parameters", "in the checkpoint", "bytes", "", ""});
  for (const worker::GroupPlan& group : plan.groups) {
    table.AddRow({std::string(worker::Name(group.group)),
                  StrCat(group.parameters), StrCat(group.checkpoint_bytes),
                  StrCat(group.packed_bytes), Gigabytes(group.packed_bytes),
                  Gibibytes(group.packed_bytes)});
  }
  table.AddRow({"weights", StrCat(plan.parameters),
                StrCat(plan.checkpoint_bytes), StrCat(plan.weight_bytes),
                Gigabytes(plan.weight_bytes), Gibibytes(plan.weight_bytes)});
  AddBytesRow(table, "arenas", plan.arena_bytes);
  AddBytesRow(table, "scratch", plan.scratch_bytes);
  AddBytesRow(table, "without KV", plan.fixed_bytes());
  std::cout << table.ToString();
}

// What is each rank's own, with `blocks` of KV.
void PrintRanks(const PlanOptions& options,
                const worker::ModelDescription& model,
                const worker::RankBackend& backend, int32_t blocks) {
  const worker::ScratchSpec scratch =
      worker::ScratchSpecOf(model.config, options.memory.max_step_tokens,
                            options.memory.max_logits_rows);
  std::cout << "Each of " << options.ranks << " ranks: "
            << model.plan.kv_bytes_per_token /
                   static_cast<size_t>(options.ranks)
            << " bytes of KV per token\n";
  Table table({"", "weights", "scratch", "KV", "", ""});
  for (int rank = 0; rank < options.ranks; ++rank) {
    const worker::RankMemory own = backend.Planned(
        rank, model.matrices, worker::KvSpecOf(model.config, blocks), scratch);
    const size_t bytes = own.weight_bytes + own.scratch_bytes + own.kv_bytes;
    table.AddRow({StrCat("rank ", rank), StrCat(own.weight_bytes),
                  StrCat(own.scratch_bytes), StrCat(own.kv_bytes),
                  Gigabytes(bytes), Gibibytes(bytes)});
  }
  std::cout << table.ToString();
}

// Returns the blocks that fit.
int32_t PrintFit(const PlanOptions& options,
                 const worker::ModelDescription& model,
                 const worker::Backend& backend) {
  const worker::MemoryPlan& plan = model.plan;
  const size_t memory =
      options.memory_gib > 0
          ? static_cast<size_t>(options.memory_gib * (1u << 30))
          : MachineBytes();
  std::cout << "KV cache: " << plan.kv_bytes_per_token << " bytes per token, "
            << plan.kv_block_bytes << " per block of " << kBlockTokens
            << " tokens\n";
  const size_t left =
      memory > plan.fixed_bytes() ? memory - plan.fixed_bytes() : 0;
  const int32_t blocks = worker::BlocksThatFit(
      model.config, backend, left, std::numeric_limits<int32_t>::max() / 16);
  std::cout << "In " << Gibibytes(memory) << ": " << blocks << " blocks, "
            << static_cast<int64_t>(blocks) * kBlockTokens << " tokens ("
            << static_cast<int64_t>(blocks) * kBlockTokens /
                   std::max(1, model.config.context_length())
            << " full contexts of " << model.config.context_length() << ")\n";
  return blocks;
}

// Returns the KV blocks that fit.
absl::StatusOr<int32_t> PrintStage(const PlanOptions& options,
                                   const worker::ModelOptions& model_options,
                                   const worker::Backend& backend) {
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::ModelDescription model,
      worker::DescribeModel(options.directory, model_options, backend));
  const worker::RankBackend* const ranks = RanksOf(options, backend);
  if (ranks != nullptr) {
    CARAVAN_RETURN_IF_ERROR(
        ranks->CheckModel(model.config.kv_heads, model.matrices));
  }
  const worker::Stage& stage = model.config.stage;
  if (!stage.whole()) {
    const worker::LayerRange layers = model.config.stage_layers();
    std::cout << (stage.first() ? "" : "\n") << "stage " << stage.index << "/"
              << stage.count << ": layers [" << layers.begin << ", "
              << layers.end << ")\n";
  }
  std::cout << model.directory << ": " << model.plan.parameters
            << " parameters, " << model.config.layers << " layers, class "
            << backend.NumericsClass(model.weight_types) << "\n";
  PrintBytes(model.plan);
  const int32_t blocks = PrintFit(options, model, backend);
  if (ranks != nullptr) PrintRanks(options, model, *ranks, blocks);
  return blocks;
}

absl::Status RunPlan(const PlanOptions& options) {
  worker::ModelOptions model_options;
  model_options.overrides = options.overrides;
  model_options.memory = options.memory;
  model_options.weights = options.weights;
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::WeightTypes weights,
      worker::ReadWeightTypes(options.directory, model_options));
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::NumericsOptions numerics,
      worker::ParseNumerics(options.activations, options.kv, weights));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<worker::Backend> backend,
                           MakeRanks(options, numerics));
  int32_t least = std::numeric_limits<int32_t>::max();
  for (int32_t i = 0; i < options.stages; ++i) {
    model_options.stage = {i, options.stages};
    CARAVAN_ASSIGN_OR_RETURN(const int32_t blocks,
                             PrintStage(options, model_options, *backend));
    least = std::min(least, blocks);
  }
  if (options.stages > 1) {
    std::cout << "\nThe replica has the blocks of the stage with the fewest: "
              << least << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

Command AddPlan(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "plan", "What a model takes in memory; config.json is enough");
  const auto options = std::make_shared<PlanOptions>();
  app->add_option("DIR", options->directory, "Model directory")->required();
  app->add_option("--device", options->device, "auto, cpu, reference or cuda");
  app->add_option("--profile", options->profile, "exact, or on cuda fast");
  app->add_option("--activations", options->activations, "As the worker's");
  app->add_option("--kv", options->kv, "As the worker's");
  app->add_option("--override", options->overrides, "KEY=JSON of config.json")
      ->allow_extra_args(false);
  app->add_option("--weights", options->weights,
                  "As the worker's flag: keep, bf16, fp8, q8_0 or q4_0");
  app->add_option("--max-step-tokens", options->memory.max_step_tokens,
                  "As the worker's flag")
      ->check(CLI::Range(1, 65536));
  app->add_option("--ranks", options->ranks, "As the worker's flag");
  app->add_option("--stages", options->stages,
                  "Workers of a replica; each stage is planned")
      ->check(CLI::Range(1, 1024));
  app->add_option("--memory-gib", options->memory_gib,
                  "Memory to fill (default: this machine's)")
      ->check(CLI::PositiveNumber);
  return {app, [options] { return RunPlan(*options); }};
}

}  // namespace caravan::cli
