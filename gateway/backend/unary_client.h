// A unary gRPC call as something a coroutine waits for.
#ifndef CARAVAN_GATEWAY_BACKEND_UNARY_CLIENT_H_
#define CARAVAN_GATEWAY_BACKEND_UNARY_CLIENT_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status/grpc_status.h"

namespace caravan::gateway {

// Makes the call `start(context, request, response, on_done)`, a method of a
// stub's async(), and resumes on the caller's executor with its answer.
// Arguments are taken by value: the call may outlive the caller's frame.
template <typename Response, typename Request, typename Start>
boost::asio::awaitable<absl::StatusOr<Response>> CallUnary(
    Start start, Request request, absl::Duration timeout) {
  struct Call {
    grpc::ClientContext context;
    Request request;
    Response response;
    grpc::Status status;
  };
  const auto call = std::make_shared<Call>();
  call->request = std::move(request);
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>,
                                       void()>(
      [&start, &call](auto handler) {
        // gRPC wants a copyable function.
        const auto shared =
            std::make_shared<decltype(handler)>(std::move(handler));
        start(&call->context, &call->request, &call->response,
              [call, shared](grpc::Status status) {
                call->status = std::move(status);
                const auto executor =
                    boost::asio::get_associated_executor(*shared);
                boost::asio::post(executor, std::move(*shared));
              });
      },
      boost::asio::use_awaitable);
  if (!call->status.ok()) co_return FromGrpcStatus(call->status);
  co_return std::move(call->response);
}

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_UNARY_CLIENT_H_
