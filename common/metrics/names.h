// Every metric of the suite: name, help text and buckets, once. Processes make
// handles from these families at start and keep them.
//
// Names are caravan_<process>_<noun>_<unit>[_total], units are base units
// (seconds, bytes, tokens), labels are bounded. Each process has a section.
#ifndef CARAVAN_COMMON_METRICS_NAMES_H_
#define CARAVAN_COMMON_METRICS_NAMES_H_

#include <vector>

#include "common/metrics/registry.h"

namespace caravan::metrics {

// --- Buckets ---------------------------------------------------------------

// A call between two processes on one machine or in one rack: from the
// wire's tens of microseconds to the second after which something is wrong.
inline const std::vector<double> kCallSeconds = {
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
    0.01,    0.025,  0.05,    0.1,    0.25,  0.5,    1};

// What a client waits for: a token on a GPU takes 5 ms, a long prompt on two
// cores a minute.
inline const std::vector<double> kWaitSeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1,     2.5,    5,     10,   30,    60,   120, 300};

// Counts that double: tokens of a prompt, blocks, rows of a step.
inline const std::vector<double> kDoublingCounts = {
    1,   2,   4,    8,    16,   32,   64,    128,
    256, 512, 1024, 2048, 4096, 8192, 16384, 32768};

// --- Every process ---------------------------------------------------------

// Labels: process, build.
inline const MetricFamily kBuildInfo = {"caravan_build_info",
                                        "Which build runs; always 1."};

// --- Router ----------------------------------------------------------------

// Labels: policy, outcome ("ok" or an error reason).
inline const MetricFamily kRouterPlacements = {
    "caravan_router_placements_total", "Answered placements by outcome."};
inline const MetricFamily kRouterPlaceSeconds = {
    "caravan_router_place_seconds", "Time to answer one placement.",
    kCallSeconds};
// Labels: state (ready, suspect, draining, broken).
inline const MetricFamily kRouterWorkers = {"caravan_router_workers",
                                            "Registered replicas by state."};
inline const MetricFamily kRouterRegistrations = {
    "caravan_router_registrations_total",
    "Accepted registrations, new epochs included."};
// Labels: reason.
inline const MetricFamily kRouterRefusals = {
    "caravan_router_refused_registrations_total",
    "Refused registrations by error reason."};
inline const MetricFamily kRouterLostWorkers = {
    "caravan_router_lost_workers_total",
    "Replicas removed after missed heartbeats or a broken stream."};
inline const MetricFamily kRouterMatchedTokens = {
    "caravan_router_matched_tokens_total",
    "Prompt tokens that the chosen replica had in its cache, as indexed."};
inline const MetricFamily kRouterPromptTokens = {
    "caravan_router_prompt_tokens_total", "Prompt tokens of placed requests."};
inline const MetricFamily kRouterMatchedBlocks = {
    "caravan_router_matched_blocks",
    "Leading blocks that the chosen replica had, per placement.",
    kDoublingCounts};
inline const MetricFamily kRouterIndexedBlocks = {
    "caravan_router_indexed_blocks",
    "Entries (block and replica) in the prefix index."};
inline const MetricFamily kRouterSnapshotRequests = {
    "caravan_router_snapshot_requests_total",
    "Snapshots of a prefix cache asked for after a gap."};
inline const MetricFamily kRouterDroppedBlocks = {
    "caravan_router_dropped_blocks_total",
    "Blocks that a full prefix index did not take."};

// --- Tokenizer -------------------------------------------------------------

// Labels: method (prepare, encode, decode, vocabulary, models), outcome ("ok"
// or an error reason).
inline const MetricFamily kTokenizerRequests = {
    "caravan_tokenizer_requests_total", "Answered calls by outcome."};
// Labels: method.
inline const MetricFamily kTokenizerRequestSeconds = {
    "caravan_tokenizer_request_seconds", "Time to answer one call.",
    kCallSeconds};
// Labels: method (prepare, encode).
inline const MetricFamily kTokenizerEncodedTokens = {
    "caravan_tokenizer_encoded_tokens_total",
    "Tokens that texts and conversations became."};
inline const MetricFamily kTokenizerDecodedTokens = {
    "caravan_tokenizer_decoded_tokens_total", "Tokens that became text."};
// Labels: method (prepare, encode).
inline const MetricFamily kTokenizerTextBytes = {
    "caravan_tokenizer_text_bytes_total",
    "Bytes of texts and rendered conversations that were encoded."};
