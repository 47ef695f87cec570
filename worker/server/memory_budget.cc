#include "worker/server/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

// More than any cache has; twice as many are still a block id.
constexpr int32_t kMostBlocks = 1 << 30;

absl::Status DoesNotFit(int64_t needed, int64_t available,
                        std::string_view what) {
  return MakeError(Reason::kMemoryPlan,
                   StrCat(what, " must fit ", available,
                          " available bytes; they need ", needed),
                   {{"needed_bytes", StrCat(needed)},
                    {"available_bytes", StrCat(available)}});
}

// Blocks with which `max_running` sequences reach the end of the context.
int32_t UsefulBlocks(const ModelConfig& config, int32_t max_running) {
  const int64_t per_sequence =
      (config.context_length() + kv::kBlockTokens - 1) / kv::kBlockTokens;
  return static_cast<int32_t>(
      std::min<int64_t>(per_sequence * max_running, kMostBlocks));
}

absl::StatusOr<int32_t> Choose(const KvRequest& request,
                               const ModelConfig& config, int64_t left,
                               const Backend& backend) {
  const int32_t useful = UsefulBlocks(config, request.max_running);
  if (request.blocks > 0) return static_cast<int32_t>(request.blocks);
  const int64_t bytes =
      request.memory_bytes > 0 ? request.memory_bytes : left / 2;
  const int32_t most = request.memory_bytes > 0 ? kMostBlocks : useful;
  const int32_t blocks =
      BlocksThatFit(config, backend, static_cast<size_t>(bytes), most);
  if (blocks > 0) return blocks;
  const auto one = backend.KvBytes(KvSpecOf(config, /*block_count=*/1));
  return DoesNotFit(static_cast<int64_t>(one), bytes, "KV blocks");
}

// The number in `path`; the greatest where there is none ("max", no file).
int64_t ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : std::numeric_limits<int64_t>::max();
}

// The number behind `key` in a file of lines "KEY NUMBER ..."; nothing where
// there is none.
std::optional<int64_t> FindNumber(const std::string& path,
                                  std::string_view key) {
  std::ifstream file(path);
  std::string name;
  int64_t value = 0;
  std::string rest;
  while (file >> name >> value && std::getline(file, rest)) {
    if (name == key) return value;
  }
  return std::nullopt;
}

int64_t MachineAvailableBytes() {
  const auto kib = FindNumber("/proc/meminfo", "MemAvailable:");
  return kib.has_value() ? *kib * 1024 : std::numeric_limits<int64_t>::max();
}

}  // namespace

absl::StatusOr<int32_t> DecideKvBlocks(const KvRequest& request,
                                       const ModelConfig& config,
                                       const MemoryPlan& plan,
                                       const Backend& backend) {
  const auto fixed = static_cast<int64_t>(plan.fixed_bytes());
  const int64_t left = request.available_bytes - fixed;
  if (left <= 0) {
    return DoesNotFit(fixed, request.available_bytes, "weights and arenas");
  }
  CARAVAN_ASSIGN_OR_RETURN(const int32_t blocks,
                           Choose(request, config, left, backend));
  const auto kv =
      static_cast<int64_t>(backend.KvBytes(KvSpecOf(config, blocks)));
  if (kv > left) {
    return DoesNotFit(fixed + kv, request.available_bytes,
                      "weights, arenas and KV blocks");
  }
  return blocks;
}

int64_t AvailableMemoryBytes() {
  const std::string group = "/sys/fs/cgroup/memory.";
  int64_t available = MachineAvailableBytes();
  const int64_t limit = ReadNumber(group + "max");
  if (limit == std::numeric_limits<int64_t>::max()) return available;
  // Pages of files, such as a checkpoint's, can be taken back.
  const int64_t used = ReadNumber(group + "current") -
                       FindNumber(group + "stat", "file").value_or(0);
  return std::min(available, std::max<int64_t>(0, limit - used));
}

}  // namespace caravan::worker
