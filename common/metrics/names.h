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

}  // namespace caravan::metrics

#endif  // CARAVAN_COMMON_METRICS_NAMES_H_