inline const MetricFamily kTokenizerModels = {"caravan_tokenizer_models",
                                              "Loaded models."};

// --- Worker ----------------------------------------------------------------

// A step: from a quarter of a millisecond (a small model) to the longest
// prefill chunk of a large one.
inline const std::vector<double> kStepSeconds = {
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1,     0.25,   0.5,   1,      2.5,   5,    10};

// Labels: phase (decode, prefill, mixed).
inline const MetricFamily kWorkerStepSeconds = {
    "caravan_worker_step_seconds", "Computation of one step by phase.",
    kStepSeconds};
inline const MetricFamily kWorkerStepRows = {
    "caravan_worker_step_rows", "Sequences in one step.", kDoublingCounts};
inline const MetricFamily kWorkerStepTokens = {"caravan_worker_step_tokens",
                                               "Tokens computed in one step.",
                                               kDoublingCounts};
// Labels: kind (prefill, decode, cached).
inline const MetricFamily kWorkerTokens = {
    "caravan_worker_tokens_total",
    "Tokens computed by kind; cached ones were found instead."};
inline const MetricFamily kWorkerGeneratedTokens = {
    "caravan_worker_generated_tokens_total",
    "Tokens sampled, resumed ones not included."};
inline const MetricFamily kWorkerPrefillRows = {
    "caravan_worker_prefill_rows_total",
    "Rows of steps that were a prompt or a part of one."};
inline const MetricFamily kWorkerDroppedRows = {
    "caravan_worker_dropped_rows_total",
    "Rows computed for sequences that had ended meanwhile."};
inline const MetricFamily kWorkerCopiedBlocks = {
    "caravan_worker_copied_blocks_total",
    "KV blocks copied for choices of one prompt."};
inline const MetricFamily kWorkerRanks = {
    "caravan_worker_ranks", "Tensor-parallel ranks that compute each step."};
// Labels of both: rank, part (weights, kv, scratch).
inline const MetricFamily kWorkerRankPlannedBytes = {
    "caravan_worker_rank_planned_bytes",
    "Memory planned for one rank alone, by part."};
inline const MetricFamily kWorkerRankAllocatedBytes = {
    "caravan_worker_rank_allocated_bytes",
    "Memory allocated by one rank alone, by part."};
// Labels: state (leased, cached, free).
inline const MetricFamily kWorkerKvBlocks = {"caravan_worker_kv_blocks",
                                             "KV blocks by state."};
inline const MetricFamily kWorkerPrefixHitTokens = {
    "caravan_worker_prefix_hit_tokens_total",
    "Prompt tokens whose keys and values were found in the cache."};
inline const MetricFamily kWorkerPromptTokens = {
    "caravan_worker_prompt_tokens_total",
    "Prompt tokens of requests whose prompt was computed."};
inline const MetricFamily kWorkerParkings = {
    "caravan_worker_parkings_total",
    "Sequences parked to free their KV blocks."};
inline const MetricFamily kWorkerResumes = {"caravan_worker_resumes_total",
                                            "Parked sequences that ran again."};
// Labels: state (running, waiting, parked); parked ones also wait.
inline const MetricFamily kWorkerSequences = {"caravan_worker_sequences",
                                              "Sequences by state."};
inline const MetricFamily kWorkerQueuedPrefillTokens = {
    "caravan_worker_queued_prefill_tokens",
    "Prompt tokens that wait to be computed."};
// Labels: outcome ("stop", "length", "cancelled" or an error reason); one for
// each choice that ended, one for each group that failed or was cancelled.
inline const MetricFamily kWorkerRequests = {"caravan_worker_requests_total",
                                             "Ends of requests by outcome."};
inline const MetricFamily kWorkerSubmits = {"caravan_worker_submits_total",
                                            "Groups that the engine took."};
// Labels: reason.
inline const MetricFamily kWorkerErrors = {
    "caravan_worker_errors_total",
    "Refused submits, failed groups and dropped sessions by error reason."};
inline const MetricFamily kWorkerFirstTokenSeconds = {
    "caravan_worker_first_token_seconds",
    "Time from a submit to its first token.", kWaitSeconds};
inline const MetricFamily kWorkerNextTokenSeconds = {
    "caravan_worker_next_token_seconds",
    "Time between two tokens of one choice.", kStepSeconds};
inline const MetricFamily kWorkerSessions = {"caravan_worker_sessions",
                                             "Open sessions."};
