#include "worker/ops/numerics.h"

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

// Widened to fp32, or codes on tensor cores.
bool IsFp8(WeightType type) { return type == WeightType::kFp8; }

bool IsFourBit(WeightType type) {
  return type == WeightType::kNf4 || type == WeightType::kFp4;
}

// Whether some meet int8 activations, or would if they had a kernel.
bool HasIntegers(WeightTypes weights) {
  bool has = false;
  weights.ForEach([&has](WeightType type) {
    has = has || !(IsPlain(type) || IsFourBit(type) || IsFp8(type));
  });
  return has;
}

ActivationType AutoActivations(WeightTypes weights) {
  if (HasIntegers(weights)) return ActivationType::kInt8;
  bool bf16 = !weights.empty();
  weights.ForEach([&bf16](WeightType type) {
    bf16 = bf16 && (type == WeightType::kBf16 || IsFp8(type));
  });
  return bf16 ? ActivationType::kBf16 : ActivationType::kFp32;
}

DType AutoKv(WeightTypes weights) {
  return weights.empty() || weights == WeightTypes(WeightType::kFp32)
             ? DType::kFp32
             : DType::kBf16;
}

absl::StatusOr<ActivationType> ParseActivations(const std::string& name,
                                                WeightTypes weights) {
  if (name == "auto") return AutoActivations(weights);
  if (name == "fp32") return ActivationType::kFp32;
  if (name == "bf16") return ActivationType::kBf16;
  if (name == "int8") return ActivationType::kInt8;
  if (name == "fp8") return ActivationType::kFp8;
  return UnsupportedError(StrCat("--activations=", name),
                          "use auto, fp32, bf16, int8 or fp8");
}

absl::StatusOr<DType> ParseKv(const std::string& name, WeightTypes weights) {
  if (name == "auto") return AutoKv(weights);
  if (name == "fp32") return DType::kFp32;
  if (name == "bf16") return DType::kBf16;
  if (name == "fp16") return DType::kFp16;
  if (name == "fp8") return DType::kFp8;
  return UnsupportedError(StrCat("--kv=", name),
                          "use auto, fp32, bf16, fp16 or fp8");
}

}  // namespace

std::string NumericsVersion(WeightTypes weights) {
  bool four_bit = false;
  weights.ForEach(
      [&four_bit](WeightType type) { four_bit = four_bit || IsFourBit(type); });
  return four_bit ? "v2" : "v1";
}

absl::StatusOr<NumericsOptions> ParseNumerics(const std::string& activations,
                                              const std::string& kv,
                                              WeightTypes weights) {
  NumericsOptions numerics;
  CARAVAN_ASSIGN_OR_RETURN(numerics.activations,
                           ParseActivations(activations, weights));
  CARAVAN_ASSIGN_OR_RETURN(numerics.kv, ParseKv(kv, weights));
  return numerics;
}

}  // namespace caravan::worker
