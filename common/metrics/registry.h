// Metrics of a process: families declared in metrics/names.h, handles made
// once and kept, served as text on a port of its own.
//
//   MetricsRegistry registry;
//   Counter* const requests = registry.MakeCounter(kGatewayRequests,
//                                                  {{"outcome", "ok"}});
//   requests->Increment();
//
// Labels are bounded: never a request id, prompt or user.
//
// Thread-safe. Handles live as long as the registry.
#ifndef CARAVAN_COMMON_METRICS_REGISTRY_H_
#define CARAVAN_COMMON_METRICS_REGISTRY_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan {

// What a metric is called and means; instances live in metrics/names.h.
struct MetricFamily {
  std::string_view name;
  std::string_view help;
  std::vector<double> buckets = {};  // histograms only, ascending
};

using MetricLabels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Increment(double amount = 1) = 0;  // amount >= 0
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double amount) = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
};

class MetricsRegistry {
 public:
  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The same family and labels give the same handle.
  Counter* MakeCounter(const MetricFamily& family, const MetricLabels& labels);
  Gauge* MakeGauge(const MetricFamily& family, const MetricLabels& labels);
  Histogram* MakeHistogram(const MetricFamily& family,
                           const MetricLabels& labels);

  // The Prometheus text format of everything.
  std::string Serialize() const;

  // Serves GET /metrics on HOST:PORT (0: any) until destruction. Returns the
  // real port.
  absl::StatusOr<int> Expose(std::string_view host, int port);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace caravan

#endif  // CARAVAN_COMMON_METRICS_REGISTRY_H_
