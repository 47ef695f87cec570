#include "gateway/backend/worker_client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "caravan/v1/worker.grpc.pb.h"
#include "common/build_info.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/backend/silence.h"
#include "gateway/backend/step_demux.h"

namespace caravan::gateway {
namespace {

// How finely silence is measured.
constexpr absl::Duration kTick = absl::Milliseconds(50);

// A request of this session that has not ended.
struct OpenHandle {
  std::shared_ptr<Inbox> inbox;
  absl::flat_hash_set<int32_t> choices;  // that have not ended
};

v1::SessionRequest HelloMessage(const std::string& sender_id) {
  v1::SessionRequest message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_least_revision(kLeastProtocolRevision);
  hello.set_greatest_revision(kGreatestProtocolRevision);
  hello.set_build(std::string(BuildId()));
  hello.set_sender_id(sender_id);
  for (const v1::Feature feature :
       {v1::FEATURE_PROMPT_LOGPROBS, v1::FEATURE_MULTIPLE_CHOICES,
        v1::FEATURE_RESUME, v1::FEATURE_CANCEL_CHOICES}) {
    hello.add_features(feature);
  }
  return message;
}

absl::Status CheckHello(const v1::Hello& hello) {
  if (hello.least_revision() <= kGreatestProtocolRevision &&
      hello.greatest_revision() >= kLeastProtocolRevision) {
    return absl::OkStatus();
  }
  return MakeError(
      Reason::kProtocolMismatch,
      StrCat("protocol revision must be in [", kLeastProtocolRevision, ", ",
             kGreatestProtocolRevision, "]; the worker speaks [",
             hello.least_revision(), ", ", hello.greatest_revision(), "]"));
}

absl::Duration HeartbeatOf(const v1::Hello& hello) {
  return absl::Seconds(hello.heartbeat_interval().seconds()) +
         absl::Nanoseconds(hello.heartbeat_interval().nanos());
}

bool Knows(const v1::Hello& hello, v1::Feature feature) {
  return std::find(hello.features().begin(), hello.features().end(), feature) !=
         hello.features().end();
}

// Ours: the stream, its queue of writes and its open handles. Holds itself
// until gRPC says that it is done.
class Session final
    : public WorkerSession,
      public grpc::ClientBidiReactor<v1::SessionRequest, v1::SessionResponse>,
      public std::enable_shared_from_this<Session> {
 public:
  Session(std::string address, std::shared_ptr<grpc::Channel> channel)
      : address_(std::move(address)),
        channel_(std::move(channel)),
        stub_(v1::WorkerService::NewStub(channel_)) {}

  void Start(const std::string& sender_id);
  void Close() { context_.TryCancel(); }
  // So much time has gone: ends the session of a worker that is dead.
  void Tick(absl::Duration time);
  void AwaitEnd();

  bool Submit(v1::Submit submit, std::shared_ptr<Inbox> inbox) override;
  void Cancel(uint64_t handle) override;
  void CancelChoices(uint64_t handle,
                     std::span<const int32_t> choices) override;
  bool usable() const override {
    absl::MutexLock lock(&mutex_);
    return !over_ && !draining_;
  }
  bool over() const {
    absl::MutexLock lock(&mutex_);
    return over_;
  }
  bool done() const {
    absl::MutexLock lock(&mutex_);
    return done_;
  }
  int32_t open_count() const override {
    absl::MutexLock lock(&mutex_);
    return static_cast<int32_t>(open_.size());
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void Write(v1::SessionRequest message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteCancel(uint64_t handle, std::span<const int32_t> choices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool OnMessage();
  void OnStep(const v1::StepOutput& step);
  void OnDraining();
  std::shared_ptr<Inbox> Account(const HandleEvents& events)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  v1::SessionResponse response_;  // of the read that is under way
  absl::Status link_error_;       // written and read by reactions only
  std::shared_ptr<Session> self_;

  mutable absl::Mutex mutex_;
  Silence silence_ ABSL_GUARDED_BY(mutex_);
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;  // for too long
  absl::flat_hash_map<uint64_t, OpenHandle> open_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::SessionRequest> writes_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;          // their hello came
  bool cancels_choices_ ABSL_GUARDED_BY(mutex_) = false;  // it can
};

void Session::Start(const std::string& sender_id) {
  self_ = shared_from_this();
  stub_->async()->Session(&context_, this);
  AddHold();  // writes start outside of reactions, until the reads end
  StartRead(&response_);
  StartCall();
  absl::MutexLock lock(&mutex_);
  Write(HelloMessage(sender_id));
}

void Session::AwaitEnd() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done_));
}

bool Session::Submit(v1::Submit submit, std::shared_ptr<Inbox> inbox) {
  absl::MutexLock lock(&mutex_);
  if (over_) return false;
  OpenHandle& open = open_[submit.handle()];
  open.inbox = std::move(inbox);
  for (const v1::SubmitChoice& choice : submit.choices()) {
    open.choices.insert(choice.index());
  }
  v1::SessionRequest message;
  *message.mutable_submit() = std::move(submit);
  Write(std::move(message));
  return true;
}

void Session::Cancel(uint64_t handle) {
  absl::MutexLock lock(&mutex_);
  if (open_.erase(handle) > 0 && !over_) WriteCancel(handle, {});
}

void Session::CancelChoices(uint64_t handle, std::span<const int32_t> choices) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(handle);
  if (it == open_.end() || over_ || !cancels_choices_) return;
  std::vector<int32_t> running;
  for (const int32_t choice : choices) {
    if (it->second.choices.erase(choice) > 0) running.push_back(choice);
  }
  if (it->second.choices.empty()) open_.erase(it);
  if (!running.empty()) WriteCancel(handle, running);
}

// Without choices: the whole handle.
void Session::WriteCancel(uint64_t handle, std::span<const int32_t> choices) {
  v1::SessionRequest message;
  v1::Cancel& cancel = *message.mutable_cancel();
  cancel.set_handle(handle);
  cancel.mutable_choices()->Add(choices.begin(), choices.end());
  Write(std::move(message));
}

void Session::Write(v1::SessionRequest message) {
  writes_.push_back(std::move(message));
  if (!writing_) WriteNext();
}

// The front of the queue is the write that is under way.
void Session::WriteNext() {
  writing_ = !writes_.empty() && !over_;
  if (writing_) StartWrite(&writes_.front());
}

void Session::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writes_.pop_front();
  if (ok) {
    WriteNext();
  } else {
    writing_ = false;  // the stream is broken: OnReadDone(false) follows
  }
}

