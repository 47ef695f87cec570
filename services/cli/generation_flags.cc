#include "services/cli/generation_flags.h"

namespace caravan::cli {

void AddGenerationFlags(CLI::App& app, GenerationFlags& flags) {
  app.add_option("--model", flags.model,
                 "Name of the model (may be left out where one is served)");
  app.add_option("--seed", flags.seed, "Same seed, same text");
  app.add_option("--max-tokens", flags.max_tokens, "Most output tokens");
  app.add_option("--min-tokens", flags.min_tokens, "Least output tokens");
  app.add_option("--temperature", flags.temperature, "0 is greedy");
  app.add_option("--top-p", flags.top_p, "In (0, 1]");
  app.add_option("--top-k", flags.top_k, "0 keeps all");
  app.add_option("--min-p", flags.min_p, "In [0, 1]");
  app.add_option("--repetition-penalty", flags.repetition_penalty,
                 "1 is neutral");
  app.add_option("--presence-penalty", flags.presence_penalty, "In [-2, 2]");
  app.add_option("--frequency-penalty", flags.frequency_penalty, "In [-2, 2]");
  app.add_option("--stop", flags.stop, "Text that ends the output (repeat)")
      ->allow_extra_args(false);
  app.add_option("--stop-token-id", flags.stop_token_ids,
                 "Token that ends the output (repeat)")
      ->allow_extra_args(false);
  app.add_flag("--ignore-eos", flags.ignore_eos,
               "Go on after the model's end tokens");
  app.add_option("--priority", flags.priority, "Higher runs first");
}

void ApplyGenerationFlags(const GenerationFlags& flags,
                          v1::GenerateRequest& request) {
  request.set_model(flags.model);
  request.set_priority(flags.priority);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (flags.seed) sampling.set_seed(*flags.seed);
  if (flags.temperature) sampling.set_temperature(*flags.temperature);
  if (flags.top_p) sampling.set_top_p(*flags.top_p);
  if (flags.top_k) sampling.set_top_k(*flags.top_k);
  if (flags.min_p) sampling.set_min_p(*flags.min_p);
  if (flags.repetition_penalty) {
    sampling.set_repetition_penalty(*flags.repetition_penalty);
  }
  if (flags.presence_penalty) {
    sampling.set_presence_penalty(*flags.presence_penalty);
  }
  if (flags.frequency_penalty) {
    sampling.set_frequency_penalty(*flags.frequency_penalty);
  }
  v1::StopCriteria& stop = *request.mutable_stop();
  if (flags.max_tokens) stop.set_max_tokens(*flags.max_tokens);
  if (flags.min_tokens) stop.set_min_tokens(*flags.min_tokens);
  for (const std::string& text : flags.stop) stop.add_stop(text);
  for (const int32_t id : flags.stop_token_ids) stop.add_stop_token_ids(id);
  stop.set_ignore_eos(flags.ignore_eos);
}

}  // namespace caravan::cli