// Labels: part (weights, kv, arena).
inline const MetricFamily kWorkerPlannedBytes = {
    "caravan_worker_planned_bytes",
    "Memory planned before anything was allocated, by part."};
inline const MetricFamily kWorkerAllocatedBytes = {
    "caravan_worker_allocated_bytes", "Memory allocated by part."};
inline const MetricFamily kWorkerResidentBytes = {
    "caravan_worker_resident_bytes",
    "Resident memory of the process, mapped files included."};
inline const MetricFamily kWorkerLoadSeconds = {
    "caravan_worker_load_seconds", "Time that loading the model took."};
// A replica in several stages; each process tells its own.
inline const MetricFamily kWorkerStageSentTokens = {
    "caravan_worker_stage_sent_tokens_total",
    "Tokens whose residual stream went to the next stage."};
inline const MetricFamily kWorkerStageSentBytes = {
    "caravan_worker_stage_sent_bytes_total",
    "Bytes of plans and residual streams sent to the next stage."};
inline const MetricFamily kWorkerStageHopSeconds = {
    "caravan_worker_stage_hop_seconds",
    "A plan's way to the next stage and its result's way back, the time that "
    "it spent there left out.",
    kCallSeconds};
inline const MetricFamily kWorkerStageComputeSeconds = {
    "caravan_worker_stage_compute_seconds",
    "Computation of this stage's part of a step.", kWaitSeconds};
inline const MetricFamily kWorkerChainsFormed = {
    "caravan_worker_chains_formed_total",
    "Chains of stages in which this one took its place."};
// Labels: reason.
inline const MetricFamily kWorkerChainsLost = {
    "caravan_worker_chains_lost_total",
    "Chains that stood and ended, by error reason."};
// Labels: model, worker_id, numerics_class, weights_id, fingerprint.
inline const MetricFamily kWorkerModelInfo = {
    "caravan_worker_model_info", "What the worker serves; always 1."};

// --- Gateway ---------------------------------------------------------------

// Labels: endpoint (completions, chat, grpc_generate, grpc_complete), outcome
// ("ok" or an error reason).
inline const MetricFamily kGatewayRequests = {"caravan_gateway_requests_total",
                                              "Ended requests by outcome."};
inline const MetricFamily kGatewayInFlight = {
    "caravan_gateway_in_flight_requests",
    "Requests between their validation and their end."};
inline const MetricFamily kGatewayQueued = {
    "caravan_gateway_queued_requests",
    "Requests that wait in the admission queue."};
inline const MetricFamily kGatewayQueueSeconds = {
    "caravan_gateway_queue_seconds", "Time in the admission queue.",
    kWaitSeconds};
inline const MetricFamily kGatewayOverShare = {
    "caravan_gateway_over_share_requests_total",
    "Requests that began while their key was over its share."};
inline const MetricFamily kGatewayFirstTokenSeconds = {
    "caravan_gateway_first_token_seconds",
    "Time from a request's arrival to its first token.", kWaitSeconds};
inline const MetricFamily kGatewayInterTokenSeconds = {
    "caravan_gateway_inter_token_seconds",
    "Time between two steps that gave a request tokens.", kWaitSeconds};
inline const MetricFamily kGatewayRequestSeconds = {
    "caravan_gateway_request_seconds",
    "Time from a request's arrival to its last token.", kWaitSeconds};
inline const MetricFamily kGatewayPromptTokens = {
    "caravan_gateway_prompt_tokens_total", "Prompt tokens of ended requests."};
inline const MetricFamily kGatewayCachedTokens = {
    "caravan_gateway_cached_tokens_total",
    "Prompt tokens of ended requests that were in a prefix cache."};
inline const MetricFamily kGatewayGeneratedTokens = {
    "caravan_gateway_generated_tokens_total",
    "Output tokens given to clients."};
inline const MetricFamily kGatewayDisconnects = {
    "caravan_gateway_disconnects_total",
    "Requests whose client went away before their end."};
// Labels: cause (lost, drained, fault, other).
inline const MetricFamily kGatewayResumes = {
    "caravan_gateway_resumes_total",
    "Submits that continued a stream on another worker, by cause."};
inline const MetricFamily kGatewayStreamBytes = {
    "caravan_gateway_stream_bytes_total",
    "Bytes of event streams written to HTTP clients."};
inline const MetricFamily kGatewayHttpConnections = {
    "caravan_gateway_http_connections", "Open HTTP connections."};

}  // namespace caravan::metrics

#endif  // CARAVAN_COMMON_METRICS_NAMES_H_
