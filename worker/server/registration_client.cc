#include "worker/server/registration_client.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/log.h"
#include "common/status/status_macros.h"

namespace caravan::worker {
namespace {

constexpr absl::Duration kLongestSleep = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<RegistrationClient>> RegistrationClient::Start(
    RegistrationOptions options, const RegistrationContext& context,
    const Clock* clock) {
  // Unreadable TLS files are found here, not in a thread.
  CARAVAN_RETURN_IF_ERROR(MakeChannel("127.0.0.1:1", options.channel).status());
  std::unique_ptr<RegistrationClient> client(
      new RegistrationClient(std::move(options), context, clock));
  RegistrationClient* const raw = client.get();
  raw->resolver_ =
      std::jthread([raw](std::stop_token stop) { raw->RunResolver(stop); });
  raw->thread_ = std::jthread([raw](std::stop_token stop) { raw->Run(stop); });
  return client;
}

RegistrationClient::RegistrationClient(RegistrationOptions options,
                                       const RegistrationContext& context,
                                       const Clock* clock)
    : options_(std::move(options)), context_(context), clock_(clock) {}

RegistrationClient::~RegistrationClient() {
  resolver_.request_stop();
  thread_.request_stop();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  Wake();
}

void RegistrationClient::StartDrain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Wake();
}

int32_t RegistrationClient::registered_count() const {
  absl::MutexLock lock(&mutex_);
  return registered_count_;
}

void RegistrationClient::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

void RegistrationClient::Run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    UpdateLinks();
    const absl::Time now = clock_->Now();
    const absl::Time flush = FlushEvents(now);
    Sleep(now, std::min(flush, AdvanceLinks(now)));
  }
  links_.clear();
}

absl::Time RegistrationClient::FlushEvents(absl::Time now) {
  if (!context_.feed->pending()) return absl::InfiniteFuture();
  if (now < next_flush_) return next_flush_;
  context_.feed->Flush();
  next_flush_ = now + options_.event_interval;
  return absl::InfiniteFuture();
}

absl::Time RegistrationClient::AdvanceLinks(absl::Time now) {
  const bool draining = this->draining();
  absl::Time next = absl::InfiniteFuture();
  int32_t registered = 0;
  for (const auto& [address, link] : links_) {
    next = std::min(next, link->Advance(now, draining));
    if (link->registered()) ++registered;
  }
  absl::MutexLock lock(&mutex_);
  registered_count_ = registered;
  return next;
}

void RegistrationClient::Sleep(absl::Time now, absl::Time until) {
  const absl::Duration time =
      std::clamp(until - now, absl::ZeroDuration(), kLongestSleep);
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(
      absl::Condition(this, &RegistrationClient::WokenLocked), time);
  woken_ = false;
}

void RegistrationClient::UpdateLinks() {
  std::set<std::string> wanted;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [router, addresses] : resolved_) {
      wanted.insert(addresses.begin(), addresses.end());
    }
  }
  std::erase_if(
      links_, [&](const auto& entry) { return !wanted.contains(entry.first); });
  for (const std::string& address : wanted) {
    if (!links_.contains(address)) AddLink(address);
  }
}

void RegistrationClient::AddLink(const std::string& address) {
  auto channel = MakeChannel(address, options_.channel);
  if (!channel.ok()) {
    LogError("router_channel",
             {{"router", address}, {"status", channel.status()}});
    return;
  }
  links_[address] = std::make_unique<RouterLink>(address, *std::move(channel),
                                                 context_, [this] { Wake(); });
}

void RegistrationClient::RunResolver(std::stop_token stop) {
  while (!stop.stop_requested()) {
    for (const std::string& router : options_.routers) Resolve(router);
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(
        absl::Condition(this, &RegistrationClient::StoppingLocked),
        options_.resolve_interval);
  }
}

// A name that does not resolve now keeps the addresses that it had.
void RegistrationClient::Resolve(const std::string& router) {
  const bool tls = !options_.channel.tls.ca_file.empty();
  absl::StatusOr<std::vector<std::string>> addresses =
      tls ? absl::StatusOr<std::vector<std::string>>({router})
          : options_.resolve(router);
  if (!addresses.ok()) {
    LogWarning("router_unresolved",
               {{"router", router}, {"status", addresses.status()}});
    return;
  }
  absl::MutexLock lock(&mutex_);
  std::vector<std::string>& known = resolved_[router];
  if (known == *addresses) return;
  known = *std::move(addresses);
  woken_ = true;
}

bool RegistrationClient::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

}  // namespace caravan::worker
