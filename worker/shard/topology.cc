#include "worker/shard/topology.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

absl::Status NoList(std::string_view list) {
  return FieldError("list of cores", "such as 0-3,8", list);
}

// "3" or "0-3", all of it.
absl::Status AddRange(std::string_view text, std::string_view list,
                      Cores& cores) {
  const char* const end = text.data() + text.size();
  int first = 0;
  std::from_chars_result read = std::from_chars(text.data(), end, first);
  int last = first;
  if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-') {
    read = std::from_chars(read.ptr + 1, end, last);
  }
  if (read.ec != std::errc() || read.ptr != end || first < 0 || last < first ||
      last >= CPU_SETSIZE) {
    return NoList(list);
  }
  for (int core = first; core <= last; ++core) cores.push_back(core);
  return absl::OkStatus();
}

// Both ascending.
Cores Common(const Cores& a, const Cores& b) {
  Cores common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(),
                        std::back_inserter(common));
  return common;
}

// Part `index` of `count`, at least one core; parts overlap where there are
// fewer cores.
Cores Part(const Cores& cores, size_t index, size_t count) {
  const size_t begin = index * cores.size() / count;
  const size_t end = std::max(begin + 1, (index + 1) * cores.size() / count);
  return {cores.begin() + static_cast<std::ptrdiff_t>(begin),
          cores.begin() + static_cast<std::ptrdiff_t>(end)};
}

}  // namespace

absl::StatusOr<Cores> ParseCores(std::string_view list) {
  Cores cores;
  std::string_view rest = list;
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    CARAVAN_RETURN_IF_ERROR(AddRange(rest.substr(0, comma), list, cores));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  return cores;
}

Cores AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  Cores cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

std::vector<Cores> NumaNodes(const Cores& allowed,
                             const std::string& directory) {
  std::vector<Cores> nodes;
  std::ifstream online(directory + "/online");
  std::string numbers;
  online >> numbers;
  for (const int node : ParseCores(numbers).value_or(Cores())) {
    std::ifstream file(StrCat(directory, "/node", node, "/cpulist"));
    std::string list;
    file >> list;
    Cores cores = Common(allowed, ParseCores(list).value_or(Cores()));
    if (!cores.empty()) nodes.push_back(std::move(cores));
  }
  if (nodes.empty()) nodes.push_back(allowed);
  return nodes;
}

std::vector<Cores> CoresOfRanks(const std::vector<Cores>& nodes, int ranks,
                                bool pin) {
  std::vector<Cores> all(static_cast<size_t>(ranks));
  if (nodes.size() == 1 && !pin) return all;
  const size_t count = all.size();
  for (size_t rank = 0; rank < count; ++rank) {
    const size_t node = rank * nodes.size() / count;
    // Ranks of a node: those that the division gives it.
    const size_t first = (node * count + nodes.size() - 1) / nodes.size();
    const size_t end = ((node + 1) * count + nodes.size() - 1) / nodes.size();
    if (nodes[node].empty()) continue;
    all[rank] =
        pin ? Part(nodes[node], rank - first, end - first) : nodes[node];
  }
  return all;
}

void BindThread(const Cores& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(static_cast<size_t>(core), &set);
  sched_setaffinity(0, sizeof(set), &set);
}

}  // namespace caravan::worker
