#include "worker/server/vllm_metrics.h"

#include <vector>

#include "common/kv/block_hash.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

// Buckets are the ones that dashboards expect.
const std::vector<double> kFirstTokenBuckets = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const std::vector<double> kNextTokenBuckets = {
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
const std::vector<double> kRequestBuckets = {
    0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
    30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kIterationBuckets = {
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const std::vector<double> kTokenCountBuckets = {
    1,   2,    5,    10,   20,    50,    100,   200,
    500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const std::vector<double> kChoiceBuckets = {1, 2, 5, 10, 20};

const MetricFamily kRunning = {"vllm:num_requests_running",
                               "Sequences in the running set."};
const MetricFamily kWaiting = {"vllm:num_requests_waiting",
                               "Sequences that wait."};
const MetricFamily kKvUsage = {"vllm:kv_cache_usage_perc",
                               "Share of KV blocks in use, from 0 to 1."};
const MetricFamily kCacheConfig = {"vllm:cache_config_info",
                                   "Shape of the KV cache; always 1."};
const MetricFamily kPreemptions = {"vllm:num_preemptions_total",
                                   "Sequences parked."};
const MetricFamily kPromptTokens = {"vllm:prompt_tokens_total",
                                    "Prompt tokens computed or found."};
const MetricFamily kGenerationTokens = {"vllm:generation_tokens_total",
                                        "Tokens sampled."};
const MetricFamily kPrefixQueries = {"vllm:prefix_cache_queries_total",
                                     "Prompt tokens looked up in the cache."};
const MetricFamily kPrefixHits = {"vllm:prefix_cache_hits_total",
                                  "Prompt tokens found in the cache."};
const MetricFamily kSuccess = {"vllm:request_success_total",
                               "Choices that ended, by reason."};
const MetricFamily kCorrupted = {"vllm:corrupted_requests_total",
                                 "Requests whose logits were not finite."};
const MetricFamily kRejections = {"vllm:admission_rejections_total",
                                  "Submits refused for want of room."};
const MetricFamily kIterationTokens = {"vllm:iteration_tokens_total",
                                       "Tokens computed in one step.",
                                       kIterationBuckets};
const MetricFamily kFirstToken = {"vllm:time_to_first_token_seconds",
                                  "Time from a submit to its first token.",
                                  kFirstTokenBuckets};
const MetricFamily kNextToken = {"vllm:inter_token_latency_seconds",
                                 "Time between two tokens of a choice.",
                                 kNextTokenBuckets};
const MetricFamily kRequestSeconds = {"vllm:e2e_request_latency_seconds",
                                      "Time from a submit to its end.",
                                      kRequestBuckets};
const MetricFamily kPrefillSeconds = {
    "vllm:request_prefill_time_seconds",
    "Time from a submit to its first token, by the buckets of requests.",
    kRequestBuckets};
const MetricFamily kDecodeSeconds = {
    "vllm:request_decode_time_seconds",
    "Time from the first token of a choice to its end.", kRequestBuckets};
const MetricFamily kRequestPromptTokens = {"vllm:request_prompt_tokens",
                                           "Prompt tokens of ended choices.",
                                           kTokenCountBuckets};
const MetricFamily kRequestGenerationTokens = {
    "vllm:request_generation_tokens", "Output tokens of ended choices.",
    kTokenCountBuckets};
const MetricFamily kRequestMaxTokens = {"vllm:request_params_max_tokens",
                                        "The parameter max_tokens of submits.",
                                        kTokenCountBuckets};
const MetricFamily kRequestN = {"vllm:request_params_n",
                                "The parameter n of submits.", kChoiceBuckets};

MetricLabels With(MetricLabels labels, const std::string& key,
                  const std::string& value) {
  labels.emplace(key, value);
  return labels;
}

// One engine per process: its index is 0.
MetricLabels LabelsOf(const std::string& model_name) {
  return {{"model_name", model_name}, {"engine", "0"}};
}

}  // namespace

VllmMetrics::VllmMetrics(MetricsRegistry* registry,
                         const std::string& model_name, int32_t block_count)
    : block_count_(block_count),
      running_(registry->MakeGauge(kRunning, LabelsOf(model_name))),
      waiting_(registry->MakeGauge(kWaiting, LabelsOf(model_name))),
      kv_usage_(registry->MakeGauge(kKvUsage, LabelsOf(model_name))),
      preemptions_(registry->MakeCounter(kPreemptions, LabelsOf(model_name))),
      prompt_tokens_(
          registry->MakeCounter(kPromptTokens, LabelsOf(model_name))),
      generation_tokens_(
          registry->MakeCounter(kGenerationTokens, LabelsOf(model_name))),
      prefix_queries_(
          registry->MakeCounter(kPrefixQueries, LabelsOf(model_name))),
      prefix_hits_(registry->MakeCounter(kPrefixHits, LabelsOf(model_name))),
      success_stop_(registry->MakeCounter(
          kSuccess, With(LabelsOf(model_name), "finished_reason", "stop"))),
      success_length_(registry->MakeCounter(
          kSuccess, With(LabelsOf(model_name), "finished_reason", "length"))),
      corrupted_(registry->MakeCounter(kCorrupted, LabelsOf(model_name))),
      rejections_(registry->MakeCounter(kRejections, LabelsOf(model_name))),
      iteration_tokens_(
          registry->MakeHistogram(kIterationTokens, LabelsOf(model_name))),
      first_token_seconds_(
          registry->MakeHistogram(kFirstToken, LabelsOf(model_name))),
      next_token_seconds_(
          registry->MakeHistogram(kNextToken, LabelsOf(model_name))),
      request_seconds_(
          registry->MakeHistogram(kRequestSeconds, LabelsOf(model_name))),
      prefill_seconds_(
          registry->MakeHistogram(kPrefillSeconds, LabelsOf(model_name))),
      decode_seconds_(
          registry->MakeHistogram(kDecodeSeconds, LabelsOf(model_name))),
      request_prompt_tokens_(
          registry->MakeHistogram(kRequestPromptTokens, LabelsOf(model_name))),
      request_generation_tokens_(registry->MakeHistogram(
          kRequestGenerationTokens, LabelsOf(model_name))),
      request_max_tokens_(
          registry->MakeHistogram(kRequestMaxTokens, LabelsOf(model_name))),
      request_n_(registry->MakeHistogram(kRequestN, LabelsOf(model_name))) {
  MetricLabels labels = LabelsOf(model_name);
  labels.emplace("block_size", StrCat(kv::kBlockTokens));
  labels.emplace("num_gpu_blocks", StrCat(block_count));
  registry->MakeGauge(kCacheConfig, labels)->Set(1);
}

void VllmMetrics::ObserveLoad(const EngineLoad& load) {
  running_->Set(load.running_sequences);
  waiting_->Set(load.waiting_sequences);
  kv_usage_->Set(load.leased_blocks / block_count_);
}

void VllmMetrics::ObserveStep(const StepReport& report) {
  ObserveLoad(report.load);
  preemptions_->Increment(report.counters.parked);
  generation_tokens_->Increment(static_cast<double>(report.tokens.size()));
  const int32_t tokens =
      report.counters.prefill_tokens + report.counters.decode_tokens;
  if (tokens > 0) iteration_tokens_->Observe(tokens);
}

void VllmMetrics::OnSubmitted(const RequestShape& shape) {
  request_max_tokens_->Observe(shape.max_tokens);
  request_n_->Observe(shape.choices);
}

void VllmMetrics::OnRefused(Reason reason) {
  if (reason == Reason::kQueueFull || reason == Reason::kKvExhausted) {
    rejections_->Increment();
  }
}

void VllmMetrics::OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) {
  prompt_tokens_->Increment(prompt_tokens);
  prefix_queries_->Increment(prompt_tokens);
  prefix_hits_->Increment(cached_tokens);
}

void VllmMetrics::OnFirstToken(absl::Duration since_submit) {
  const double seconds = absl::ToDoubleSeconds(since_submit);
  first_token_seconds_->Observe(seconds);
  prefill_seconds_->Observe(seconds);
}

void VllmMetrics::OnNextToken(absl::Duration since_last) {
  next_token_seconds_->Observe(absl::ToDoubleSeconds(since_last));
}

void VllmMetrics::OnFinished(const FinishedChoice& choice) {
  (choice.end == ChoiceEnd::kStop ? success_stop_ : success_length_)
      ->Increment();
  request_seconds_->Observe(absl::ToDoubleSeconds(choice.since_submit));
  decode_seconds_->Observe(absl::ToDoubleSeconds(choice.since_first_token));
  request_prompt_tokens_->Observe(choice.prompt_tokens);
  request_generation_tokens_->Observe(choice.output_tokens);
}

void VllmMetrics::OnFailed(Reason reason) {
  if (reason == Reason::kNumericFault) corrupted_->Increment();
}

// The names have no counter for these.
void VllmMetrics::OnCancelled() {}
void VllmMetrics::OnSessionDropped(Reason) {}

}  // namespace caravan::worker
