#include "gateway/http/connection.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <string_view>
#include <utility>

#include "absl/time/clock.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "gateway/http/sse_writer.h"
#include "gateway/openai/error_body.h"

namespace caravan::gateway::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using boost::system::error_code;

// What a client may still send after a refusal, so that it reads the refusal
// before it is cut off.
constexpr size_t kLingerBytes = 256 << 20;
constexpr absl::Duration kLingerTime = absl::Seconds(10);

auto Redirect(error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    default: {
      const auto text = beast::http::obsolete_reason(
          beast::http::int_to_status(static_cast<unsigned>(status)));
      return {text.data(), text.size()};
    }
  }
}

// No byte of a header's value may begin another header.
void AppendHeader(std::string_view name, std::string_view value,
                  std::string& out) {
  StrAppend(&out, name, ": ");
  for (const char c : value) {
    out += static_cast<unsigned char>(c) < ' ' && c != '\t' ? ' ' : c;
  }
  out += "\r\n";
}

std::string StatusLine(int status) {
  return StrCat("HTTP/1.1 ", status, " ", ReasonPhrase(status), "\r\n");
}

std::string FieldOf(const auto& message, std::string_view name) {
  const auto value = message[beast::string_view(name.data(), name.size())];
  return std::string(value.data(), value.size());
}

Response TransportError(int status, const absl::Status& error) {
  Response response;
  response.status = status;
  response.body = openai::ErrorBody(error);
  response.close = true;
  return response;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, const HttpOptions& options)
    : socket_(std::move(socket)),
      options_(options),
      timer_(socket_.get_executor()) {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

asio::awaitable<void> Connection::Run(const Handler& handler) {
  do {
    idle_ = true;
    const bool has_request = co_await ReadRequest();
    if (!has_request) break;
    co_await handler(*this);
    StopWatching();
  } while (keep_alive_ && !draining_ && socket_.is_open());
  if (linger_) co_await Linger();
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

void Connection::Close() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    error_code ignored;
    self->keep_alive_ = false;
    self->socket_.close(ignored);
  });
}

void Connection::Drain() {
  draining_ = true;
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    error_code ignored;
    if (self->idle_ && self->buffer_.size() == 0) self->socket_.close(ignored);
  });
}

void Connection::Arm(absl::Duration timeout) {
  timed_out_ = false;
  const uint64_t number = ++armed_;
  timer_.expires_after(absl::ToChronoNanoseconds(timeout));
  timer_.async_wait([self = shared_from_this(), number](error_code error) {
    if (error || number != self->armed_) return;
    self->timed_out_ = true;
    self->socket_.cancel(error);
  });
}

void Connection::Disarm() {
  ++armed_;
  timer_.cancel();
}

// --- Reading ----------------------------------------------------------------

asio::awaitable<error_code> Connection::ReadHeader(Parser& parser) {
  error_code error;
  // The first byte may be long in coming; the rest may not.
  if (buffer_.size() == 0) {
    Arm(options_.idle_timeout);
    const size_t size = co_await socket_.async_read_some(buffer_.prepare(4096),
                                                         Redirect(error));
    buffer_.commit(size);
    if (error) co_return asio::error::eof;  // nothing was asked
  }
  idle_ = false;
  Arm(options_.header_timeout);
  co_await beast::http::async_read_header(socket_, buffer_, parser,
                                          Redirect(error));
  co_return error;
}

asio::awaitable<error_code> Connection::ReadBody(Parser& parser) {
  error_code error;
  const absl::Time begin = absl::Now();
  while (!error && !parser.is_done()) {
    const auto bytes = static_cast<double>(parser.get().body().size());
    const absl::Duration allowed =
        options_.body_timeout +
        absl::Seconds(
            bytes / static_cast<double>(options_.least_body_bytes_per_second));
    const absl::Duration left = begin + allowed - absl::Now();
    Arm(std::max(left, absl::Milliseconds(1)));
    co_await beast::http::async_read_some(socket_, buffer_, parser,
                                          Redirect(error));
  }
  co_return error;
}

asio::awaitable<void> Connection::Continue100(Parser& parser) {
  const std::string expect = FieldOf(parser.get(), "Expect");
  if (!beast::iequals(expect, "100-continue")) co_return;
  co_await Write("HTTP/1.1 100 Continue\r\n\r\n");
}

// False when the connection is to end.
asio::awaitable<bool> Connection::ReadRequest() {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options_.max_header_bytes));
  parser.body_limit(static_cast<uint64_t>(options_.max_body_bytes));
  error_code error = co_await ReadHeader(parser);
  if (!error) {
    co_await Continue100(parser);
    error = co_await ReadBody(parser);
  }
  Disarm();
  if (!error) {
    TakeRequest(parser);
    co_return true;
  }
  if (error == asio::error::eof || error == beast::http::error::end_of_stream) {
    co_return false;
  }
  co_await RefuseRead(error);
  co_return false;
}

void Connection::TakeRequest(Parser& parser) {
  auto message = parser.release();
  request_ = Request();
  request_.method = std::string(message.method_string());
  const std::string target(message.target());
  request_.path = target.substr(0, target.find('?'));
  request_.authorization = FieldOf(message, "Authorization");
  request_.request_id = FieldOf(message, "x-request-id");
  request_.traceparent = FieldOf(message, "traceparent");
  request_.routing_key = FieldOf(message, "x-routing-key");
  request_.idempotency_key = FieldOf(message, "idempotency-key");
  request_.last_event_id = FieldOf(message, "last-event-id");
  request_.content_encoding = FieldOf(message, "Content-Encoding");
  request_.body = std::move(message.body());
  version_ = message.version();
  keep_alive_ = message.keep_alive();
}

