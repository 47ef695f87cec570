#include "common/sampling/proto.h"

namespace caravan::sampling {

SamplingParams FromProto(const v1::SamplingParams& proto,
                         const SamplingParams& defaults) {
  SamplingParams params = defaults;
  if (proto.has_temperature()) params.temperature = proto.temperature();
  if (proto.has_top_p()) params.top_p = proto.top_p();
  if (proto.has_top_k()) params.top_k = proto.top_k();
  if (proto.has_min_p()) params.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) {
    params.repetition_penalty = proto.repetition_penalty();
  }
  if (proto.has_presence_penalty()) {
    params.presence_penalty = proto.presence_penalty();
  }
  if (proto.has_frequency_penalty()) {
    params.frequency_penalty = proto.frequency_penalty();
  }
  if (proto.logit_bias_size() > 0) params.logit_bias.clear();
  for (const v1::LogitBias& bias : proto.logit_bias()) {
    params.logit_bias.push_back({bias.token_id(), bias.bias()});
  }
  if (proto.has_seed()) params.seed = proto.seed();
  if (proto.has_logprob_count()) params.logprob_count = proto.logprob_count();
  if (proto.has_prompt_logprob_count()) {
    params.prompt_logprob_count = proto.prompt_logprob_count();
  }
  return params;
}

StopCriteria FromProto(const v1::StopCriteria& proto,
                       const StopCriteria& defaults) {
  StopCriteria stop = defaults;
  if (proto.has_max_tokens()) stop.max_tokens = proto.max_tokens();
  if (proto.has_min_tokens()) stop.min_tokens = proto.min_tokens();
  if (proto.stop_size() > 0) {
    stop.stop.assign(proto.stop().begin(), proto.stop().end());
  }
  if (proto.stop_token_ids_size() > 0) {
    stop.stop_token_ids.assign(proto.stop_token_ids().begin(),
                               proto.stop_token_ids().end());
  }
  stop.ignore_eos |= proto.ignore_eos();
  stop.include_stop_str_in_output |= proto.include_stop_str_in_output();
  return stop;
}

v1::SamplingParams ToProto(const SamplingParams& params) {
  v1::SamplingParams proto;
  proto.set_temperature(params.temperature);
  proto.set_top_p(params.top_p);
  proto.set_top_k(params.top_k);
  proto.set_min_p(params.min_p);
  proto.set_repetition_penalty(params.repetition_penalty);
  proto.set_presence_penalty(params.presence_penalty);
  proto.set_frequency_penalty(params.frequency_penalty);
  for (const LogitBias& bias : params.logit_bias) {
    v1::LogitBias* entry = proto.add_logit_bias();
    entry->set_token_id(bias.token_id);
    entry->set_bias(bias.bias);
  }
  proto.set_seed(params.seed);
  if (params.logprob_count) proto.set_logprob_count(*params.logprob_count);
  if (params.prompt_logprob_count) {
    proto.set_prompt_logprob_count(*params.prompt_logprob_count);
  }
  return proto;
}

v1::StopCriteria ToProto(const StopCriteria& stop) {
  v1::StopCriteria proto;
  proto.set_max_tokens(stop.max_tokens);
  proto.set_min_tokens(stop.min_tokens);
  for (const std::string& text : stop.stop) proto.add_stop(text);
  for (const int32_t id : stop.stop_token_ids) proto.add_stop_token_ids(id);
  proto.set_ignore_eos(stop.ignore_eos);
  proto.set_include_stop_str_in_output(stop.include_stop_str_in_output);
  return proto;
}

}  // namespace caravan::sampling
