// Who may call: keys, the tenant that each stands for, and its share.
#ifndef CARAVAN_GATEWAY_ADMISSION_API_KEYS_H_
#define CARAVAN_GATEWAY_ADMISSION_API_KEYS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace caravan::gateway {

struct Tenant {
  std::string name;
  double weight = 1;  // share of the queue, in (0, 1000]
};

// Immutable; thread-safe.
class ApiKeys {
 public:
  // No keys: everyone is the tenant "".
  ApiKeys() = default;

  // Lines "KEY TENANT [WEIGHT]" (empty lines and # comments are skipped), or a
  // JSON array of {"key", "tenant", "weight"}. Errors: kInvalidField naming
  // the line or entry.
  static absl::StatusOr<ApiKeys> Parse(std::string_view text);
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  // `authorization` is a header's value, "Bearer KEY". Error:
  // kUnauthenticated.
  absl::StatusOr<Tenant> Authenticate(std::string_view authorization) const;

  size_t size() const { return tenants_.size(); }

 private:
  using Digest = std::array<uint8_t, 32>;

  absl::Status Add(std::string_view where, std::string_view key,
                   std::string_view tenant, double weight);
  absl::Status AddLine(int number, std::string_view line);
  absl::Status AddJson(std::string_view text);

  // By SHA-256 of the key: the look-up's time says nothing about keys.
  std::map<Digest, Tenant> tenants_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_API_KEYS_H_
