#include "gateway/gateway.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/build_info.h"
#include "common/grpc/channel.h"
#include "common/grpc/server.h"
#include "common/log.h"
#include "common/metrics/names.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/grpc/generation_service.h"
#include "gateway/http/api.h"
#include "gateway/http/server.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

constexpr absl::Duration kDirectoryInterval = absl::Seconds(1);
// For streams that were told to end to write their last bytes.
constexpr absl::Duration kLastWords = absl::Seconds(2);

// Each stream is a descriptor or two.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    LogWarning("descriptor_limit_kept", {{"limit", limit.rlim_cur}});
  }
}

std::string SenderId() {
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  std::random_device device;
  return StrCat("gateway-", host, "-", getpid(), "-", device());
}

int ThreadCount(int wanted) {
  if (wanted > 0) return wanted;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores / 2, 1, 8);
}

TlsOptions TlsOf(const GatewayOptions& options) {
  TlsOptions tls;
  tls.certificate_file = options.tls_certificate_file;
  tls.key_file = options.tls_key_file;
  tls.ca_file = options.tls_ca_file;
  return tls;
}

http::HttpOptions HttpOptionsOf(const GatewayOptions& options) {
  http::HttpOptions http;
  http.listen = options.listen;
  http.port = options.http_port;
  http.max_body_bytes = options.max_body_bytes;
  http.max_header_bytes = options.max_header_bytes;
  http.max_connections = options.max_connections;
  http.header_timeout = absl::Seconds(options.body_timeout_s);
  http.body_timeout = absl::Seconds(options.body_timeout_s);
  http.write_timeout = absl::Seconds(options.write_timeout_s);
  return http;
}

http::ApiOptions ApiOptionsOf(const GatewayOptions& options) {
  http::ApiOptions api;
  if (options.request_timeout_s > 0) {
    api.request_timeout = absl::Seconds(options.request_timeout_s);
  }
  api.write_timeout = absl::Seconds(options.write_timeout_s);
  api.unix_seconds = [] { return absl::ToUnixSeconds(absl::Now()); };
  return api;
}

}  // namespace

// In the order in which they stand on each other.
struct Gateway::Parts {
  explicit Parts(const GatewayOptions& o) : options(o), metrics(&registry) {}

  absl::Status Connect();
  void MakePipeline();
  absl::Status Listen();
  void RunThreads();
  void Stop();

  const GatewayOptions options;
  MetricsRegistry registry;
  GatewayMetrics metrics;
  ApiKeys keys;
  std::unique_ptr<RouterClient> router;
  std::unique_ptr<TokenizerClient> tokenizer;
  std::unique_ptr<WorkerClient> workers;
  std::optional<ModelDirectory> directory;
  std::optional<Placement> placement;
  std::optional<AdmissionQueue> admission;
  std::optional<Pipeline> pipeline;
  std::optional<http::Api> api;
  asio::io_context context;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>>
      work;
  std::optional<GenerationService> service;
  std::unique_ptr<http::HttpServer> http_server;
  std::unique_ptr<GrpcServer> grpc_server;
  int metrics_port = 0;
  std::atomic<bool> stopping = false;
  absl::Notification directory_done;
  bool shut_down = false;
  std::vector<std::jthread> threads;
};

absl::Status Gateway::Parts::Connect() {
  ChannelOptions channel;
  channel.tls = TlsOf(options);
  CARAVAN_ASSIGN_OR_RETURN(router,
                           RouterClient::Create(options.routers, channel));
  CARAVAN_ASSIGN_OR_RETURN(
      tokenizer, TokenizerClient::Create(options.tokenizers, channel));
  workers = std::make_unique<WorkerClient>(channel, SenderId());
  if (options.api_keys_file.empty()) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(keys, ApiKeys::Load(options.api_keys_file));
  return absl::OkStatus();
}

