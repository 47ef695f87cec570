#include <grpcpp/server_builder.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.grpc.pb.h"
#include "common/kv/block_hash.h"
#include "tests/gateway/fakes/fake_fleet.h"

namespace caravan::gateway::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(10);

// A choice that runs.
struct Running {
  uint64_t handle = 0;
  int choice = 0;
  int position = 0;
  v1::SamplingParams sampling;
  v1::StopCriteria stop;
};

bool Ends(const v1::StopCriteria& stop, text::TokenId id) {
  const auto& ids = stop.stop_token_ids();
  return (id == kEos && !stop.ignore_eos()) ||
         std::find(ids.begin(), ids.end(), id) != ids.end();
}

void AddFinish(const Running& running, v1::FinishReason reason,
               v1::StepOutput& out) {
  v1::ChoiceFinish& finish = *out.add_finishes();
  finish.set_handle(running.handle);
  finish.set_choice(running.choice);
  finish.set_reason(reason);
  finish.set_output_token_count(running.position);
}

}  // namespace

text::TokenId LetterAt(uint64_t seed, int choice, int position) {
  uint64_t x = seed * 0x9E3779B97F4A7C15u + choice * 1000003u + position;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 32;
  return static_cast<text::TokenId>('a' + x % 26);
}

std::string LettersOf(uint64_t seed, int choice, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += static_cast<char>(LetterAt(seed, choice, i));
  }
  return text;
}

class FakeSession;

struct FakeWorker::State : v1::WorkerService::CallbackService {
  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      grpc::CallbackServerContext* context) override;
  void StepLoop();
  bool CanStepLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void StepLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  bool StepChoiceLocked(Running& running, v1::StepOutput& out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  std::string worker_id;
  v1::WorkerStatus status;
  std::unique_ptr<grpc::Server> server;

  mutable absl::Mutex mutex;
  std::map<FakeSession*, std::vector<Running>> sessions ABSL_GUARDED_BY(mutex);
  std::vector<v1::Submit> submits ABSL_GUARDED_BY(mutex);
  std::vector<v1::Cancel> cancels ABSL_GUARDED_BY(mutex);
  bool cancels_choices ABSL_GUARDED_BY(mutex) = true;
  int hold_at ABSL_GUARDED_BY(mutex) = 1 << 30;
  absl::Duration heartbeat ABSL_GUARDED_BY(mutex);  // below a second
  Script script ABSL_GUARDED_BY(mutex) = LetterAt;
  bool silent ABSL_GUARDED_BY(mutex) = false;
  v1::ErrorReason fail_reason ABSL_GUARDED_BY(mutex) =
      v1::ERROR_REASON_UNSPECIFIED;
  bool fail_retryable ABSL_GUARDED_BY(mutex) = false;
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  std::jthread thread;
};

