// How a checkpoint says that its matrices were quantized: quantization_config
// of config.json, or GPTQ's older quantize_config.json.
#ifndef CARAVAN_WORKER_MODEL_QUANTIZATION_CONFIG_H_
#define CARAVAN_WORKER_MODEL_QUANTIZATION_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

enum class QuantizationMethod : uint8_t {
  kGptq,
  kAwq,
  kBitsandbytes,
  // Weights of e4m3. What the files say of activations (their scales, bounds)
  // is of others' kernels: ours round to bf16, or by a row's own scale.
  kFp8,
  kFbgemmFp8,
  kCompressedTensors,
};

// "gptq", "awq", "bitsandbytes", "fp8", "fbgemm_fp8", "compressed-tensors".
std::string_view Name(QuantizationMethod method);
// Whether matrices of that method are of e4m3.
bool IsFp8(QuantizationMethod method);

struct QuantizationConfig {
  QuantizationMethod method = QuantizationMethod::kGptq;

  // GPTQ: 2, 3, 4 or 8; AWQ: 4; bitsandbytes: 4 or 8.
  int bits = 4;
  // Inputs that share a scale; 0: all of a matrix. GPTQ and AWQ.
  int64_t group_size = 128;
  // GPTQ: zero points are stored less one ("gptq"), or as they are
  // ("gptq_v2").
  bool zeros_less_one = true;
  // bitsandbytes of 4 bits: kNf4, or kFp4 (where nothing is said, too).
  WeightType table = WeightType::kFp4;
};

// Parses the object under quantization_config. Errors (kModelFileInvalid,
// kUnsupportedParameter) name `file`, key, limit and value: methods, formats
// and widths that are not read here.
absl::StatusOr<QuantizationConfig> ParseQuantizationConfig(
    const nlohmann::json& object, std::string_view file);

// Reads DIR/config.json's quantization_config, or DIR/quantize_config.json, or
// nothing where there is neither.
absl::StatusOr<std::optional<QuantizationConfig>> LoadQuantizationConfig(
    const std::string& directory);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_QUANTIZATION_CONFIG_H_