void Gateway::Parts::MakePipeline() {
  directory.emplace(router.get(), tokenizer.get());
  placement.emplace(router.get(), &*directory, workers.get());
  LimiterOptions limits;
  limits.max_queued = options.max_queued;
  limits.max_starting = options.max_starting;
  admission.emplace(limits);
  GenerationContext generation;
  generation.tokenizer = tokenizer.get();
  generation.workers = workers.get();
  generation.directory = &*directory;
  generation.placement = &*placement;
  generation.admission = &*admission;
  generation.metrics = &metrics;
  generation.clock = &SystemClock::Get();
  generation.inbox.max_backlog_tokens = options.max_backlog_tokens;
  generation.start_patience = absl::Seconds(options.start_patience_s);
  generation.resume_patience = absl::Seconds(options.resume_patience_s);
  generation.executor = context.get_executor();
  IdempotencyOptions idempotency;
  idempotency.window = absl::Seconds(options.idempotency_window_s);
  idempotency.linger = absl::Seconds(options.idempotency_linger_s);
  idempotency.max_bytes = options.idempotency_bytes;
  pipeline.emplace(generation, idempotency);
  api.emplace(&*pipeline, &keys, ApiOptionsOf(options));
}

absl::Status Gateway::Parts::Listen() {
  registry
      .MakeGauge(metrics::kBuildInfo,
                 {{"process", "gateway"}, {"build", std::string(BuildId())}})
      ->Set(1);
  CARAVAN_ASSIGN_OR_RETURN(
      metrics_port, registry.Expose(options.listen, options.metrics_port));
  GenerationServiceOptions service_options;
  service_options.write_timeout = absl::Seconds(options.write_timeout_s);
  service.emplace(&*pipeline, &keys, &context, service_options);
  ServerOptions server;
  server.listen = options.listen;
  server.port = options.grpc_port;
  server.tls = TlsOf(options);
  CARAVAN_ASSIGN_OR_RETURN(grpc_server, GrpcServer::Start(server, {&*service}));
  const auto handler = [this](http::Exchange& exchange) {
    return api->Handle(exchange);
  };
  CARAVAN_ASSIGN_OR_RETURN(
      http_server, http::HttpServer::Start(HttpOptionsOf(options), context,
                                           handler, metrics.http_connections));
  return absl::OkStatus();
}

void Gateway::Parts::RunThreads() {
  work.emplace(context.get_executor());
  asio::co_spawn(asio::make_strand(context),
                 directory->KeepFresh(kDirectoryInterval,
                                      [this] { return stopping.load(); }),
                 [this](std::exception_ptr) { directory_done.Notify(); });
  for (int i = 0; i < ThreadCount(options.threads); ++i) {
    threads.emplace_back([this] { context.run(); });
  }
  grpc_server->SetServing(true);
}

void Gateway::Parts::Stop() {
  stopping = true;
  if (http_server) http_server->Stop();
  if (!threads.empty()) {
    directory_done.WaitForNotificationWithTimeout(absl::Seconds(5));
  }
  work.reset();
  context.stop();
  threads.clear();  // joins
  if (workers) workers->Shutdown();
}

Gateway::Gateway(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Gateway::~Gateway() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(
    const GatewayOptions& options) {
  RaiseDescriptorLimit();
  auto parts = std::make_unique<Parts>(options);
  CARAVAN_RETURN_IF_ERROR(parts->Connect());
  parts->MakePipeline();
  CARAVAN_RETURN_IF_ERROR(parts->Listen());
  parts->RunThreads();
  return std::unique_ptr<Gateway>(new Gateway(std::move(parts)));
}

int Gateway::http_port() const { return parts_->http_server->port(); }
int Gateway::grpc_port() const { return parts_->grpc_server->port(); }
int Gateway::metrics_port() const { return parts_->metrics_port; }
Pipeline& Gateway::pipeline() { return *parts_->pipeline; }

void Gateway::Shutdown(absl::Duration grace) {
  if (std::exchange(parts_->shut_down, true)) return;
  Pipeline& pipeline = *parts_->pipeline;
  pipeline.StartDrain();
  parts_->grpc_server->SetServing(false);
  parts_->http_server->StartDrain();
  if (!pipeline.AwaitIdle(grace)) {
    pipeline.CancelAll(MakeError(Reason::kDraining,
                                 "the gateway is shutting down; the time for "
                                 "running streams is over"));
    pipeline.AwaitIdle(kLastWords);
  }
  parts_->grpc_server->Shutdown(kLastWords);
  parts_->Stop();
}

}  // namespace caravan::gateway
