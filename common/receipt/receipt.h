// What regenerates a response (caravan.v1.Receipt): hashes, the text form
// that travels in headers and events, and the fingerprint that clients
// compare between calls.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_RECEIPT_RECEIPT_H_
#define CARAVAN_COMMON_RECEIPT_RECEIPT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/receipt.pb.h"

namespace caravan::receipt {

// Version of the message that this build writes.
inline constexpr int kSchema = 1;

// Bound of a serialized receipt, before base64.
inline constexpr size_t kMaxReceiptBytes = 2048;

// SHA-256, 32 bytes.
std::string Sha256(std::string_view bytes);

// SHA-256 of token ids as little-endian u32, 32 bytes.
std::string Sha256OfIds(std::span<const int32_t> ids);

// SHA-256 of sampling parameters and stop criteria, both serialized in full.
std::string ParametersSha256(const v1::SamplingParams& sampling,
                             const v1::StopCriteria& stop);

// "fp_" and 16 hexadecimal digits: a hash of (identity, build) alone.
std::string SystemFingerprint(const v1::ModelIdentity& identity,
                              std::string_view build);

// The serialized receipt, schema and parameters hash filled in. Where it
// would exceed kMaxReceiptBytes, biases and stop lists are left out: replay
// takes them from the original request and compares the hash. Errors:
// kInternal if it is too large even so (a model name of hundreds of bytes).
absl::StatusOr<std::string> SerializeReceipt(v1::Receipt receipt);

// Base64 of a serialized receipt (standard alphabet, padded), and back.
std::string EncodeReceipt(std::string_view serialized);

// Errors: kInvalidField when `base64` is too long, not base64, not a receipt
// or of another schema.
absl::StatusOr<v1::Receipt> DecodeReceipt(std::string_view base64);

// Whether the ids of a repeated request are those of the receipt: `prompt` of
// all prompts, in order, `outputs` of each choice. Errors: kIdentityMismatch
// saying what differs; kInvalidField where the receipt cannot be compared (it
// lists no choices, or another class took part).
absl::Status CheckRegenerated(const v1::Receipt& receipt,
                              std::span<const int32_t> prompt,
                              std::span<const std::vector<int32_t>> outputs);

}  // namespace caravan::receipt

#endif  // CARAVAN_COMMON_RECEIPT_RECEIPT_H_
