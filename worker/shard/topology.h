// Which cores the ranks of a stage compute on.
#ifndef CARAVAN_WORKER_SHARD_TOPOLOGY_H_
#define CARAVAN_WORKER_SHARD_TOPOLOGY_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker {

// Numbers of cores, ascending.
using Cores = std::vector<int>;

// A list as the kernel writes it, such as "0-3,8,10-11". kInvalidField where it
// is none.
absl::StatusOr<Cores> ParseCores(std::string_view list);

// Cores of this process.
Cores AllowedCores();

// The cores of `allowed` on each NUMA node that has some, in the order of the
// nodes; all on one node where `directory` does not say.
std::vector<Cores> NumaNodes(
    const Cores& allowed,
    const std::string& directory = "/sys/devices/system/node");

// Where each of `ranks` ranks computes: ranks are dealt out to the nodes in
// order. Pinned ranks share a node's cores out among them; others may use all
// cores of their node. Empty lists: anywhere, which is all that one node needs.
std::vector<Cores> CoresOfRanks(const std::vector<Cores>& nodes, int ranks,
                                bool pin);

// Binds the calling thread, and the threads that it will start, to these cores;
// to nothing where there are none. What the system refuses is left out: it
// costs speed only.
void BindThread(const Cores& cores);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_TOPOLOGY_H_
