#include "worker/server/router_link_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"

namespace caravan::worker {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kGreatestBackoff = absl::Seconds(2);
constexpr absl::Duration kHeartbeatInterval = absl::Milliseconds(500);
constexpr absl::Duration kLeastHeartbeatInterval = absl::Milliseconds(20);
constexpr absl::Duration kGreatestHeartbeatInterval = absl::Seconds(10);

// A router that does not read gets no more than this many messages ahead.
constexpr size_t kMaxUnsent = 64;

}  // namespace

// The reactor. Lives until OnDone, however long the link holds it.
//
// Thread-safe.
class RouterLink::Stream final
    : public grpc::ClientBidiReactor<v1::RegisterRequest,
                                     v1::RegisterResponse> {
 public:
  explicit Stream(std::function<void()> wake) : wake_(std::move(wake)) {}

  static std::shared_ptr<Stream> Start(v1::RouterService::Stub& stub,
                                       std::function<void()> wake) {
    auto stream = std::make_shared<Stream>(std::move(wake));
    stream->self_ = stream;
    stub.async()->Register(&stream->call_, stream.get());
    stream->AddHold();  // for Send, which comes from outside
    stream->StartRead(&stream->incoming_);
    stream->StartCall();
    return stream;
  }

  void Send(v1::RegisterRequest request) {
    absl::MutexLock lock(&mutex_);
    if (broken_) return;
    outbox_.push_back(std::move(request));
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
  }

  bool CanSend() const {
    absl::MutexLock lock(&mutex_);
    return !broken_ && outbox_.size() < kMaxUnsent;
  }

  std::vector<v1::RegisterResponse> TakeResponses() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(responses_, {});
  }

  // The status, once the stream is over.
  std::optional<absl::Status> Ended() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

  void Cancel() { call_.TryCancel(); }

  void AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Stream::EndedLocked));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Break();
    {
      absl::MutexLock lock(&mutex_);
      responses_.push_back(incoming_);
    }
    wake_();
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Break();
    absl::MutexLock lock(&mutex_);
    outbox_.pop_front();
    if (!outbox_.empty()) StartWrite(&outbox_.front());
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Stream> self = std::move(self_);
    absl::MutexLock lock(&mutex_);
    status_ = FromGrpcStatus(status);
    wake_();  // under the lock: AwaitEnd returns after it
  }

 private:
  // No write starts any more, so the hold can go.
  void Break() {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(broken_, true)) return;
    call_.TryCancel();
    RemoveHold();
  }

  bool EndedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return status_.has_value();
  }

  const std::function<void()> wake_;
  grpc::ClientContext call_;
  v1::RegisterResponse incoming_;  // of the read under way
  std::shared_ptr<Stream> self_;   // until OnDone
  mutable absl::Mutex mutex_;
  // The first is being written.
  std::deque<v1::RegisterRequest> outbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::RegisterResponse> responses_ ABSL_GUARDED_BY(mutex_);
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);
};

RouterLink::RouterLink(std::string address,
                       std::shared_ptr<grpc::Channel> channel,
                       const RegistrationContext& context,
                       std::function<void()> wake)
    : address_(std::move(address)),
      context_(context),
      wake_(std::move(wake)),
      stub_(v1::RouterService::NewStub(channel)),
      backoff_(kFirstBackoff),
      heartbeat_interval_(kHeartbeatInterval) {}

RouterLink::~RouterLink() {
  if (stream_ == nullptr) return;
  stream_->Cancel();
  stream_->AwaitEnd();
}

absl::Time RouterLink::Advance(absl::Time now, bool draining) {
  if (stream_ != nullptr) Read(now);
  if (stream_ == nullptr) {
    if (now < retry_at_) return retry_at_;
    Connect();
  }
  const bool news = draining != told_draining_;
  if (now >= next_heartbeat_ || news) SendHeartbeat(now, draining);
  if (registered_) SendEvents();
  return next_heartbeat_;
}

