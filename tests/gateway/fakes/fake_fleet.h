// A tokenizer, a router and workers in this process, with real gRPC on free
// ports. Tokens are a pure function of (seed, choice, position), so that a
// stream can be known in advance, whoever computes it.
#ifndef CARAVAN_TESTS_GATEWAY_FAKES_FAKE_FLEET_H_
#define CARAVAN_TESTS_GATEWAY_FAKES_FAKE_FLEET_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "caravan/v1/router.pb.h"
#include "caravan/v1/worker.pb.h"
#include "common/text/vocabulary.h"
#include "tests/gateway/fakes/letters.h"

namespace caravan::gateway::testing {

// The token of a choice at an output position.
using Script =
    std::function<text::TokenId(uint64_t seed, int choice, int position)>;

// Lower-case letters.
text::TokenId LetterAt(uint64_t seed, int choice, int position);

// The text of `count` tokens of LetterAt.
std::string LettersOf(uint64_t seed, int choice, int count);

// A worker: one step gives each running choice one token. Logprobs are
// -(position + 1) / 8.
//
// Thread-safe.
class FakeWorker {
 public:
  struct State;  // of the service's own file
  explicit FakeWorker(std::string worker_id,
                      std::string numerics_class = "fake/v1");
  ~FakeWorker();

  // Choices wait at this output position; a large number lets them run.
  void HoldAt(int position);
  void SetScript(Script script);
  // Before it is added to a fleet.
  void SetEpoch(uint64_t epoch);
  // Promises to speak so often, and does not keep it: a session without a
  // step is silent. Before the first session.
  void PromiseHeartbeats(absl::Duration interval);
  // Says nothing of prompts before their first token.
  void SetSilent(bool silent);
  // Ends whole handles only, as workers of old. Before the first session.
  void ForgetCancelChoices();
  // The next submits fail with this error; empty reason: they run.
  void FailSubmits(v1::ErrorReason reason, bool retryable);
  // Ends all sessions and the port at once, as a crash does.
  void Kill();
  // Tells all sessions that the worker drains.
  void Drain();

  // Blocks until the condition on the counters holds, at most 10 seconds.
  bool AwaitOpen(int handles);
  bool AwaitSubmits(int count);
  bool AwaitCancels(int count);

  std::vector<v1::Submit> submits() const;
  std::vector<v1::Cancel> cancels() const;
  v1::WorkerStatus status() const;

 private:
  std::shared_ptr<State> state_;
};

// The other two processes. Workers are those that were added and not removed.
//
// Thread-safe.
class FakeFleet {
 public:
  FakeFleet();
  ~FakeFleet();

  void Add(const FakeWorker& worker);
  void Remove(const std::string& worker_id);

  std::string router_address() const;
  std::string tokenizer_address() const;
  // As if the process were gone, and back on the same port.
  void StopTokenizer();
  void StartTokenizer();
  void StopRouter();
  // The identity that the tokenizer says it has, 32 bytes.
  void SetTokenizerId(std::string id);

  // The questions that the router got.
  std::vector<v1::PlaceRequest> places() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace caravan::gateway::testing

#endif  // CARAVAN_TESTS_GATEWAY_FAKES_FAKE_FLEET_H_
