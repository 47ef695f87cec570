#include "gateway/admission/api_keys.h"

#include <openssl/sha.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

constexpr double kMaxWeight = 1000;
constexpr std::string_view kScheme = "bearer ";

std::array<uint8_t, 32> Sha256(std::string_view text) {
  std::array<uint8_t, 32> digest;
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(),
         digest.data());
  return digest;
}

bool HasScheme(std::string_view authorization) {
  if (authorization.size() <= kScheme.size()) return false;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if ((authorization[i] | 0x20) != (kScheme[i] | 0x20)) return false;
  }
  return true;
}

}  // namespace

absl::Status ApiKeys::Add(std::string_view where, std::string_view key,
                          std::string_view tenant, double weight) {
  if (key.empty() || tenant.empty()) {
    return FieldError(where, "a key and a tenant", "less");
  }
  if (!(weight > 0 && weight <= kMaxWeight)) {
    return FieldError(StrCat(where, ".weight"),
                      StrCat("in (0, ", kMaxWeight, "]"), StrCat(weight));
  }
  if (!tenants_.emplace(Sha256(key), Tenant{std::string(tenant), weight})
           .second) {
    return FieldError(where, "a key that is not in the file yet",
                      "a key given twice");
  }
  return absl::OkStatus();
}

absl::Status ApiKeys::AddLine(int number, std::string_view line) {
  const std::string where = StrCat("api-keys line ", number);
  const std::vector<std::string> words =
      absl::StrSplit(ToAbsl(line), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.empty() || words[0].front() == '#') return absl::OkStatus();
  double weight = 1;
  if (words.size() < 2 || words.size() > 3 ||
      (words.size() == 3 && !absl::SimpleAtod(words[2], &weight))) {
    return FieldError(where, "KEY TENANT [WEIGHT]",
                      StrCat(words.size(), " words"));
  }
  return Add(where, words[0], words[1], weight);
}

absl::Status ApiKeys::AddJson(std::string_view text) {
  const auto json = ParseJson(text);
  if (!json.is_array()) {
    return FieldError("api-keys", "lines or a JSON array", "neither");
  }
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string where = StrCat("api-keys[", i, "]");
    const auto& entry = json[i];
    const bool well_formed = entry.is_object() && entry.contains("key") &&
                             entry["key"].is_string() &&
                             entry.contains("tenant") &&
                             entry["tenant"].is_string();
    if (!well_formed) {
      return FieldError(where, "an object with key and tenant", "another");
    }
    double weight = 1;
    if (entry.contains("weight")) {
      if (!entry["weight"].is_number()) {
        return FieldError(StrCat(where, ".weight"), "a number", "another type");
      }
      weight = entry["weight"].get<double>();
    }
    CARAVAN_RETURN_IF_ERROR(Add(where, entry["key"].get<std::string>(),
                                entry["tenant"].get<std::string>(), weight));
  }
  return absl::OkStatus();
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text) {
  ApiKeys keys;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '[') {
    CARAVAN_RETURN_IF_ERROR(keys.AddJson(text));
  } else {
    int number = 0;
    for (const absl::string_view line : absl::StrSplit(ToAbsl(text), '\n')) {
      CARAVAN_RETURN_IF_ERROR(keys.AddLine(++number, ToStd(line)));
    }
  }
  if (keys.size() == 0) return FieldError("api-keys", "at least one key", "0");
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return FieldError("--api-keys", "a readable file", path);
  }
  return Parse(text.str());
}

absl::StatusOr<Tenant> ApiKeys::Authenticate(
    std::string_view authorization) const {
  if (tenants_.empty()) return Tenant{};
  if (!HasScheme(authorization)) {
    return MakeError(Reason::kUnauthenticated,
                     "authorization must be \"Bearer KEY\"; got none");
  }
  const auto it = tenants_.find(Sha256(authorization.substr(kScheme.size())));
  if (it == tenants_.end()) {
    return MakeError(Reason::kUnauthenticated,
                     "authorization must be a known key; got another");
  }
  return it->second;
}

}  // namespace caravan::gateway
