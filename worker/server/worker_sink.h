// Where the engine's reports go: sessions, metrics, load and KV events; and
// where the fate of requests goes: both sets of metrics.
#ifndef CARAVAN_WORKER_SERVER_WORKER_SINK_H_
#define CARAVAN_WORKER_SERVER_WORKER_SINK_H_

#include <atomic>

#include "worker/engine/engine.h"
#include "worker/server/kv_event_feed.h"
#include "worker/server/load_meter.h"
#include "worker/server/request_observer.h"
#include "worker/server/step_dispatcher.h"
#include "worker/server/vllm_metrics.h"
#include "worker/server/worker_metrics.h"

namespace caravan::worker {

// Hands every event to both. Thread-safe as they are.
class MetricsObserver final : public RequestObserver {
 public:
  MetricsObserver(WorkerMetrics* own, VllmMetrics* vllm)
      : own_(own), vllm_(vllm) {}

  void OnSubmitted(const RequestShape& shape) override;
  void OnRefused(Reason reason) override;
  void OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) override;
  void OnFirstToken(absl::Duration since_submit) override;
  void OnNextToken(absl::Duration since_last) override;
  void OnFinished(const FinishedChoice& choice) override;
  void OnFailed(Reason reason) override;
  void OnCancelled() override;
  void OnSessionDropped(Reason reason) override;

 private:
  RequestObserver* const own_;
  RequestObserver* const vllm_;
};

// Emit and OnQueue on the engine thread only.
class WorkerSink final : public EngineSink {
 public:
  struct Parts {
    StepDispatcher* dispatcher;
    LoadMeter* load;
    KvEventFeed* feed;
    WorkerMetrics* metrics;
    VllmMetrics* vllm;
  };
  explicit WorkerSink(const Parts& parts) : parts_(parts) {}

  // Thread-safe. `listener` must outlive the engine's thread, or be taken back
  // with nullptr after that thread has ended.
  void SetListener(KvEventListener* listener) { listener_.store(listener); }

  void Emit(const StepReport& report) override;
  void OnQueue(const QueueNews& news) override {
    parts_.dispatcher->Dispatch(news);
  }

 private:
  const Parts parts_;
  std::atomic<KvEventListener*> listener_ = nullptr;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_WORKER_SINK_H_