// Says why a request could not be read, where there is still somebody to read
// it.
asio::awaitable<void> Connection::RefuseRead(error_code error) {
  keep_alive_ = false;
  request_ = Request();
  Response response;
  if (timed_out_) {
    response = TransportError(
        408, FieldError("request", "sent without long pauses", "a pause"));
  } else if (error == beast::http::error::body_limit) {
    response = TransportError(
        413, MakeError(Reason::kBodyTooLarge,
                       StrCat("body must be at most ", options_.max_body_bytes,
                              " bytes; got more"),
                       {{"limit", StrCat(options_.max_body_bytes)}}));
  } else if (error == beast::http::error::header_limit) {
    response = TransportError(
        431, MakeError(Reason::kBodyTooLarge,
                       StrCat("headers must be at most ",
                              options_.max_header_bytes, " bytes; got more"),
                       {{"limit", StrCat(options_.max_header_bytes)}}));
  } else if (error.category() ==
             beast::http::make_error_code(beast::http::error::bad_method)
                 .category()) {
    response =
        TransportError(400, FieldError("request", "HTTP/1.1", error.message()));
  } else {
    co_return;  // reset, or closed by us
  }
  linger_ = true;
  co_await Respond(std::move(response));
}

asio::awaitable<void> Connection::Linger() {
  error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  std::array<char, 16384> sink;
  size_t total = 0;
  const absl::Time end = absl::Now() + kLingerTime;
  while (!error && total < kLingerBytes && absl::Now() < end) {
    Arm(end - absl::Now());
    total +=
        co_await socket_.async_read_some(asio::buffer(sink), Redirect(error));
  }
  Disarm();
}

// --- Writing ----------------------------------------------------------------

asio::awaitable<bool> Connection::Write(std::string bytes) {
  error_code error;
  Arm(options_.write_timeout);
  co_await asio::async_write(socket_, asio::buffer(bytes), Redirect(error));
  Disarm();
  if (error) keep_alive_ = false;
  co_return !error;
}

asio::awaitable<void> Connection::Respond(Response response) {
  StopWatching();
  keep_alive_ = keep_alive_ && !response.close && !draining_;
  std::string head = StatusLine(response.status);
  AppendHeader("Content-Type", response.content_type, head);
  AppendHeader("Content-Length", StrCat(response.body.size()), head);
  for (const auto& [name, value] : response.headers) {
    AppendHeader(name, value, head);
  }
  AppendHeader("Connection", keep_alive_ ? "keep-alive" : "close", head);
  head += "\r\n";
  head += response.body;
  co_await Write(std::move(head));
}

asio::awaitable<bool> Connection::BeginEvents(Headers headers,
                                              std::string first) {
  std::string head = StatusLine(200);
  AppendHeader("Content-Type", "text/event-stream; charset=utf-8", head);
  AppendHeader("Cache-Control", "no-cache", head);
  AppendHeader("X-Accel-Buffering", "no", head);
  for (const auto& [name, value] : headers) AppendHeader(name, value, head);
  const bool chunked = version_ >= 11;
  keep_alive_ = keep_alive_ && chunked && !draining_;
  if (chunked) AppendHeader("Transfer-Encoding", "chunked", head);
  AppendHeader("Connection", keep_alive_ ? "keep-alive" : "close", head);
  head += "\r\n";
  head += chunked ? ChunkFrame(first) : first;
  co_return co_await Write(std::move(head));
}

asio::awaitable<bool> Connection::WriteEvents(std::string bytes) {
  // Not a conditional in the co_await: GCC 12 destroys its result twice.
  if (version_ >= 11) bytes = ChunkFrame(bytes);
  co_return co_await Write(std::move(bytes));
}

asio::awaitable<void> Connection::EndEvents(bool clean) {
  StopWatching();
  keep_alive_ = keep_alive_ && clean;
  if (version_ >= 11 && socket_.is_open() && !timed_out_) {
    co_await Write(std::string(kLastChunk));
  }
}

// --- The client's absence ---------------------------------------------------

void Connection::WatchDisconnect(std::function<void()> on_disconnect) {
  watcher_ = std::make_shared<std::function<void()>>(std::move(on_disconnect));
  const std::weak_ptr<std::function<void()>> weak = watcher_;
  socket_.async_wait(
      asio::ip::tcp::socket::wait_read,
      [self = shared_from_this(), weak](error_code error) {
        const auto watcher = weak.lock();
        if (!watcher) return;  // the answer is complete
        if (error == asio::error::operation_aborted) return;
        char byte = 0;
        const ssize_t peeked = ::recv(self->socket_.native_handle(), &byte, 1,
                                      MSG_PEEK | MSG_DONTWAIT);
        const bool more = peeked > 0 || (peeked < 0 && errno == EAGAIN);
        // A client that already sends its next request is there.
        if (!more) (*watcher)();
      });
}

void Connection::StopWatching() {
  if (!watcher_) return;
  watcher_.reset();
  error_code ignored;
  socket_.cancel(ignored);
}

}  // namespace caravan::gateway::http