// One session. Writes are queued; all state is under the worker's mutex.
class FakeSession final
    : public grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse> {
 public:
  FakeSession(FakeWorker::State* state, grpc::CallbackServerContext* context)
      : state_(state), context_(context) {
    {
      absl::MutexLock lock(&state_->mutex);
      state_->sessions[this];
      v1::SessionResponse hello;
      hello.mutable_hello()->set_least_revision(1);
      hello.mutable_hello()->set_greatest_revision(1);
      if (state_->cancels_choices) {
        hello.mutable_hello()->add_features(v1::FEATURE_CANCEL_CHOICES);
      }
      hello.mutable_hello()->mutable_heartbeat_interval()->set_nanos(
          static_cast<int32_t>(absl::ToInt64Nanoseconds(state_->heartbeat)));
      SendLocked(std::move(hello));
    }
    StartRead(&request_);
  }

  void SendLocked(v1::SessionResponse response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    if (ended_) return;
    writes_.push_back(std::move(response));
    if (writes_.size() == 1) StartWrite(&writes_.front());
  }
  void KillLocked() { context_->TryCancel(); }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&state_->mutex);
    if (!ok) {
      EndLocked();
      return;
    }
    if (request_.has_submit()) OnSubmitLocked(request_.submit());
    if (request_.has_cancel()) OnCancelLocked(request_.cancel());
    StartRead(&request_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&state_->mutex);
    writes_.pop_front();
    if (ok && !ended_ && !writes_.empty()) StartWrite(&writes_.front());
  }
  void OnDone() override { delete this; }

 private:
  void OnCancelLocked(const v1::Cancel& cancel)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    state_->cancels.push_back(cancel);
    const auto& choices = cancel.choices();
    const bool all = choices.empty() || !state_->cancels_choices;
    std::erase_if(state_->sessions[this], [&](const Running& r) {
      return r.handle == cancel.handle() &&
             (all || std::find(choices.begin(), choices.end(), r.choice) !=
                         choices.end());
    });
  }
  void OnSubmitLocked(const v1::Submit& submit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    state_->submits.push_back(submit);
    v1::SessionResponse response;
    if (state_->fail_reason != v1::ERROR_REASON_UNSPECIFIED) {
      v1::HandleError& error = *response.mutable_step()->add_errors();
      error.set_handle(submit.handle());
      error.mutable_error()->set_reason(state_->fail_reason);
      error.mutable_error()->set_retryable(state_->fail_retryable);
      error.mutable_error()->set_message("as the test wants");
      SendLocked(std::move(response));
      return;
    }
    v1::PromptRecord& prompt = *response.mutable_step()->add_prompts();
    prompt.set_handle(submit.handle());
    prompt.set_cached_token_count(1);
    if (submit.sampling().has_prompt_logprob_count()) {
      const auto& ids = submit.prompt(0).tokens().token_ids();
      for (int i = 1; i < ids.size(); ++i) {
        v1::PromptTokenLogprob& score = *prompt.add_logprobs();
        score.set_position(i);
        score.set_token_id(ids[i]);
        score.set_logprob(-0.25f * static_cast<float>(i));
        score.set_rank(1);
      }
    }
    if (!state_->silent) SendLocked(std::move(response));
    for (const v1::SubmitChoice& choice : submit.choices()) {
      state_->sessions[this].push_back({submit.handle(), choice.index(),
                                        choice.output_token_ids_size(),
                                        submit.sampling(), submit.stop()});
    }
  }
  void EndLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    if (std::exchange(ended_, true)) return;
    state_->sessions.erase(this);
    Finish(grpc::Status::OK);
  }

  FakeWorker::State* const state_;
  grpc::CallbackServerContext* const context_;
  v1::SessionRequest request_;
  std::deque<v1::SessionResponse> writes_;
  bool ended_ = false;
};

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>*
FakeWorker::State::Session(grpc::CallbackServerContext* context) {
  return new FakeSession(this, context);
}

bool FakeWorker::State::CanStepLocked() const {
  if (stopping) return true;
  for (const auto& [session, choices] : sessions) {
    for (const Running& running : choices) {
      if (running.position < hold_at) return true;
    }
  }
  return false;
}

// False when the choice has ended.
bool FakeWorker::State::StepChoiceLocked(Running& running,
                                         v1::StepOutput& out) {
  if (running.position >= running.stop.max_tokens()) {
    AddFinish(running, v1::FINISH_REASON_LENGTH, out);
    return false;
  }
  if (running.position >= hold_at) return true;
  const text::TokenId id =
      script(running.sampling.seed(), running.choice, running.position);
  v1::TokenRecord& token = *out.add_tokens();
  token.set_handle(running.handle);
  token.set_choice(running.choice);
  token.set_position(running.position);
  token.set_token_id(id);
  if (running.sampling.has_logprob_count()) {
    token.set_logprob(-static_cast<float>(running.position + 1) / 8);
    token.set_rank(1);
    for (int i = 0; i < running.sampling.logprob_count(); ++i) {
      v1::Candidate& candidate = *token.add_candidates();
      candidate.set_token_id(i == 0 ? id : 'A' + i);
      candidate.set_logprob(token.logprob() - static_cast<float>(i));
    }
  }
  ++running.position;
  if (Ends(running.stop, id)) {
    AddFinish(running, v1::FINISH_REASON_STOP, out);
    return false;
  }
  if (running.position < running.stop.max_tokens()) return true;
  AddFinish(running, v1::FINISH_REASON_LENGTH, out);
  return false;
}

void FakeWorker::State::StepLocked() {
  for (auto& [session, choices] : sessions) {
    v1::SessionResponse response;
    v1::StepOutput& out = *response.mutable_step();
    std::erase_if(choices, [&](Running& running) {
      mutex.AssertHeld();
      return !StepChoiceLocked(running, out);
    });
    if (out.tokens_size() + out.finishes_size() > 0) {
      session->SendLocked(std::move(response));
    }
  }
}

void FakeWorker::State::StepLoop() {
  absl::MutexLock lock(&mutex);
  while (!stopping) {
    mutex.Await(absl::Condition(this, &State::CanStepLocked));
    StepLocked();
  }
}

