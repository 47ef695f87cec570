#include "common/receipt/receipt.h"

#include <openssl/sha.h>

#include <array>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::receipt {
namespace {

constexpr size_t kMaxBase64Bytes = (kMaxReceiptBytes + 2) / 3 * 4;

// Fields with their lengths, so that no two lists of fields collide.
void AppendField(std::string_view field, std::string& out) {
  StrAppend(&out, field.size(), ":", field);
}

}  // namespace

std::string Sha256(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         digest.data());
  return std::string(digest.begin(), digest.end());
}

std::string Sha256OfIds(std::span<const int32_t> ids) {
  std::string bytes;
  bytes.reserve(ids.size() * 4);
  for (const int32_t id : ids) {
    const auto value = static_cast<uint32_t>(id);
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(value >> shift & 0xFF));
    }
  }
  return Sha256(bytes);
}

std::string ParametersSha256(const v1::SamplingParams& sampling,
                             const v1::StopCriteria& stop) {
  std::string packed;
  AppendField(sampling.SerializeAsString(), packed);
  AppendField(stop.SerializeAsString(), packed);
  return Sha256(packed);
}

std::string SystemFingerprint(const v1::ModelIdentity& identity,
                              std::string_view build) {
  std::string packed;
  for (const std::string_view field :
       {std::string_view(identity.weights_id()),
        std::string_view(identity.numerics_class()),
        std::string_view(identity.fingerprint()),
        std::string_view(identity.tokenizer_id()),
        std::string_view(identity.template_id()), build}) {
    AppendField(field, packed);
  }
  const std::string digest = Sha256(packed);
  return StrCat("fp_", absl::BytesToHexString(digest.substr(0, 8)));
}

absl::StatusOr<std::string> SerializeReceipt(v1::Receipt receipt) {
  receipt.set_schema(kSchema);
  receipt.set_parameters_sha256(
      ParametersSha256(receipt.sampling(), receipt.stop()));
  if (receipt.ByteSizeLong() > kMaxReceiptBytes) {
    receipt.set_parameters_incomplete(true);
    receipt.mutable_sampling()->clear_logit_bias();
    receipt.mutable_stop()->clear_stop();
    receipt.mutable_stop()->clear_stop_token_ids();
  }
  if (receipt.ByteSizeLong() > kMaxReceiptBytes) {
    return MakeError(Reason::kInternal,
                     StrCat("a receipt must be at most ", kMaxReceiptBytes,
                            " bytes; got ", receipt.ByteSizeLong()));
  }
  return receipt.SerializeAsString();
}

std::string EncodeReceipt(std::string_view serialized) {
  return absl::Base64Escape(ToAbsl(serialized));
}

absl::StatusOr<v1::Receipt> DecodeReceipt(std::string_view base64) {
  if (base64.size() > kMaxBase64Bytes) {
    return FieldError("receipt", StrCat("at most ", kMaxBase64Bytes, " bytes"),
                      StrCat(base64.size()));
  }
  std::string serialized;
  if (!absl::Base64Unescape(ToAbsl(base64), &serialized)) {
    return FieldError("receipt", "base64", "something else");
  }
  v1::Receipt receipt;
  if (!receipt.ParseFromString(serialized)) {
    return FieldError("receipt", "a serialized caravan.v1.Receipt",
                      "something else");
  }
  if (receipt.schema() != kSchema) {
    return FieldError("receipt.schema", StrCat(kSchema),
                      StrCat(receipt.schema()));
  }
  return receipt;
}

absl::Status CheckRegenerated(const v1::Receipt& receipt,
                              std::span<const int32_t> prompt,
                              std::span<const std::vector<int32_t>> outputs) {
  if (receipt.inexact_resumes_size() > 0) {
    return FieldError("receipt.inexact_resumes", "empty to be replayed",
                      receipt.inexact_resumes(0).numerics_class());
  }
  if (receipt.choices_size() == 0) {
    return FieldError("receipt.choices", "listed to be replayed", "none");
  }
  if (Sha256OfIds(prompt) != receipt.prompt_sha256()) {
    return MakeError(Reason::kIdentityMismatch,
                     StrCat("the prompt is another one: ", prompt.size(),
                            " tokens, while the receipt has ",
                            receipt.prompt_token_count()));
  }
  if (std::ssize(outputs) != receipt.choices_size()) {
    return MakeError(
        Reason::kIdentityMismatch,
        StrCat("the request gives ", outputs.size(),
               " choices, while the receipt has ", receipt.choices_size()));
  }
  for (const v1::ReceiptChoice& choice : receipt.choices()) {
    const auto index = static_cast<size_t>(choice.index());
    if (index < outputs.size() &&
        Sha256OfIds(outputs[index]) == choice.output_sha256()) {
      continue;
    }
    return MakeError(
        Reason::kIdentityMismatch,
        StrCat("choice ", choice.index(),
               " differs: ", index < outputs.size() ? outputs[index].size() : 0,
               " tokens, while the receipt has ", choice.output_token_count()),
        {{"choice", StrCat(choice.index())}});
  }
  return absl::OkStatus();
}

}  // namespace caravan::receipt
