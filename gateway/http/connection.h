// One TCP connection: reads requests within the limits, hands them out, writes
// answers, notices that the client went away.
#ifndef CARAVAN_GATEWAY_HTTP_CONNECTION_H_
#define CARAVAN_GATEWAY_HTTP_CONNECTION_H_

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "gateway/http/exchange.h"
#include "gateway/http/server.h"

namespace caravan::gateway::http {

// Runs on its socket's executor, a strand. Only Close and Drain may be called
// from elsewhere.
class Connection final : public Exchange,
                         public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, const HttpOptions& options);

  // Serves until the connection ends. The caller holds it meanwhile.
  boost::asio::awaitable<void> Run(const Handler& handler);

  boost::asio::any_io_executor executor() { return socket_.get_executor(); }

  // Thread-safe. Ends the connection now.
  void Close();
  // Thread-safe. Ends it after the answer that is under way, or now if idle.
  void Drain();
  // Before Run: the first answer is the last.
  void ServeOnce() { draining_ = true; }

  const Request& request() const override { return request_; }
  boost::asio::awaitable<void> Respond(Response response) override;
  boost::asio::awaitable<bool> BeginEvents(Headers headers,
                                           std::string first) override;
  boost::asio::awaitable<bool> WriteEvents(std::string bytes) override;
  bool unread() const override { return timed_out_; }
  boost::asio::awaitable<void> EndEvents(bool clean) override;
  void WatchDisconnect(std::function<void()> on_disconnect) override;

 private:
  using Parser =
      boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;

  // Cancels what the socket does when it takes too long.
  void Arm(absl::Duration timeout);
  void Disarm();

  boost::asio::awaitable<ErrorCode> ReadHeader(Parser& parser);
  boost::asio::awaitable<ErrorCode> ReadBody(Parser& parser);
  boost::asio::awaitable<bool> ReadRequest();
  boost::asio::awaitable<void> Continue100(Parser& parser);
  boost::asio::awaitable<void> RefuseRead(ErrorCode error);
  boost::asio::awaitable<bool> Write(std::string bytes);
  boost::asio::awaitable<void> Linger();
  void StopWatching();
  void TakeRequest(Parser& parser);

  boost::asio::ip::tcp::socket socket_;
  const HttpOptions& options_;
  boost::asio::steady_timer timer_;
  bool timed_out_ = false;
  uint64_t armed_ = 0;  // number of the timeout that counts
  boost::beast::flat_buffer buffer_;
  Request request_;
  unsigned version_ = 11;
  bool keep_alive_ = true;
  bool idle_ = true;     // between requests
  bool linger_ = false;  // the client may still be sending
  std::shared_ptr<std::function<void()>> watcher_;
  std::atomic<bool> draining_ = false;
};

}  // namespace caravan::gateway::http

#endif  // CARAVAN_GATEWAY_HTTP_CONNECTION_H_
