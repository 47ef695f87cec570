// From a name with a port to every address behind it.
#ifndef CARAVAN_WORKER_SERVER_ADDRESS_RESOLVER_H_
#define CARAVAN_WORKER_SERVER_ADDRESS_RESOLVER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker {

// Host and port of "HOST:PORT" or "[IPV6]:PORT". Error: kInvalidField.
absl::StatusOr<std::pair<std::string, std::string>> SplitHostPort(
    const std::string& address);

// IP:PORT of every address of HOST:PORT, sorted, each once. Of a host that has
// addresses of both families those of IPv4 are taken, so that one process is
// not met twice. May wait for a name server. Errors: kInvalidField,
// kRouterUnavailable when the name has no address now.
absl::StatusOr<std::vector<std::string>> ResolveAddresses(
    const std::string& address);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_ADDRESS_RESOLVER_H_
