// A plain HTTP/1.1 client for JSON: one exchange at a time on a connection
// that is kept.
#ifndef CARAVAN_SERVICES_CLI_HTTP_SESSION_H_
#define CARAVAN_SERVICES_CLI_HTTP_SESSION_H_

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::cli {

struct HttpTarget {
  std::string host;
  std::string port;
  std::string api_key;   // sent as "authorization: Bearer KEY"
  double timeout_s = 0;  // of one exchange; 0: none
};

// HOST:PORT, also with "http://" before it.
absl::StatusOr<HttpTarget> ParseHttpTarget(std::string_view address);

struct HttpReply {
  int status = 0;
  std::string body;  // empty where the pieces went to the caller
};

// The error of an OpenAI-style body, with the reason of its `code`.
absl::Status StatusOfReply(const HttpReply& reply);

// Not thread-safe; lives on one io_context.
class HttpSession {
 public:
  // Gets the body of a reply with status 200 as it comes.
  using OnPiece = std::function<void(std::string_view)>;

  HttpSession(boost::asio::io_context& context, const HttpTarget& target);

  // POSTs `body` and returns the reply. With `on_piece` the body of a 200 goes
  // there instead. Connects where needed; a kept connection that the server
  // closed in the meantime is opened once more.
  boost::asio::awaitable<absl::StatusOr<HttpReply>> Post(
      std::string path, std::string body, OnPiece on_piece = nullptr);

 private:
  boost::asio::awaitable<absl::Status> Connect();
  boost::asio::awaitable<absl::StatusOr<HttpReply>> Exchange(
      const std::string& path, const std::string& body, const OnPiece& on_piece,
      bool* nothing_read);

  boost::asio::io_context& context_;
  const HttpTarget target_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  bool connected_ = false;
};

// One exchange on a connection of its own; blocks.
absl::StatusOr<HttpReply> PostAndWait(const HttpTarget& target,
                                      const std::string& path,
                                      const std::string& body);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_HTTP_SESSION_H_
