// One HTTP request and the way to answer it, without the connection.
#ifndef CARAVAN_GATEWAY_HTTP_EXCHANGE_H_
#define CARAVAN_GATEWAY_HTTP_EXCHANGE_H_

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace caravan::gateway::http {

struct Request {
  std::string method;  // "GET"
  std::string path;    // without the query
  std::string authorization;
  std::string request_id;   // header x-request-id
  std::string traceparent;  // W3C
  std::string routing_key;  // header x-routing-key
  std::string content_encoding;
  std::string idempotency_key;  // header idempotency-key
  std::string last_event_id;    // header last-event-id
  std::string body;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Response {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers = {};
  bool close = false;  // the connection ends after it
};

// Runs on the connection's executor. Exactly one of Respond and BeginEvents is
// called, once.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const Request& request() const = 0;

  // Writes the whole answer.
  virtual boost::asio::awaitable<void> Respond(Response response) = 0;

  // Begins an event stream; `first` are its first bytes. False: the client is
  // gone.
  virtual boost::asio::awaitable<bool> BeginEvents(Headers headers,
                                                   std::string first) = 0;
  virtual boost::asio::awaitable<bool> WriteEvents(std::string bytes) = 0;
  // After a write that returned false: the client is there, and did not read.
  virtual bool unread() const = 0;
  // Ends the stream; the connection goes on only after a clean end.
  virtual boost::asio::awaitable<void> EndEvents(bool clean) = 0;

  // Calls `on_disconnect` once if the client goes away before Respond or
  // EndEvents.
  virtual void WatchDisconnect(std::function<void()> on_disconnect) = 0;
};

}  // namespace caravan::gateway::http

#endif  // CARAVAN_GATEWAY_HTTP_EXCHANGE_H_
