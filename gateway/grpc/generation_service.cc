#include "gateway/grpc/generation_service.h"

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "gateway/grpc/generation_translate.h"
#include "gateway/stream/aggregator.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

std::string MetadataValue(const grpc::CallbackServerContext& context,
                          const std::string& key) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(key);
  if (it == metadata.end()) return "";
  return std::string(it->second.data(), it->second.size());
}

std::string NewRequestId() {
  thread_local std::mt19937_64 engine{std::random_device{}()};
  return absl::StrFormat("%016x%016x", engine(), engine());
}

// Of what the call asks for, however it is called and continued.
std::string DigestOf(const v1::GenerateRequest& proto) {
  v1::GenerateRequest asked = proto;
  asked.clear_request_id();
  asked.clear_idempotency_key();
  asked.clear_resume_cursor();
  return receipt::Sha256(asked.SerializeAsString());
}

absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return absl::InfiniteDuration();
  }
  return absl::FromChrono(deadline) - absl::Now();
}

void CancelStream(const std::shared_ptr<TokenStream>& stream,
                  GatewayMetrics& metrics) {
  if (!stream) return;
  metrics.disconnects->Increment();
  stream->Cancel(MakeError(Reason::kCancelled, "the client cancelled"));
}

// A call whose answer is known at once.
class FailedCall final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit FailedCall(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

// One streaming call. Its coroutine is the only one that writes; after Finish
// it touches nothing of the call.
class GenerateCall final
    : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  GenerateCall(grpc::CallbackServerContext* context,
               std::shared_ptr<TokenStream> stream, GatewayMetrics* metrics,
               absl::Duration write_timeout)
      : context_(context),
        stream_(std::move(stream)),
        metrics_(metrics),
        write_timeout_(write_timeout) {}

  asio::awaitable<void> Run();

  void OnWriteDone(bool ok) override;
  void OnCancel() override { CancelStream(stream_, *metrics_); }
  void OnDone() override { delete this; }

 private:
  asio::awaitable<absl::Status> Pump();
  asio::awaitable<bool> Write(v1::GenerateResponse response);

  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<TokenStream> stream_;
  GatewayMetrics* const metrics_;
  const absl::Duration write_timeout_;
  v1::GenerateResponse writing_;
  bool write_ok_ = false;
  absl::AnyInvocable<void()> waiter_;  // posts the rest of the coroutine
};

void GenerateCall::OnWriteDone(bool ok) {
  write_ok_ = ok;
  std::exchange(waiter_, nullptr)();
}

asio::awaitable<bool> GenerateCall::Write(v1::GenerateResponse response) {
  writing_ = std::move(response);
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(absl::ToChronoNanoseconds(write_timeout_));
  timer.async_wait([stream = stream_, context = context_,
                    timeout = write_timeout_](const auto& error) {
    if (error) return;
    stream->Cancel(UnreadFor(timeout));
    context->TryCancel();
  });
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [this](auto handler) {
        const auto executor = asio::get_associated_executor(handler);
        waiter_ = [executor, resume = std::move(handler)]() mutable {
          asio::post(executor, std::move(resume));
        };
        // No buffer hint: gRPC holds the first message back with its headers,
        // and its completion with it, until something else is written.
        StartWrite(&writing_);
      },
      asio::use_awaitable);
  co_return write_ok_;
}

asio::awaitable<absl::Status> GenerateCall::Pump() {
  ResponseMaker maker(stream_->request());
  for (bool finished = false; !finished;) {
    absl::StatusOr<StreamEvents> events = co_await stream_->Next();
    if (!events.ok()) co_return events.status();
    finished = events->finished.has_value();
    std::vector<v1::GenerateResponse> responses =
        maker.Responses(*std::move(events));
    if (!responses.empty()) responses.back().set_cursor(stream_->EventId());
    stream_->BeginWrite();
    for (size_t i = 0; i < responses.size(); ++i) {
      const bool written = co_await Write(std::move(responses[i]));
      if (!written) {
        co_return MakeError(Reason::kCancelled, "the client went away");
      }
    }
    stream_->EndWrite();
  }
  co_return absl::OkStatus();
}