FakeWorker::FakeWorker(std::string worker_id, std::string numerics_class)
    : state_(std::make_shared<State>()) {
  state_->worker_id = std::move(worker_id);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(state_.get());
  state_->server = builder.BuildAndStart();
  v1::Registration& registration = *state_->status.mutable_registration();
  registration.set_worker_id(state_->worker_id);
  registration.set_address("127.0.0.1:" + std::to_string(port));
  registration.set_epoch(std::hash<std::string>()(state_->worker_id) | 1);
  v1::ModelInfo& model = *registration.mutable_model();
  model.set_name("fake");
  model.set_context_length(4096);
  model.set_vocabulary_size(kLettersSize);
  model.set_block_size(kv::kBlockTokens);
  model.add_eos_token_ids(kEos);
  model.set_created_unix_s(12345);
  model.mutable_identity()->set_weights_id(std::string(32, 'w'));
  model.mutable_identity()->set_numerics_class(numerics_class);
  model.mutable_identity()->set_fingerprint(std::string(32, 'f'));
  model.mutable_identity()->set_tokenizer_id(std::string(32, 't'));
  state_->status.set_state(v1::WORKER_STATE_READY);
  state_->thread = std::jthread([state = state_.get()] { state->StepLoop(); });
}

FakeWorker::~FakeWorker() {
  Kill();
  {
    absl::MutexLock lock(&state_->mutex);
    state_->stopping = true;
  }
  state_->thread.join();
  state_->server->Wait();
}

void FakeWorker::HoldAt(int position) {
  absl::MutexLock lock(&state_->mutex);
  state_->hold_at = position;
}

void FakeWorker::SetScript(Script script) {
  absl::MutexLock lock(&state_->mutex);
  state_->script = std::move(script);
}

void FakeWorker::SetEpoch(uint64_t epoch) {
  state_->status.mutable_registration()->set_epoch(epoch);
}

void FakeWorker::SetSilent(bool silent) {
  absl::MutexLock lock(&state_->mutex);
  state_->silent = silent;
}

void FakeWorker::FailSubmits(v1::ErrorReason reason, bool retryable) {
  absl::MutexLock lock(&state_->mutex);
  state_->fail_reason = reason;
  state_->fail_retryable = retryable;
}

void FakeWorker::Kill() {
  {
    absl::MutexLock lock(&state_->mutex);
    for (auto& [session, choices] : state_->sessions) session->KillLocked();
  }
  state_->server->Shutdown(std::chrono::system_clock::now());
}

void FakeWorker::Drain() {
  absl::MutexLock lock(&state_->mutex);
  for (auto& [session, choices] : state_->sessions) {
    v1::SessionResponse response;
    response.mutable_draining()->mutable_grace()->set_seconds(30);
    session->SendLocked(std::move(response));
  }
}

bool FakeWorker::AwaitOpen(int handles) {
  State* const state = state_.get();
  const auto reached = [state, handles]() {
    state->mutex.AssertHeld();
    std::set<uint64_t> open;
    for (const auto& [session, choices] : state->sessions) {
      for (const Running& running : choices) open.insert(running.handle);
    }
    return static_cast<int>(open.size()) == handles;
  };
  absl::MutexLock lock(&state->mutex);
  return state->mutex.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool FakeWorker::AwaitSubmits(int count) {
  State* const state = state_.get();
  const auto reached = [state, count]() {
    state->mutex.AssertHeld();
    return static_cast<int>(state->submits.size()) >= count;
  };
  absl::MutexLock lock(&state->mutex);
  return state->mutex.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool FakeWorker::AwaitCancels(int count) {
  State* const state = state_.get();
  const auto reached = [state, count]() {
    state->mutex.AssertHeld();
    return static_cast<int>(state->cancels.size()) >= count;
  };
  absl::MutexLock lock(&state->mutex);
  return state->mutex.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

std::vector<v1::Submit> FakeWorker::submits() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->submits;
}

std::vector<v1::Cancel> FakeWorker::cancels() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->cancels;
}

void FakeWorker::PromiseHeartbeats(absl::Duration interval) {
  absl::MutexLock lock(&state_->mutex);
  state_->heartbeat = interval;
}

void FakeWorker::ForgetCancelChoices() {
  absl::MutexLock lock(&state_->mutex);
  state_->cancels_choices = false;
}

v1::WorkerStatus FakeWorker::status() const { return state_->status; }

}  // namespace caravan::gateway::testing
