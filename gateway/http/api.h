// What each path does.
#ifndef CARAVAN_GATEWAY_HTTP_API_H_
#define CARAVAN_GATEWAY_HTTP_API_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/admission/api_keys.h"
#include "gateway/http/exchange.h"
#include "gateway/pipeline.h"

namespace caravan::gateway::http {

struct ApiOptions {
  // Longest time of a request; infinite: none.
  absl::Duration request_timeout = absl::InfiniteDuration();
  absl::Duration write_timeout =
      absl::Seconds(30);  // of the server; for errors
  // Unix time for "created"; fixed in golden tests.
  std::function<int64_t()> unix_seconds;
};

// Thread-safe.
class Api {
 public:
  // All must outlive it.
  Api(Pipeline* pipeline, const ApiKeys* keys, ApiOptions options);

  // Answers one request.
  boost::asio::awaitable<void> Handle(Exchange& exchange);

 private:
  using Method = boost::asio::awaitable<void> (Api::*)(Exchange&, Tenant);
  struct Route {
    std::string_view path;
    std::string_view method;
    bool needs_key;
    Method handle;
  };
  static const Route kRoutes[];

  // One for each path.
  boost::asio::awaitable<void> Completions(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Chat(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Models(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Model(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Tokenize(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Detokenize(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Healthz(Exchange& exchange, Tenant tenant);
  boost::asio::awaitable<void> Readyz(Exchange& exchange, Tenant tenant);

  boost::asio::awaitable<void> Generate(
      Exchange& exchange, Tenant tenant,
      absl::StatusOr<GenerationRequest> request);
  boost::asio::awaitable<void> Unary(Exchange& exchange, TokenStream& stream,
                                     std::string response_id);
  boost::asio::awaitable<void> Stream(Exchange& exchange, TokenStream& stream,
                                      std::string response_id);
  // Why a write failed.
  absl::Status GoneOrSlow(const Exchange& exchange) const;
  Headers StreamHeaders(const GenerationRequest& request) const;

  Pipeline* const pipeline_;
  const ApiKeys* const keys_;
  const ApiOptions options_;
};

// A client's error as a response.
Response ErrorResponse(const absl::Status& status);

}  // namespace caravan::gateway::http

#endif  // CARAVAN_GATEWAY_HTTP_API_H_
