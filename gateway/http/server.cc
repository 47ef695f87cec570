#include "gateway/http/server.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "gateway/http/connection.h"

namespace caravan::gateway::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

absl::Status ListenError(const HttpOptions& options, const error_code& error) {
  return MakeError(Reason::kInternal,
                   StrCat("cannot listen for HTTP on ", options.listen, ":",
                          options.port, ": ", error.message()));
}

}  // namespace

// What the accepting coroutine and the connections hold.
struct HttpServer::Shared : std::enable_shared_from_this<Shared> {
  Shared(const HttpOptions& o, asio::io_context& c, Handler h, Gauge* g)
      : options(o),
        context(c),
        handler(std::move(h)),
        connections(g),
        acceptor(asio::make_strand(c)) {}

  absl::Status Listen();
  asio::awaitable<void> Accept();
  void Serve(tcp::socket socket);
  std::vector<std::shared_ptr<Connection>> Open();

  const HttpOptions options;
  asio::io_context& context;
  const Handler handler;
  Gauge* const connections;
  tcp::acceptor acceptor;
  int port = 0;

  absl::Mutex mutex;
  std::unordered_set<std::shared_ptr<Connection>> open ABSL_GUARDED_BY(mutex);
  bool draining ABSL_GUARDED_BY(mutex) = false;
  bool stopped ABSL_GUARDED_BY(mutex) = false;
};

absl::Status HttpServer::Shared::Listen() {
  error_code error;
  const auto address = asio::ip::make_address(options.listen, error);
  if (error) return ListenError(options, error);
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(4096, error);
  if (error) return ListenError(options, error);
  port = acceptor.local_endpoint(error).port();
  return absl::OkStatus();
}

asio::awaitable<void> HttpServer::Shared::Accept() {
  const auto self = shared_from_this();
  while (acceptor.is_open()) {
    error_code error;
    tcp::socket socket = co_await acceptor.async_accept(
        asio::make_strand(context),
        asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) break;
    if (!error) {
      Serve(std::move(socket));
      continue;
    }
    // Out of descriptors, most likely: some will be given back.
    LogWarning("http_accept_failed", {{"cause", error.message()}});
    asio::steady_timer pause(acceptor.get_executor());
    pause.expires_after(std::chrono::milliseconds(100));
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
  }
}

void HttpServer::Shared::Serve(tcp::socket socket) {
  const auto connection =
      std::make_shared<Connection>(std::move(socket), options);
  {
    absl::MutexLock lock(&mutex);
    if (stopped || static_cast<int>(open.size()) >= options.max_connections) {
      return;  // closed by its destructor
    }
    open.insert(connection);
    if (draining) connection->ServeOnce();
  }
  connections->Add(1);
  const auto serve =
      [](std::shared_ptr<Shared> shared,
         std::shared_ptr<Connection> served) -> asio::awaitable<void> {
    co_await served->Run(shared->handler);
  };
  asio::co_spawn(
      connection->executor(), serve(shared_from_this(), connection),
      [self = shared_from_this(), connection](std::exception_ptr exception) {
        if (exception) LogError("http_connection_failed", {});
        self->connections->Add(-1);
        absl::MutexLock lock(&self->mutex);
        self->open.erase(connection);
      });
}

std::vector<std::shared_ptr<Connection>> HttpServer::Shared::Open() {
  absl::MutexLock lock(&mutex);
  return {open.begin(), open.end()};
}

HttpServer::HttpServer(std::shared_ptr<Shared> shared)
    : shared_(std::move(shared)) {}

HttpServer::~HttpServer() { Stop(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const HttpOptions& options, asio::io_context& context, Handler handler,
    Gauge* connections) {
  auto shared = std::make_shared<Shared>(options, context, std::move(handler),
                                         connections);
  if (absl::Status status = shared->Listen(); !status.ok()) return status;
  asio::co_spawn(shared->acceptor.get_executor(), shared->Accept(),
                 asio::detached);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(shared)));
}

int HttpServer::port() const { return shared_->port; }

void HttpServer::StartDrain() {
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->draining = true;
  }
  for (const auto& connection : shared_->Open()) connection->Drain();
}

void HttpServer::Stop() {
  {
    absl::MutexLock lock(&shared_->mutex);
    if (std::exchange(shared_->stopped, true)) return;
  }
  asio::post(shared_->acceptor.get_executor(), [shared = shared_] {
    error_code ignored;
    shared->acceptor.close(ignored);
  });
  for (const auto& connection : shared_->Open()) connection->Close();
}

}  // namespace caravan::gateway::http
