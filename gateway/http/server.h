// HTTP/1.1 over TCP: connections, limits and timeouts. What paths mean is in
// api.h.
#ifndef CARAVAN_GATEWAY_HTTP_SERVER_H_
#define CARAVAN_GATEWAY_HTTP_SERVER_H_

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/registry.h"
#include "gateway/http/exchange.h"

namespace caravan::gateway::http {

struct HttpOptions {
  std::string listen = "127.0.0.1";
  int port = 0;                          // 0: any free one
  int64_t max_body_bytes = 100'000'000;  // more: 413
  int32_t max_header_bytes = 64 << 10;   // more: 431
  int32_t max_connections = 16'384;      // more: closed at once
  absl::Duration idle_timeout = absl::Seconds(75);
  absl::Duration header_timeout = absl::Seconds(20);  // then 408
  // A body may take this long, and longer at this many bytes a second.
  absl::Duration body_timeout = absl::Seconds(20);  // then 408
  int64_t least_body_bytes_per_second = 64 << 10;
  absl::Duration write_timeout = absl::Seconds(30);  // then closed
};

// Answers one request.
using Handler = std::function<boost::asio::awaitable<void>(Exchange&)>;

// Thread-safe.
class HttpServer {
 public:
  // Listens and accepts on `context`'s threads; the handler and the gauge of
  // open connections must outlive the context's run.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const HttpOptions& options, boost::asio::io_context& context,
      Handler handler, Gauge* connections);
  ~HttpServer();

  int port() const;

  // Connections end after the answer that is under way; idle ones now. New
  // ones get one answer.
  void StartDrain();

  // Accepts no more, and closes all connections.
  void Stop();

 private:
  struct Shared;
  explicit HttpServer(std::shared_ptr<Shared> shared);

  const std::shared_ptr<Shared> shared_;
};

}  // namespace caravan::gateway::http

#endif  // CARAVAN_GATEWAY_HTTP_SERVER_H_
