// The whole gateway in one object: clients of the other processes, pipeline,
// front doors, threads.
#ifndef CARAVAN_GATEWAY_GATEWAY_H_
#define CARAVAN_GATEWAY_GATEWAY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/options.h"
#include "gateway/pipeline.h"

namespace caravan::gateway {

// Thread-safe after Start.
class Gateway {
 public:
  // Starts all threads and listens. Router, tokenizer and workers need not be
  // there yet. Errors: kInvalidField for the API keys; ports that are taken.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(
      const GatewayOptions& options);
  // Shutdown without grace, if there was none.
  ~Gateway();

  int http_port() const;
  int grpc_port() const;
  int metrics_port() const;
  Pipeline& pipeline();

  // Refuses new requests with a retryable error, lets running streams go on
  // for `grace`, ends the rest, and stops all threads.
  void Shutdown(absl::Duration grace);

 private:
  struct Parts;
  explicit Gateway(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GATEWAY_H_