void Session::OnReadDone(bool ok) {
  if (ok && OnMessage()) {
    StartRead(&response_);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
  }
  if (ok) context_.TryCancel();
  RemoveHold();
}

void Session::Tick(absl::Duration time) {
  {
    absl::MutexLock lock(&mutex_);
    if (over_ || silent_ || !silence_.Tick(time)) return;
    silent_ = true;
  }
  context_.TryCancel();
}

// False ends the session.
bool Session::OnMessage() {
  {
    absl::MutexLock lock(&mutex_);
    silence_.Heard();
  }
  switch (response_.kind_case()) {
    case v1::SessionResponse::kHello: {
      link_error_ = CheckHello(response_.hello());
      absl::MutexLock lock(&mutex_);
      greeted_ = link_error_.ok();
      silence_.Greeted(HeartbeatOf(response_.hello()));
      cancels_choices_ = Knows(response_.hello(), v1::FEATURE_CANCEL_CHOICES);
      return greeted_;
    }
    case v1::SessionResponse::kStep:
      OnStep(response_.step());
      return true;
    case v1::SessionResponse::kDraining:
      OnDraining();
      return true;
    case v1::SessionResponse::kHeartbeat:
    case v1::SessionResponse::KIND_NOT_SET:  // a kind of a later revision
      return true;
  }
  return true;
}

void Session::OnStep(const v1::StepOutput& step) {
  std::vector<HandleEvents> split = SplitByHandle(step);
  std::vector<std::shared_ptr<Inbox>> inboxes(split.size());
  {
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < split.size(); ++i) inboxes[i] = Account(split[i]);
  }
  for (size_t i = 0; i < split.size(); ++i) {
    const uint64_t handle = split[i].handle;
    if (inboxes[i] && !inboxes[i]->Push(std::move(split[i]))) Cancel(handle);
  }
}

// Whose events these are; nothing where the handle was cancelled. A handle
// that ends with them is forgotten.
std::shared_ptr<Inbox> Session::Account(const HandleEvents& events) {
  const auto it = open_.find(events.handle);
  if (it == open_.end()) return nullptr;
  std::shared_ptr<Inbox> inbox = it->second.inbox;
  absl::flat_hash_set<int32_t>& choices = it->second.choices;
  for (const WorkerFinish& finish : events.finishes) {
    choices.erase(finish.choice);
  }
  if (!events.error.ok() || choices.empty()) open_.erase(it);
  return inbox;
}

