#include "common/metrics/registry.h"

#include <netdb.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan {
namespace {

class PrometheusCounter final : public Counter {
 public:
  explicit PrometheusCounter(prometheus::Counter& counter)
      : counter_(counter) {}
  void Increment(double amount) override { counter_.Increment(amount); }

 private:
  prometheus::Counter& counter_;
};

class PrometheusGauge final : public Gauge {
 public:
  explicit PrometheusGauge(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_.Set(value); }
  void Add(double amount) override { gauge_.Increment(amount); }

 private:
  prometheus::Gauge& gauge_;
};

class PrometheusHistogram final : public Histogram {
 public:
  explicit PrometheusHistogram(prometheus::Histogram& histogram)
      : histogram_(histogram) {}
  void Observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

using HandleKey = std::pair<std::string, MetricLabels>;

template <typename Handle>
using Handles = std::map<HandleKey, std::unique_ptr<Handle>>;

// A name or label that Prometheus refuses is a mistake in metrics/names.h.
[[noreturn]] void DieOfBadFamily(std::string_view name,
                                 const std::exception& error) {
  LogError("metric_family_refused", {{"name", name}, {"error", error.what()}});
  std::abort();
}

// The handle of (family, labels), made by `make` the first time.
template <typename Handle, typename Make>
Handle* FindOrMake(Handles<Handle>& handles, const MetricFamily& family,
                   const MetricLabels& labels, Make make) {
  std::unique_ptr<Handle>& handle =
      handles[HandleKey(std::string(family.name), labels)];
  if (!handle) {
    try {
      handle = make();
    } catch (const std::exception& error) {
      DieOfBadFamily(family.name, error);
    }
  }
  return handle.get();
}

// HOST:PORT, an IPv6 host in brackets.
std::string JoinHostPort(std::string_view host, int port) {
  const bool bare_ipv6 = host.find(':') != host.npos && !host.starts_with('[');
  return bare_ipv6 ? StrCat("[", host, "]:", port) : StrCat(host, ":", port);
}

// Opens a connection to HOST:PORT and closes it.
void Poke(const std::string& host, int port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* address = nullptr;
  if (getaddrinfo(host.c_str(), StrCat(port).c_str(), &hints, &address) != 0) {
    return;
  }
  const int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    // A failure means that nobody listens any more: what is wanted.
    static_cast<void>(connect(fd, address->ai_addr, address->ai_addrlen));
    close(fd);
  }
  freeaddrinfo(address);
}

// The HTTP server looks only every two seconds whether it should stop, or
// when somebody connects: so somebody does, and a process ends in
// milliseconds.
void StopExposer(std::unique_ptr<prometheus::Exposer> exposer,
                 const std::string& host, int port) {
  absl::Notification stopped;
  const std::jthread stopper([&] {
    exposer.reset();
    stopped.Notify();
  });
  while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10))) {
    Poke(host, port);
  }
}

}  // namespace

struct MetricsRegistry::Impl {
  std::shared_ptr<prometheus::Registry> registry =
      std::make_shared<prometheus::Registry>();
  absl::Mutex mutex;
  Handles<Counter> counters ABSL_GUARDED_BY(mutex);
  Handles<Gauge> gauges ABSL_GUARDED_BY(mutex);
  Handles<Histogram> histograms ABSL_GUARDED_BY(mutex);
  std::unique_ptr<prometheus::Exposer> exposer ABSL_GUARDED_BY(mutex);
  std::string host ABSL_GUARDED_BY(mutex);  // of the exposer
  int port ABSL_GUARDED_BY(mutex) = 0;
};

MetricsRegistry::MetricsRegistry() : impl_(std::make_unique<Impl>()) {}

MetricsRegistry::~MetricsRegistry() {
  absl::MutexLock lock(&impl_->mutex);
  if (impl_->exposer) {
    StopExposer(std::move(impl_->exposer), impl_->host, impl_->port);
  }
}

Counter* MetricsRegistry::MakeCounter(const MetricFamily& family,
                                      const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  return FindOrMake(impl_->counters, family, labels, [&] {
    return std::make_unique<PrometheusCounter>(
        prometheus::BuildCounter()
            .Name(std::string(family.name))
            .Help(std::string(family.help))
            .Register(*impl_->registry)
            .Add(labels));
  });
}

Gauge* MetricsRegistry::MakeGauge(const MetricFamily& family,
                                  const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  return FindOrMake(impl_->gauges, family, labels, [&] {
    return std::make_unique<PrometheusGauge>(prometheus::BuildGauge()
                                                 .Name(std::string(family.name))
                                                 .Help(std::string(family.help))
                                                 .Register(*impl_->registry)
                                                 .Add(labels));
  });
}

Histogram* MetricsRegistry::MakeHistogram(const MetricFamily& family,
                                          const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  return FindOrMake(impl_->histograms, family, labels, [&] {
    return std::make_unique<PrometheusHistogram>(
        prometheus::BuildHistogram()
            .Name(std::string(family.name))
            .Help(std::string(family.help))
            .Register(*impl_->registry)
            .Add(labels, family.buckets));
  });
}

std::string MetricsRegistry::Serialize() const {
  return prometheus::TextSerializer().Serialize(impl_->registry->Collect());
}

absl::StatusOr<int> MetricsRegistry::Expose(std::string_view host, int port) {
  const std::string address = JoinHostPort(host, port);
  absl::MutexLock lock(&impl_->mutex);
  try {
    auto exposer =
        std::make_unique<prometheus::Exposer>(std::vector<std::string>{
            "listening_ports", address, "num_threads", "2"});
    exposer->RegisterCollectable(impl_->registry);
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty()) {
      return FieldError("--metrics-port", "free to listen on", address);
    }
    impl_->exposer = std::move(exposer);
    impl_->host = std::string(host);
    impl_->port = ports.front();
    return impl_->port;
  } catch (const std::exception& error) {
    return Annotate(FieldError("--metrics-port", "free to listen on", address),
                    error.what());
  }
}

}  // namespace caravan
