#include "worker/model/quantization_config.h"

#include <algorithm>
#include <array>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr std::string_view kPrefix = "quantization_config.";
// By QuantizationMethod.
constexpr std::array<std::string_view, 6> kNames = {
    "gptq", "awq", "bitsandbytes", "fp8", "fbgemm_fp8", "compressed-tensors"};
constexpr int64_t kMostGroup = int64_t{1} << 20;

// The first of two names of a key that is there.
std::string_view KeyOf(const JsonReader& reader, std::string_view name,
                       std::string_view other) {
  return reader.Has(name) ? name : other;
}

absl::Status ReadBits(const JsonReader& reader, std::string_view key,
                      std::initializer_list<int> allowed,
                      QuantizationConfig& config) {
  CARAVAN_ASSIGN_OR_RETURN(const int64_t bits, reader.RequiredInt(key, 1, 64));
  config.bits = static_cast<int>(bits);
  if (std::find(allowed.begin(), allowed.end(), bits) != allowed.end()) {
    return absl::OkStatus();
  }
  std::string list;
  for (const int width : allowed) {
    StrAppend(&list, list.empty() ? "" : ", ", width);
  }
  return reader.Error(key, StrCat("one of ", list), StrCat(bits));
}

// -1 stands for one group.
absl::Status ReadGroup(const JsonReader& reader, std::string_view key,
                       QuantizationConfig& config) {
  CARAVAN_ASSIGN_OR_RETURN(const auto size, reader.Int(key, -1, kMostGroup));
  config.group_size = size.value_or(config.group_size);
  if (config.group_size == 0) {
    return reader.Error(key, StrCat("-1 or in [1, ", kMostGroup, "]"), "0");
  }
  config.group_size = std::max<int64_t>(config.group_size, 0);
  return absl::OkStatus();
}

absl::Status ReadGptq(const JsonReader& reader, QuantizationConfig& config) {
  CARAVAN_RETURN_IF_ERROR(ReadBits(reader, "bits", {2, 3, 4, 8}, config));
  CARAVAN_RETURN_IF_ERROR(ReadGroup(reader, "group_size", config));
  CARAVAN_ASSIGN_OR_RETURN(const auto format, reader.Text("checkpoint_format"));
  const std::string name = format.value_or("gptq");
  if (name != "gptq" && name != "gptq_v2") {
    return reader.Error("checkpoint_format", "gptq or gptq_v2", name);
  }
  config.zeros_less_one = name == "gptq";
  CARAVAN_ASSIGN_OR_RETURN(const auto marlin, reader.Bool("is_marlin_format"));
  if (!marlin.value_or(false)) return absl::OkStatus();
  return reader.Error("is_marlin_format", "false", "true");
}

absl::Status ReadAwq(const JsonReader& reader, QuantizationConfig& config) {
  CARAVAN_RETURN_IF_ERROR(
      ReadBits(reader, KeyOf(reader, "bits", "w_bit"), {4}, config));
  CARAVAN_RETURN_IF_ERROR(
      ReadGroup(reader, KeyOf(reader, "group_size", "q_group_size"), config));
  CARAVAN_ASSIGN_OR_RETURN(const auto version, reader.Text("version"));
  std::string name = version.value_or("gemm");
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (name != "gemm") return reader.Error("version", "gemm", name);
  CARAVAN_ASSIGN_OR_RETURN(const auto zeros, reader.Bool("zero_point"));
  if (zeros.value_or(true)) return absl::OkStatus();
  return reader.Error("zero_point", "true", "false");
}

absl::Status ReadBitsandbytes(const JsonReader& reader,
                              QuantizationConfig& config) {
  const auto either = [&](std::string_view key, std::string_view other) {
    return reader.Bool(KeyOf(reader, key, other));
  };
  CARAVAN_ASSIGN_OR_RETURN(const auto four,
                           either("load_in_4bit", "_load_in_4bit"));
  CARAVAN_ASSIGN_OR_RETURN(const auto eight,
                           either("load_in_8bit", "_load_in_8bit"));
  if (four.value_or(false) == eight.value_or(false)) {
    return reader.Error("load_in_4bit", "true, or false with load_in_8bit true",
                        four.value_or(false) ? "both true" : "neither");
  }
  config.bits = four.value_or(false) ? 4 : 8;
  CARAVAN_ASSIGN_OR_RETURN(const auto type, reader.Text("bnb_4bit_quant_type"));
  if (type == "nf4") config.table = WeightType::kNf4;
  if (config.bits == 8 || !type || *type == "nf4" || *type == "fp4") {
    return absl::OkStatus();
  }
  return reader.Error("bnb_4bit_quant_type", "nf4 or fp4", *type);
}

absl::Status ReadFp8(const JsonReader& reader) {
  CARAVAN_ASSIGN_OR_RETURN(const auto format, reader.Text("fmt"));
  const std::string name = format.value_or("e4m3");
  if (name != "e4m3") return reader.Error("fmt", "e4m3", name);
  const json* const blocks = reader.Find("weight_block_size");
  if (blocks == nullptr) return absl::OkStatus();
  return reader.Error("weight_block_size",
                      "absent: scales are of matrices or of rows",
                      Excerpt(*blocks));
}

