// Sampling and stop flags of `generate`, `chat` and `bench`.
#ifndef CARAVAN_SERVICES_CLI_GENERATION_FLAGS_H_
#define CARAVAN_SERVICES_CLI_GENERATION_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/v1/inference.pb.h"

namespace caravan::cli {

// What is absent is left to the gateway (the model's defaults). Ranges are
// checked by the gateway, which names field, limit and value.
struct GenerationFlags {
  std::string model;
  std::optional<uint64_t> seed;
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t priority = 0;
};

void AddGenerationFlags(CLI::App& app, GenerationFlags& flags);

// Fills model, sampling, stop criteria and priority.
void ApplyGenerationFlags(const GenerationFlags& flags,
                          v1::GenerateRequest& request);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_GENERATION_FLAGS_H_
