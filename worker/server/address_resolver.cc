#include "worker/server/address_resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

bool IsPort(std::string_view text) {
  int port = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port > 0 &&
         port < 65536;
}

std::string NumericHost(const addrinfo& entry) {
  char host[NI_MAXHOST] = {};
  if (getnameinfo(entry.ai_addr, entry.ai_addrlen, host, sizeof(host), nullptr,
                  0, NI_NUMERICHOST) != 0) {
    return "";
  }
  return host;
}

std::vector<std::string> AddressesOf(const addrinfo* list, int family,
                                     const std::string& port) {
  std::vector<std::string> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != family) continue;
    const std::string host = NumericHost(*entry);
    if (host.empty()) continue;
    addresses.push_back(family == AF_INET6 ? StrCat("[", host, "]:", port)
                                           : StrCat(host, ":", port));
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()),
                  addresses.end());
  return addresses;
}

absl::Status Unresolved(const std::string& address, std::string_view why) {
  return MakeError(Reason::kRouterUnavailable,
                   StrCat("cannot resolve ", address, ": ", why),
                   {{"address", address}});
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::string>> SplitHostPort(
    const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    std::string host = address.substr(0, colon);
    std::string port = address.substr(colon + 1);
    const bool bracketed = host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const bool bare_ipv6 = !bracketed && host.find(':') != std::string::npos;
    if (!host.empty() && !bare_ipv6 && IsPort(port)) {
      return std::make_pair(std::move(host), std::move(port));
    }
  }
  return FieldError("address", "HOST:PORT with a port in [1, 65535]", address);
}

absl::StatusOr<std::vector<std::string>> ResolveAddresses(
    const std::string& address) {
  CARAVAN_ASSIGN_OR_RETURN(const auto host_port, SplitHostPort(address));
  const auto& [host, port] = host_port;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return Unresolved(address, gai_strerror(error));
  const AddressList list(found, &freeaddrinfo);
  std::vector<std::string> addresses = AddressesOf(found, AF_INET, port);
  if (addresses.empty()) addresses = AddressesOf(found, AF_INET6, port);
  if (addresses.empty()) return Unresolved(address, "no address");
  return addresses;
}

}  // namespace caravan::worker
