#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/status/errors.h"
#include "services/cli/load_clients.h"
#include "services/cli/sse_reader.h"

namespace caravan::cli {
namespace {

namespace asio = boost::asio;

std::string MakeBody(const LoadClientOptions& load,
                     const LoadRequest& request) {
  return DumpJson(nlohmann::json{{"model", load.model},
                                 {"prompt", request.prompt_ids},
                                 {"max_tokens", request.output_tokens},
                                 {"seed", request.seed},
                                 {"temperature", load.temperature},
                                 {"ignore_eos", true},
                                 {"return_token_ids", true},
                                 {"stream", true}});
}

// What one stream told.
class StreamState {
 public:
  explicit StreamState(LoadClient::OnTokens on_tokens)
      : on_tokens_(std::move(on_tokens)) {}

  void AddPiece(std::string_view piece) {
    reader_.Add(piece, [this](std::string_view data) { AddEvent(data); });
  }

  // An error of its own, else whether the stream ended as it should.
  absl::Status End() const {
    if (!error_.ok()) return error_;
    if (done_) return absl::OkStatus();
    return MakeError(Reason::kInternal, "the stream ended without [DONE]");
  }

 private:
  void AddEvent(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const auto json = ParseJson(data);
    if (!json.is_object()) return;
    if (json.contains("error")) {
      error_ = StatusOfReply({/*status=*/500, std::string(data)});
    }
    int32_t count = 0;
    for (const auto& choice : json.value("choices", nlohmann::json::array())) {
      const auto ids = choice.find("token_ids");
      if (ids != choice.end()) count += static_cast<int32_t>(ids->size());
    }
    if (count > 0) on_tokens_(count);
  }

  const LoadClient::OnTokens on_tokens_;
  SseReader reader_;
  bool done_ = false;
  absl::Status error_;
};

class HttpLoadClient final : public LoadClient {
 public:
  HttpLoadClient(const HttpTarget& target, const LoadClientOptions& load)
      : target_(target),
        load_(load),
        work_(asio::make_work_guard(context_)),
        thread_([this] { context_.run(); }) {}

  ~HttpLoadClient() override {
    work_.reset();
    thread_.join();
  }

  void Start(const LoadRequest& request, OnTokens on_tokens,
             OnDone on_done) override {
    asio::co_spawn(context_,
                   RunOne(MakeBody(load_, request), std::move(on_tokens),
                          std::move(on_done)),
                   asio::detached);
  }

 private:
  asio::awaitable<void> RunOne(std::string body, OnTokens on_tokens,
                               OnDone on_done) {
    std::unique_ptr<HttpSession> session = TakeSession();
    StreamState state(std::move(on_tokens));
    const auto reply = co_await session->Post(
        "/v1/completions", std::move(body),
        [&state](std::string_view piece) { state.AddPiece(piece); });
    if (!reply.ok()) {
      on_done(reply.status());
      co_return;
    }
    idle_.push_back(std::move(session));
    const absl::Status status = StatusOfReply(*reply);
    on_done(status.ok() ? state.End() : status);
  }

  std::unique_ptr<HttpSession> TakeSession() {
    if (idle_.empty()) return std::make_unique<HttpSession>(context_, target_);
    std::unique_ptr<HttpSession> session = std::move(idle_.back());
    idle_.pop_back();
    return session;
  }

  const HttpTarget target_;
  const LoadClientOptions load_;
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::unique_ptr<HttpSession>> idle_;  // of the thread
  std::jthread thread_;
};

}  // namespace

std::unique_ptr<LoadClient> MakeHttpLoadClient(const HttpTarget& target,
                                               const LoadClientOptions& load) {
  return std::make_unique<HttpLoadClient>(target, load);
}

}  // namespace caravan::cli