void RouterLink::Connect() {
  stream_ = Stream::Start(*stub_, wake_);
  registered_ = false;
  told_draining_ = false;
  last_event_.reset();
  next_heartbeat_ = absl::InfinitePast();
  v1::RegisterRequest hello;
  *hello.mutable_hello() = MakeHello(*context_.facts);
  stream_->Send(std::move(hello));
  v1::RegisterRequest request;
  v1::Registration* const registration = request.mutable_registration();
  registration->set_worker_id(context_.facts->worker_id);
  registration->set_address(context_.facts->address);
  registration->set_epoch(context_.facts->epoch);
  *registration->mutable_model() = context_.facts->model;
  for (const v1::Feature feature : KnownFeatures()) {
    registration->add_features(feature);
  }
  registration->add_roles(v1::TARGET_ROLE_WHOLE);
  stream_->Send(std::move(request));
}

void RouterLink::Read(absl::Time now) {
  const std::shared_ptr<Stream> stream = stream_;
  const std::optional<absl::Status> ended = stream->Ended();
  for (const v1::RegisterResponse& response : stream->TakeResponses()) {
    OnResponse(response, now);
  }
  if (ended.has_value()) OnBroken(*ended, now);
}

void RouterLink::OnResponse(const v1::RegisterResponse& response,
                            absl::Time now) {
  switch (response.kind_case()) {
    case v1::RegisterResponse::kHello:
      return OnHello(response.hello());
    case v1::RegisterResponse::kRegistered:
      return OnRegistered(response.registered(), now);
    case v1::RegisterResponse::kSnapshotWanted:
      last_event_.reset();
      return;
    case v1::RegisterResponse::kRefused:
      return GiveUp("registration_refused", FromProtoError(response.refused()));
    case v1::RegisterResponse::KIND_NOT_SET:
      return;  // of a later revision
  }
}

void RouterLink::OnHello(const v1::Hello& hello) {
  const absl::Status status = CheckHello(hello);
  if (!status.ok()) GiveUp("router_mismatch", status);
}

void RouterLink::OnRegistered(const v1::Registered& registered,
                              absl::Time now) {
  registered_ = true;
  unreachable_logged_ = false;
  backoff_ = kFirstBackoff;
  const absl::Duration wanted =
      absl::Seconds(registered.heartbeat_interval().seconds()) +
      absl::Nanoseconds(registered.heartbeat_interval().nanos());
  heartbeat_interval_ = wanted <= absl::ZeroDuration()
                            ? kHeartbeatInterval
                            : std::clamp(wanted, kLeastHeartbeatInterval,
                                         kGreatestHeartbeatInterval);
  next_heartbeat_ = std::min(next_heartbeat_, now + heartbeat_interval_);
  LogInfo("registered", {{"router", address_}});
}

// What the router said is logged; that the stream then breaks is not.
void RouterLink::GiveUp(std::string_view event, const absl::Status& status) {
  if (!std::exchange(unreachable_logged_, true)) {
    LogError(event, {{"router", address_}, {"status", status}});
  }
  backoff_ = kGreatestBackoff;
  stream_->Cancel();
}

void RouterLink::OnBroken(const absl::Status& status, absl::Time now) {
  if (!std::exchange(unreachable_logged_, true)) {
    LogWarning("router_lost", {{"router", address_}, {"status", status}});
  }
  stream_.reset();
  registered_ = false;
  const double spread = absl::Uniform(jitter_, 0.75, 1.25);
  retry_at_ = now + backoff_ * spread;
  backoff_ = std::min(backoff_ * 2, kGreatestBackoff);
}

void RouterLink::SendHeartbeat(absl::Time now, bool draining) {
  next_heartbeat_ = now + heartbeat_interval_;
  if (!stream_->CanSend()) return;
  told_draining_ = draining;
  v1::RegisterRequest request;
  *request.mutable_heartbeat()->mutable_load() = context_.load->Current();
  request.mutable_heartbeat()->set_draining(draining);
  stream_->Send(std::move(request));
}

void RouterLink::SendEvents() {
  while (stream_->CanSend()) {
    std::optional<v1::KvEvents> events =
        last_event_.has_value() ? context_.feed->After(*last_event_)
                                : context_.feed->Snapshot();
    if (!events.has_value()) return;
    last_event_ = events->sequence_number();
    v1::RegisterRequest request;
    *request.mutable_kv_events() = *std::move(events);
    stream_->Send(std::move(request));
  }
}

}  // namespace caravan::worker
