#include "gateway/http/api.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/log.h"
#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "gateway/http/sse_writer.h"
#include "gateway/openai/chat_translate.h"
#include "gateway/openai/completions_translate.h"
#include "gateway/openai/error_body.h"
#include "gateway/openai/renderer.h"
#include "gateway/openai/tokenize_translate.h"
#include "gateway/stream/aggregator.h"

namespace caravan::gateway::http {
namespace {

namespace asio = boost::asio;

constexpr std::string_view kModelPrefix = "/v1/models/";
constexpr size_t kMaxRequestIdBytes = 128;

// 128 random bits in hex.
std::string NewRequestId() {
  thread_local std::mt19937_64 engine{std::random_device{}()};
  return absl::StrFormat("%016x%016x", engine(), engine());
}

// The client's id where it is one line of printable ASCII.
std::string RequestIdOf(const Request& request) {
  const std::string& id = request.request_id;
  const bool printable = std::all_of(
      id.begin(), id.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  const bool usable =
      !id.empty() && id.size() <= kMaxRequestIdBytes && printable;
  return usable ? id : NewRequestId();
}

Response JsonResponse(std::string body) {
  Response response;
  response.body = std::move(body);
  return response;
}

openai::ModelEntry EntryOf(const v1::ModelInfo& model) {
  return {model.name(), model.created_unix_s(), model.context_length()};
}

// One for each name; names stand together.
std::vector<openai::ModelEntry> EntriesOf(const std::vector<ModelPtr>& models) {
  std::vector<openai::ModelEntry> entries;
  for (const ModelPtr& model : models) {
    if (entries.empty() || entries.back().name != model->name()) {
      entries.push_back(EntryOf(*model));
    }
  }
  return entries;
}

// The last chunk carries the id: who has it has those before it.
std::string EventsOf(const std::vector<std::string>& chunks, bool finished,
                     const std::string& event_id) {
  std::string bytes;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const bool last = i + 1 == chunks.size();
    AppendEvent(chunks[i], bytes, last ? event_id : "");
  }
  if (finished) AppendDone(bytes);
  return bytes;
}

Response DescribeModel(const std::vector<openai::ModelEntry>& entries,
                       const std::string& name) {
  for (const openai::ModelEntry& entry : entries) {
    if (entry.name == name) return JsonResponse(openai::ModelBody(entry));
  }
  return ErrorResponse(
      MakeError(Reason::kModelNotFound,
                StrCat("model must be one of /v1/models; got ", name),
                {{"field", "model"}}));
}

absl::Status ClientGone() {
  return MakeError(Reason::kCancelled, "the client went away");
}

}  // namespace

Response ErrorResponse(const absl::Status& status) {
  Response response;
  response.status = openai::HttpStatus(ReasonOf(status));
  response.body = openai::ErrorBody(status);
  if (const int seconds = openai::RetryAfterSeconds(status)) {
    response.headers.emplace_back("Retry-After", StrCat(seconds));
  }
  if (response.status >= 500 && !IsRetryable(status)) {
    response.headers.emplace_back("x-should-retry", "false");
  }
  return response;
}

const Api::Route Api::kRoutes[] = {
    {"/v1/chat/completions", "POST", true, &Api::Chat},
    {"/v1/completions", "POST", true, &Api::Completions},
    {"/v1/models", "GET", true, &Api::Models},
    {"/tokenize", "POST", true, &Api::Tokenize},
    {"/detokenize", "POST", true, &Api::Detokenize},
    {"/healthz", "GET", false, &Api::Healthz},
    {"/readyz", "GET", false, &Api::Readyz},
};

Api::Api(Pipeline* pipeline, const ApiKeys* keys, ApiOptions options)
    : pipeline_(pipeline), keys_(keys), options_(std::move(options)) {}

asio::awaitable<void> Api::Handle(Exchange& exchange) {
  static constexpr Route kModelRoute = {kModelPrefix, "GET", true, &Api::Model};
  const Request& request = exchange.request();
  const Route* route =
      std::find_if(std::begin(kRoutes), std::end(kRoutes),
                   [&](const Route& r) { return r.path == request.path; });
  if (route == std::end(kRoutes)) {
    route = request.path.starts_with(kModelPrefix) ? &kModelRoute : nullptr;
  }
  if (route == nullptr) {
    co_await exchange.Respond(ErrorResponse(
        MakeError(Reason::kNotFound, StrCat("no such path: ", request.path))));
    co_return;
  }
  if (route->method != request.method) {
    Response response = ErrorResponse(MakeError(
        Reason::kNotFound, StrCat(route->path, " takes ", route->method,
                                  "; got ", request.method)));
    response.status = 405;
    response.headers.emplace_back("Allow", std::string(route->method));
    co_await exchange.Respond(std::move(response));
    co_return;
  }
  absl::StatusOr<Tenant> tenant = Tenant{};
  if (route->needs_key) tenant = keys_->Authenticate(request.authorization);
  if (!tenant.ok()) {
    co_await exchange.Respond(ErrorResponse(tenant.status()));
    co_return;
  }
  const std::string& encoding = request.content_encoding;
  if (!encoding.empty() && encoding != "identity") {
    co_await exchange.Respond(ErrorResponse(
        UnsupportedError("Content-Encoding", "send the body as it is")));
    co_return;
  }
  co_await (this->*route->handle)(exchange, *tenant);
}

// --- Generation -------------------------------------------------------------

asio::awaitable<void> Api::Completions(Exchange& exchange, Tenant tenant) {
  auto request = openai::TranslateCompletion(exchange.request().body);
  co_await Generate(exchange, std::move(tenant), std::move(request));
}

asio::awaitable<void> Api::Chat(Exchange& exchange, Tenant tenant) {
  auto request = openai::TranslateChat(exchange.request().body);
  co_await Generate(exchange, std::move(tenant), std::move(request));
}

asio::awaitable<void> Api::Generate(Exchange& exchange, Tenant tenant,
                                    absl::StatusOr<GenerationRequest> request) {
  if (!request.ok()) {
    co_await exchange.Respond(ErrorResponse(request.status()));
    co_return;
  }
  request->request_id = RequestIdOf(exchange.request());
  request->traceparent = exchange.request().traceparent;
  request->routing_key = exchange.request().routing_key;
  request->idempotency_key = exchange.request().idempotency_key;
  request->resume_cursor = exchange.request().last_event_id;
  request->body_digest = receipt::Sha256(
      StrCat(exchange.request().path, "\n", exchange.request().body));
  request->tenant = tenant.name;
  request->tenant_weight = tenant.weight;
  request->deadline = pipeline_->clock().Now() + options_.request_timeout;
  const std::string prefix =
      request->endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-";
  std::string id = StrCat(prefix, request->request_id);
  const bool streams = request->stream;
  absl::StatusOr<std::shared_ptr<TokenStream>> stream =
      pipeline_->Open(*std::move(request));
  if (!stream.ok()) {
    co_await exchange.Respond(ErrorResponse(stream.status()));
    co_return;
  }
  exchange.WatchDisconnect([weak = std::weak_ptr<TokenStream>(*stream), this] {
    if (const auto open = weak.lock()) {
      pipeline_->metrics().disconnects->Increment();
      open->Cancel(ClientGone());
    }
  });
  if (streams) {
    co_await Stream(exchange, **stream, std::move(id));
  } else {
    co_await Unary(exchange, **stream, std::move(id));
  }
}

absl::Status Api::GoneOrSlow(const Exchange& exchange) const {
  return exchange.unread() ? UnreadFor(options_.write_timeout) : ClientGone();
}

Headers Api::StreamHeaders(const GenerationRequest& request) const {
  return {{"x-request-id", request.request_id}};
}

asio::awaitable<void> Api::Unary(Exchange& exchange, TokenStream& stream,
                                 std::string response_id) {
  const GenerationRequest& request = stream.request();
  Aggregator aggregator(static_cast<int32_t>(request.prompts.size()),
                        request.n);
  for (bool finished = false; !finished;) {
    absl::StatusOr<StreamEvents> events = co_await stream.Next();
    if (!events.ok()) {
      Response error = ErrorResponse(events.status());
      error.headers.emplace_back("x-request-id", request.request_id);
      co_await exchange.Respond(std::move(error));
      co_return;
    }
    finished = events->finished.has_value();
    aggregator.Add(*std::move(events));
  }
  const Completion& completion = aggregator.completion();
  const openai::ResponseHead head = {std::move(response_id),
                                     options_.unix_seconds()};
  Response response =
      JsonResponse(openai::MakeRenderer(request, head)->Body(completion));
  response.headers = StreamHeaders(request);
  response.headers.emplace_back("x-caravan-receipt",
                                openai::ReceiptHeader(completion.finished));
  co_await exchange.Respond(std::move(response));
}

// The status line waits for the first events: what fails before them is an
// HTTP error.
asio::awaitable<void> Api::Stream(Exchange& exchange, TokenStream& stream,
                                  std::string response_id) {
  const GenerationRequest& request = stream.request();
  const openai::ResponseHead head = {std::move(response_id),
                                     options_.unix_seconds()};
  const std::unique_ptr<openai::Renderer> renderer =
      openai::MakeRenderer(request, head);
  bool begun = false;
  bool finished = false;
  for (bool alive = true; alive && !finished;) {
    const absl::StatusOr<StreamEvents> events = co_await stream.Next();
    std::string bytes;
    if (events.ok()) {
      finished = events->finished.has_value();
      bytes = EventsOf(renderer->Chunks(*events), finished, stream.EventId());
    } else if (!begun) {
      co_await exchange.Respond(ErrorResponse(events.status()));
      co_return;
    } else {
      AppendEvent(openai::ErrorBody(events.status()), bytes);
      alive = false;
    }
    if (bytes.empty()) continue;
    pipeline_->metrics().stream_bytes->Increment(
        static_cast<double>(bytes.size()));
    stream.BeginWrite();
    bool written = false;
    if (begun) {
      written = co_await exchange.WriteEvents(std::move(bytes));
    } else {
      written = co_await exchange.BeginEvents(StreamHeaders(request),
                                              std::move(bytes));
    }
    stream.EndWrite();
    begun = true;
    if (!written) {
      if (!finished) stream.Cancel(GoneOrSlow(exchange));
      alive = false;
    }
  }
  co_await exchange.EndEvents(/*clean=*/finished);
}

// --- The rest ---------------------------------------------------------------

asio::awaitable<void> Api::Models(Exchange& exchange, Tenant) {
  const std::vector<openai::ModelEntry> entries =
      EntriesOf(pipeline_->directory().List());
  co_await exchange.Respond(JsonResponse(openai::ModelListBody(entries)));
}

asio::awaitable<void> Api::Model(Exchange& exchange, Tenant) {
  const std::string name = exchange.request().path.substr(kModelPrefix.size());
  co_await exchange.Respond(
      DescribeModel(EntriesOf(pipeline_->directory().List()), name));
}

asio::awaitable<void> Api::Tokenize(Exchange& exchange, Tenant) {
  auto request = openai::TranslateTokenize(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.Respond(ErrorResponse(request.status()));
    co_return;
  }
  const auto ids = co_await pipeline_->Tokenize(std::move(request->model),
                                                std::move(request->prompt),
                                                request->add_special_tokens);
  // Not a conditional in the co_await: GCC 12 destroys its result twice.
  Response response = ids.ok() ? JsonResponse(openai::TokenizeBody(*ids))
                               : ErrorResponse(ids.status());
  co_await exchange.Respond(std::move(response));
}

asio::awaitable<void> Api::Detokenize(Exchange& exchange, Tenant) {
  auto request = openai::TranslateDetokenize(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.Respond(ErrorResponse(request.status()));
    co_return;
  }
  const auto text = co_await pipeline_->Detokenize(
      std::move(request->model), std::move(request->tokens),
      request->skip_special_tokens);
  Response response = text.ok() ? JsonResponse(openai::DetokenizeBody(*text))
                                : ErrorResponse(text.status());
  co_await exchange.Respond(std::move(response));
}

asio::awaitable<void> Api::Healthz(Exchange& exchange, Tenant) {
  co_await exchange.Respond(JsonResponse("{\"status\":\"ok\"}"));
}

asio::awaitable<void> Api::Readyz(Exchange& exchange, Tenant) {
  if (pipeline_->draining()) {
    co_await exchange.Respond(ErrorResponse(
        MakeError(Reason::kDraining, "the gateway is shutting down")));
  } else if (!pipeline_->directory().ready()) {
    co_await exchange.Respond(
        ErrorResponse(MakeError(Reason::kNoReplica, "no model is served yet")));
  } else {
    co_await exchange.Respond(JsonResponse("{\"status\":\"ready\"}"));
  }
}

}  // namespace caravan::gateway::http