void Session::OnDraining() {
  std::vector<std::pair<uint64_t, std::shared_ptr<Inbox>>> moving;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    for (const auto& [handle, open] : open_) {
      moving.emplace_back(handle, open.inbox);
    }
  }
  LogInfo("worker_drains", {{"address", address_}, {"streams", moving.size()}});
  for (auto& [handle, inbox] : moving) {
    HandleEvents events;
    events.handle = handle;
    events.should_move = true;
    if (!inbox->Push(std::move(events))) Cancel(handle);
  }
}

void Session::OnDone(const grpc::Status& status) {
  absl::flat_hash_map<uint64_t, OpenHandle> lost;
  bool greeted = false;
  std::string how = status.error_message();
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
    greeted = greeted_;
    lost.swap(open_);
    if (silent_) {
      how = StrCat("silent for ", absl::FormatDuration(silence_.lasted()));
    }
  }
  const absl::Status cause =
      !link_error_.ok()
          ? link_error_
          : MakeError(Reason::kWorkerLost, StrCat("session with worker ",
                                                  address_, " ended: ", how));
  // Cancelled without a stream: this side closed it.
  const bool expected =
      lost.empty() && status.error_code() == grpc::StatusCode::CANCELLED;
  const auto log = expected ? LogInfo : LogWarning;
  log("worker_session_over",
      {{"address", address_}, {"streams", lost.size()}, {"cause", cause}});
  for (auto& [handle, open] : lost) {
    HandleEvents events;
    events.handle = handle;
    events.error = cause;
    events.worker_died = greeted;
    (void)open.inbox->Push(std::move(events));
  }
  const std::shared_ptr<Session> self = std::move(self_);
  absl::MutexLock lock(&mutex_);
  done_ = true;
}

}  // namespace

struct WorkerClient::Sessions {
  absl::flat_hash_map<std::string, std::shared_ptr<Session>> by_address;
  std::vector<std::shared_ptr<Session>> retired;  // replaced, maybe not done
};

WorkerClient::WorkerClient(ChannelOptions options, std::string sender_id)
    : options_(std::move(options)),
      sender_id_(std::move(sender_id)),
      sessions_(std::make_unique<Sessions>()),
      ticker_([this] { RunTicks(); }) {}

WorkerClient::~WorkerClient() { Shutdown(); }

absl::StatusOr<std::shared_ptr<WorkerSession>> WorkerClient::Get(
    const std::string& address) {
  absl::MutexLock lock(&mutex_);
  if (shut_down_) {
    return MakeError(Reason::kDraining, "the gateway is shutting down");
  }
  std::shared_ptr<Session>& session = sessions_->by_address[address];
  if (session && !session->over()) return session;
  CARAVAN_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                           MakeChannel(address, options_));
  if (session) sessions_->retired.push_back(std::move(session));
  std::erase_if(sessions_->retired,
                [](const auto& old) { return old->done(); });
  session = std::make_shared<Session>(address, channel);
  session->Start(sender_id_);
  return session;
}

std::shared_ptr<WorkerSession> WorkerClient::Find(
    const std::string& address) const {
  absl::MutexLock lock(&mutex_);
  const auto it = sessions_->by_address.find(address);
  if (it == sessions_->by_address.end() || !it->second) return nullptr;
  return it->second->over() ? nullptr : it->second;
}

uint64_t WorkerClient::NewHandle() {
  absl::MutexLock lock(&mutex_);
  return next_handle_++;
}

void WorkerClient::RunTicks() {
  for (;;) {
    std::vector<std::shared_ptr<Session>> sessions;
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&shut_down_), kTick)) return;
      for (const auto& [address, session] : sessions_->by_address) {
        if (session) sessions.push_back(session);
      }
    }
    for (const auto& session : sessions) session->Tick(kTick);
  }
}

void WorkerClient::Shutdown() {
  std::vector<std::shared_ptr<Session>> sessions;
  {
    absl::MutexLock lock(&mutex_);
    shut_down_ = true;
    sessions = std::exchange(sessions_->retired, {});
    for (auto& [address, session] : sessions_->by_address) {
      if (session) sessions.push_back(std::move(session));
    }
    sessions_->by_address.clear();
  }
  if (ticker_.joinable()) ticker_.join();
  for (const auto& session : sessions) session->Close();
  for (const auto& session : sessions) session->AwaitEnd();
}

}  // namespace caravan::gateway
