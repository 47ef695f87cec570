// The one place where gRPC servers are made: credentials, health, reflection,
// keepalive that permits pings without data, message limits, signals and
// drain.
#ifndef CARAVAN_COMMON_GRPC_SERVER_H_
#define CARAVAN_COMMON_GRPC_SERVER_H_

#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace caravan {

// Certificate and key files; all empty: plaintext. With `ca_file` a server
// asks its clients for certificates (mTLS) and a client verifies with it.
struct TlsOptions {
  std::string certificate_file = {};
  std::string key_file = {};
  std::string ca_file = {};
};

// What all processes have in common on their flags.
struct ServerOptions {
  std::string listen = "127.0.0.1";  // --listen: address to bind
  int port = 0;                      // 0: any free port
  TlsOptions tls = {};
  int max_message_bytes = 64 << 20;
};

// A running gRPC server.
//
// Thread-safe.
class GrpcServer {
 public:
  // Starts serving `services`, which must outlive the server. Health of the
  // whole ("") is NOT_SERVING until SetServing(true).
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      const ServerOptions& options,
      const std::vector<grpc::Service*>& services);

  ~GrpcServer();  // Shutdown with no grace

  int port() const { return port_; }

  // Health of the whole server as grpc.health.v1 reports it.
  void SetServing(bool serving);

  // No new calls; running ones may go on for `grace`, then are cancelled.
  // Blocks until the server is down.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer() = default;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

// Blocks SIGINT, SIGTERM in this thread and all threads made after: called
// first in main. SIGPIPE is ignored.
void BlockTerminationSignals();

// Waits for SIGINT or SIGTERM and returns its number.
int WaitForTerminationSignal();

// Prints "READY key=value ..." on standard output and flushes: the line by
// which whoever started this process learns its real ports.
void AnnounceReady(
    const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_SERVER_H_
