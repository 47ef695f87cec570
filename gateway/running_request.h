// One request on its way, as the parts of the pipeline share it: what was
// asked, what is known by now, and the choices of its prompts.
#ifndef CARAVAN_GATEWAY_RUNNING_REQUEST_H_
#define CARAVAN_GATEWAY_RUNNING_REQUEST_H_

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "gateway/admission/admission_queue.h"
#include "gateway/backend/model_directory.h"
#include "gateway/backend/tokenizer_client.h"
#include "gateway/backend/worker_client.h"
#include "gateway/gateway_metrics.h"
#include "gateway/placement.h"
#include "gateway/prompt_group.h"
#include "gateway/request.h"
#include "gateway/resolve.h"
#include "gateway/stream/inbox.h"
#include "gateway/stream/tool_calls.h"

namespace caravan::gateway {

// What all requests stand on; all of it outlives them.
struct GenerationContext {
  TokenizerClient* tokenizer = nullptr;
  WorkerClient* workers = nullptr;
  ModelDirectory* directory = nullptr;
  Placement* placement = nullptr;
  AdmissionQueue* admission = nullptr;
  GatewayMetrics* metrics = nullptr;
  const Clock* clock = nullptr;
  InboxOptions inbox;
  // Where generations run that outlive their readers (idempotency keys).
  boost::asio::any_io_executor executor;
  // How long a new request waits for a tokenizer or a router that is away, and
  // a running one for a replica that can continue it.
  absl::Duration start_patience = absl::Seconds(30);
  absl::Duration resume_patience = absl::Seconds(30);
};

// Each part writes what it finds out: RequestStart up to the groups,
// GroupPlacer who computes them, Generation the stream.
//
// Not thread-safe, but for the inbox: owned by its generation.
struct RunningRequest {
  RunningRequest(const GenerationContext& context, GenerationRequest request);
  // The groups point at the options.
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

  // Waits at most `duration`, not beyond the request's deadline, and no longer
  // than the request is wanted.
  Patience PatienceFor(absl::Duration duration) const;
  // A choice has a token.
  bool has_output() const;

  const GenerationContext& context;
  const GenerationRequest request;
  const std::shared_ptr<Inbox> inbox;
  const absl::Time arrival;

  std::optional<boost::asio::steady_timer> deadline_timer;
  std::vector<ModelPtr> models;  // the identities of the name
  ModelFacts facts;
  sampling::SamplingParams sampling;
  // What the client's cursor demands.
  std::optional<v1::ModelIdentity> pinned_identity;
  AdmissionTicket ticket;
  std::shared_ptr<const text::Vocabulary> vocabulary;
  ChoiceOptions choice_options;
  std::vector<PromptGroup> groups;
  std::vector<ToolCallFilter> tool_filters;  // by choice; empty without tools

  // After the first placement: who computes, as the receipt says. What was
  // computed by others is marked.
  std::optional<v1::ModelIdentity> first_identity;
  std::vector<InexactResume> inexact_resumes;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_RUNNING_REQUEST_H_