asio::awaitable<void> GenerateCall::Run() {
  const absl::Status status = co_await Pump();
  if (!status.ok()) stream_->Cancel(status);
  Finish(ToGrpcStatus(status));
}

// One unary call.
class CompleteCall final : public grpc::ServerUnaryReactor {
 public:
  CompleteCall(std::shared_ptr<TokenStream> stream,
               v1::CompleteResponse* response, GatewayMetrics* metrics)
      : stream_(std::move(stream)), response_(response), metrics_(metrics) {}

  asio::awaitable<void> Run();
  void OnCancel() override { CancelStream(stream_, *metrics_); }
  void OnDone() override { delete this; }

 private:
  asio::awaitable<absl::Status> Collect();

  const std::shared_ptr<TokenStream> stream_;
  v1::CompleteResponse* const response_;
  GatewayMetrics* const metrics_;
};

asio::awaitable<absl::Status> CompleteCall::Collect() {
  const GenerationRequest& request = stream_->request();
  Aggregator aggregator(static_cast<int32_t>(request.prompts.size()),
                        request.n);
  for (bool finished = false; !finished;) {
    absl::StatusOr<StreamEvents> events = co_await stream_->Next();
    if (!events.ok()) co_return events.status();
    finished = events->finished.has_value();
    aggregator.Add(*std::move(events));
  }
  *response_ = ResponseMaker(request).Response(aggregator.completion());
  co_return absl::OkStatus();
}

asio::awaitable<void> CompleteCall::Run() {
  const absl::Status status = co_await Collect();
  Finish(ToGrpcStatus(status));
}

}  // namespace

absl::StatusOr<std::shared_ptr<TokenStream>> GenerationService::Open(
    const grpc::CallbackServerContext& context,
    const v1::GenerateRequest& proto, Endpoint endpoint) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Tenant tenant,
      keys_->Authenticate(MetadataValue(context, "authorization")));
  CARAVAN_ASSIGN_OR_RETURN(GenerationRequest request, TranslateGenerate(proto));
  request.endpoint = endpoint;
  if (request.request_id.empty()) request.request_id = NewRequestId();
  request.body_digest = DigestOf(proto);
  request.tenant = tenant.name;
  request.tenant_weight = tenant.weight;
  request.traceparent = MetadataValue(context, "traceparent");
  request.routing_key = MetadataValue(context, "x-routing-key");
  request.deadline = pipeline_->clock().Now() + TimeLeft(context);
  return pipeline_->Open(std::move(request));
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto stream = Open(*context, *request, Endpoint::kGrpcGenerate);
  if (!stream.ok()) return new FailedCall(stream.status());
  auto* const call =
      new GenerateCall(context, *std::move(stream), &pipeline_->metrics(),
                       options_.write_timeout);
  asio::co_spawn(asio::make_strand(*context_), call->Run(), asio::detached);
  return call;
}

grpc::ServerUnaryReactor* GenerationService::Complete(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request,
    v1::CompleteResponse* response) {
  auto stream = Open(*context, *request, Endpoint::kGrpcComplete);
  if (!stream.ok()) {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(stream.status()));
    return reactor;
  }
  auto* const call =
      new CompleteCall(*std::move(stream), response, &pipeline_->metrics());
  asio::co_spawn(asio::make_strand(*context_), call->Run(), asio::detached);
  return call;
}

grpc::ServerUnaryReactor* GenerationService::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
    v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto tenant =
      keys_->Authenticate(MetadataValue(*context, "authorization"));
  if (!tenant.ok()) {
    reactor->Finish(ToGrpcStatus(tenant.status()));
    return reactor;
  }
  for (const ModelPtr& model : pipeline_->directory().List()) {
    *response->add_models() = *model;
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace caravan::gateway
