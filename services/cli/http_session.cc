#include "services/cli/http_session.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Tcp = asio::ip::tcp;

constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

absl::Status ConnectionError(const HttpTarget& target,
                             const boost::system::error_code& error) {
  const Reason reason = error == beast::error::timeout
                            ? Reason::kDeadlineExceeded
                            : Reason::kWorkerLost;
  return MakeError(reason, StrCat("http://", target.host, ":", target.port,
                                  ": ", error.message()));
}

http::request<http::string_body> MakeRequest(const HttpTarget& target,
                                             const std::string& path,
                                             const std::string& body) {
  http::request<http::string_body> request(http::verb::post, path, 11);
  request.set(http::field::host, target.host);
  request.set(http::field::content_type, "application/json");
  if (!target.api_key.empty()) {
    request.set(http::field::authorization, StrCat("Bearer ", target.api_key));
  }
  request.body() = body;
  request.prepare_payload();
  return request;
}

}  // namespace

absl::StatusOr<HttpTarget> ParseHttpTarget(std::string_view address) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = address;
  if (rest.substr(0, kScheme.size()) == kScheme) {
    rest.remove_prefix(kScheme.size());
  }
  rest = rest.substr(0, rest.find('/'));
  const size_t colon = rest.rfind(':');
  if (colon == rest.npos || colon == 0 || colon + 1 == rest.size()) {
    return FieldError("address", "HOST:PORT", address);
  }
  HttpTarget target;
  target.host = rest.substr(0, colon);
  target.port = rest.substr(colon + 1);
  return target;
}

absl::Status StatusOfReply(const HttpReply& reply) {
  if (reply.status == 200) return absl::OkStatus();
  const auto json = ParseJson(reply.body);
  std::string message = StrCat("HTTP status ", reply.status);
  Reason reason = Reason::kInternal;
  if (json.is_object() && json.contains("error") && json["error"].is_object()) {
    const auto& error = json["error"];
    if (error.contains("message") && error["message"].is_string()) {
      message = error["message"].get<std::string>();
    }
    if (error.contains("code") && error["code"].is_string()) {
      reason = ReasonFromName(error["code"].get<std::string>())
                   .value_or(Reason::kInternal);
    }
  }
  return MakeError(reason, message);
}

HttpSession::HttpSession(asio::io_context& context, const HttpTarget& target)
    : context_(context), target_(target), stream_(context) {}

asio::awaitable<absl::Status> HttpSession::Connect() {
  Tcp::resolver resolver(context_);
  auto [resolve_error, endpoints] =
      co_await resolver.async_resolve(target_.host, target_.port, kUse);
  if (resolve_error) co_return ConnectionError(target_, resolve_error);
  auto [error, endpoint] = co_await stream_.async_connect(endpoints, kUse);
  if (error) co_return ConnectionError(target_, error);
  boost::system::error_code ignored;
  stream_.socket().set_option(Tcp::no_delay(true), ignored);
  connected_ = true;
  co_return absl::OkStatus();
}

asio::awaitable<absl::StatusOr<HttpReply>> HttpSession::Post(std::string path,
                                                             std::string body,
                                                             OnPiece on_piece) {
  if (target_.timeout_s > 0) {
    stream_.expires_after(std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(target_.timeout_s)));
  } else {
    stream_.expires_never();
  }
  const bool kept = connected_;
  bool nothing_read = true;
  if (kept) {
    auto reply = co_await Exchange(path, body, on_piece, &nothing_read);
    if (reply.ok() || !nothing_read) co_return reply;
    stream_.close();
    connected_ = false;
  }
  absl::Status status = co_await Connect();
  if (!status.ok()) co_return status;
  co_return co_await Exchange(path, body, on_piece, &nothing_read);
}

asio::awaitable<absl::StatusOr<HttpReply>> HttpSession::Exchange(
    const std::string& path, const std::string& body, const OnPiece& on_piece,
    bool* nothing_read) {
  const auto request = MakeRequest(target_, path, body);
  connected_ = false;  // until the whole reply is here
  auto [write_error, written] =
      co_await http::async_write(stream_, request, kUse);
  if (write_error) co_return ConnectionError(target_, write_error);
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  auto [header_error, header_size] =
      co_await http::async_read_header(stream_, buffer_, parser, kUse);
  if (header_error) co_return ConnectionError(target_, header_error);
  *nothing_read = false;
  HttpReply reply;
  reply.status = static_cast<int>(parser.get().result_int());
  std::array<char, 16 << 10> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    auto [error, size] =
        co_await http::async_read_some(stream_, buffer_, parser, kUse);
    if (error && error != http::error::need_buffer) {
      co_return ConnectionError(target_, error);
    }
    const std::string_view bytes(piece.data(),
                                 piece.size() - parser.get().body().size);
    if (reply.status == 200 && on_piece) {
      on_piece(bytes);
    } else {
      reply.body.append(bytes);
    }
  }
  connected_ = parser.get().keep_alive();
  co_return reply;
}

absl::StatusOr<HttpReply> PostAndWait(const HttpTarget& target,
                                      const std::string& path,
                                      const std::string& body) {
  asio::io_context context(1);
  HttpSession session(context, target);
  absl::StatusOr<HttpReply> reply =
      MakeError(Reason::kInternal, "the exchange did not end");
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        reply = co_await session.Post(path, body);
      },
      asio::detached);
  context.run();
  return reply;
}

}  // namespace caravan::cli