// What one group of matrices is made of.
absl::Status CheckWeights(const json& weights, std::string_view file,
                          std::string_view prefix) {
  const JsonReader reader(&weights, file, prefix);
  CARAVAN_ASSIGN_OR_RETURN(const auto type, reader.Text("type"));
  const std::string kind = type.value_or("nothing");
  if (kind != "float") return reader.Error("type", "float", kind);
  CARAVAN_ASSIGN_OR_RETURN(const int64_t bits,
                           reader.RequiredInt("num_bits", 1, 64));
  if (bits != 8) return reader.Error("num_bits", "8", StrCat(bits));
  CARAVAN_ASSIGN_OR_RETURN(const auto strategy, reader.Text("strategy"));
  const std::string name = strategy.value_or("nothing");
  if (name == "channel" || name == "tensor") return absl::OkStatus();
  return reader.Error("strategy", "channel or tensor", name);
}

absl::Status ReadCompressedTensors(const JsonReader& reader,
                                   std::string_view file,
                                   std::string_view prefix) {
  CARAVAN_ASSIGN_OR_RETURN(const auto format, reader.Text("format"));
  const std::string name = format.value_or("nothing");
  if (name != "float-quantized" && name != "naive-quantized") {
    return reader.Error("format", "float-quantized or naive-quantized", name);
  }
  const json* const groups = reader.Find("config_groups");
  if (groups == nullptr || !groups->is_object()) {
    return reader.Error("config_groups", "an object",
                        groups == nullptr ? "nothing" : Excerpt(*groups));
  }
  for (const auto& [group_name, group] : groups->items()) {
    const std::string key = StrCat("config_groups.", group_name, ".weights");
    const auto weights = group.find("weights");
    if (!group.is_object() || weights == group.end() || !weights->is_object()) {
      return reader.Error(key, "an object", Excerpt(group));
    }
    CARAVAN_RETURN_IF_ERROR(
        CheckWeights(*weights, file, StrCat(prefix, key, ".")));
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizationMethod> MethodOf(const JsonReader& reader) {
  CARAVAN_ASSIGN_OR_RETURN(const auto name, reader.Text("quant_method"));
  if (!name) {  // files that are older than the key
    if (reader.Has("load_in_4bit") || reader.Has("load_in_8bit")) {
      return QuantizationMethod::kBitsandbytes;
    }
    return reader.Has("w_bit") ? QuantizationMethod::kAwq
                               : QuantizationMethod::kGptq;
  }
  std::string list;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (*name == kNames[i]) return static_cast<QuantizationMethod>(i);
    StrAppend(&list, list.empty() ? "" : ", ", kNames[i]);
  }
  return reader.Error("quant_method", StrCat("one of ", list), *name);
}

absl::StatusOr<QuantizationConfig> Parse(const json& object,
                                         std::string_view file,
                                         std::string_view prefix) {
  const JsonReader reader(&object, file, prefix);
  QuantizationConfig config;
  CARAVAN_ASSIGN_OR_RETURN(config.method, MethodOf(reader));
  switch (config.method) {
    case QuantizationMethod::kGptq:
      CARAVAN_RETURN_IF_ERROR(ReadGptq(reader, config));
      break;
    case QuantizationMethod::kAwq:
      CARAVAN_RETURN_IF_ERROR(ReadAwq(reader, config));
      break;
    case QuantizationMethod::kBitsandbytes:
      CARAVAN_RETURN_IF_ERROR(ReadBitsandbytes(reader, config));
      break;
    case QuantizationMethod::kFp8:
      CARAVAN_RETURN_IF_ERROR(ReadFp8(reader));
      break;
    case QuantizationMethod::kFbgemmFp8:
      break;
    case QuantizationMethod::kCompressedTensors:
      CARAVAN_RETURN_IF_ERROR(ReadCompressedTensors(reader, file, prefix));
      break;
  }
  return config;
}

}  // namespace

std::string_view Name(QuantizationMethod method) {
  return kNames[static_cast<size_t>(method)];
}

bool IsFp8(QuantizationMethod method) {
  return method == QuantizationMethod::kFp8 ||
         method == QuantizationMethod::kFbgemmFp8 ||
         method == QuantizationMethod::kCompressedTensors;
}

absl::StatusOr<QuantizationConfig> ParseQuantizationConfig(
    const json& object, std::string_view file) {
  if (object.is_object()) return Parse(object, file, kPrefix);
  return ModelFileError(file, "quantization_config", "an object",
                        Excerpt(object));
}

absl::StatusOr<std::optional<QuantizationConfig>> LoadQuantizationConfig(
    const std::string& directory) {
  const std::string path = StrCat(directory, "/config.json");
  const absl::StatusOr<json> config = ReadJsonObject(path, JsonLimits());
  if (!config.ok() && !absl::IsNotFound(config.status())) {
    return config.status();
  }
  if (config.ok()) {
    const auto found = config->find("quantization_config");
    if (found != config->end() && !found->is_null()) {
      return ParseQuantizationConfig(*found, path);
    }
  }
  const std::string older = StrCat(directory, "/quantize_config.json");
  const absl::StatusOr<json> object = ReadJsonObject(older, JsonLimits());
  if (object.ok()) return Parse(*object, older, "");
  if (absl::IsNotFound(object.status())) return std::nullopt;
  return object.status();
}

}  // namespace caravan::worker
