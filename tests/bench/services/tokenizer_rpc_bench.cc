// What the RPC adds to encoding: TokenizerService.Encode of a text of some
// 1,000 tokens through a real server on loopback, against the same encoding in
// this process, call by call in turns, so that a busy machine slows both.
//
//   tokenizer_rpc_bench [MODEL_DIRECTORY [CALLS]]
//
// The floor is two wake-ups of a thread (request, response) on either side and
// some 8 KB through loopback; the encoding itself is the service's business.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/grpc/channel.h"
#include "common/grpc/server.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/model_set.h"
#include "services/tokenizer/tokenizer_service.h"

namespace caravan::tokenizer {
namespace {

constexpr size_t kTokens = 1000;
constexpr int kWarmUpCalls = 200;

// English of words that do not repeat in one order, about `tokens` long.
absl::StatusOr<std::string> MakeText(const text::Tokenizer& tokenizer,
                                     size_t tokens) {
  constexpr std::string_view kWords[] = {
      "river",   "walked", "the",   "under", "old",     "a",      "bridge",
      "and",     "quiet",  "stone", "we",    "lantern", "before", "winter",
      "because", "seven",  "ships", "of",    "morning", "slowly"};
  std::string text;
  uint64_t state = 1;
  for (;;) {
    for (int i = 0; i < 12; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      StrAppend(&text, text.empty() ? "" : " ",
                kWords[(state >> 33) % std::size(kWords)]);
    }
    text += ".";
    CARAVAN_ASSIGN_OR_RETURN(const auto ids, tokenizer.Encode(text, {}));
    if (ids.size() >= tokens) return text;
  }
}

double MicrosecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now() - start)
      .count();
}

// The value below which `part` of them lie.
double Quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(part *
                                    static_cast<double>(values.size() - 1))];
}

void Print(const std::string& name, const std::vector<double>& us) {
  std::cout << name << ": median " << Quantile(us, 0.5) << " us, p10 "
            << Quantile(us, 0.1) << ", p90 " << Quantile(us, 0.9) << ", p99 "
            << Quantile(us, 0.99) << "\n";
}

class Bench {
 public:
  Bench(const LoadedModel& model, std::string text, const std::string& address)
      : model_(model), text_(std::move(text)) {
    request_.set_model(model.name);
    request_.add_texts(text_);
    const auto channel = MakeChannel(address, ChannelOptions());
    if (channel.ok()) stub_ = v1::TokenizerService::NewStub(*channel);
  }

  absl::Status Run(int calls) {
    if (!stub_) return MakeError(Reason::kInternal, "no channel");
    for (int i = 0; i < calls + kWarmUpCalls; ++i) {
      CARAVAN_RETURN_IF_ERROR(Once(/*keep=*/i >= kWarmUpCalls));
    }
    Report();
    return absl::OkStatus();
  }

 private:
  absl::Status Once(bool keep) {
    auto start = std::chrono::steady_clock::now();
    CARAVAN_ASSIGN_OR_RETURN(const auto ids,
                             model_.tokenizer->Encode(text_, {}));
    const double alone_us = MicrosecondsSince(start);
    grpc::ClientContext context;
    v1::EncodeResponse response;
    start = std::chrono::steady_clock::now();
    const grpc::Status status = stub_->Encode(&context, request_, &response);
    const double rpc_us = MicrosecondsSince(start);
    if (!status.ok()) return FromGrpcStatus(status);
    if (response.results(0).token_ids_size() != static_cast<int>(ids.size())) {
      return MakeError(Reason::kInternal, "the answers differ");
    }
    tokens_ = ids.size();
    if (!keep) return absl::OkStatus();
    alone_us_.push_back(alone_us);
    rpc_us_.push_back(rpc_us);
    added_us_.push_back(rpc_us - alone_us);
    return absl::OkStatus();
  }

  void Report() const {
    std::cout << rpc_us_.size() << " calls, " << text_.size() << " bytes, "
              << tokens_ << " tokens\n";
    Print("encoding alone", alone_us_);
    Print("through the RPC", rpc_us_);
    Print("added by the RPC", added_us_);
    std::cout << "difference of the medians: "
              << Quantile(rpc_us_, 0.5) - Quantile(alone_us_, 0.5)
              << " us (bound: 150)\n";
  }

  const LoadedModel& model_;
  const std::string text_;
  v1::EncodeRequest request_;
  std::unique_ptr<v1::TokenizerService::Stub> stub_;
  size_t tokens_ = 0;
  std::vector<double> alone_us_;
  std::vector<double> rpc_us_;
  std::vector<double> added_us_;
};

absl::Status Run(const std::string& directory, int calls) {
  CARAVAN_ASSIGN_OR_RETURN(const ModelSet models,
                           ModelSet::Load({{"model", directory}}));
  const LoadedModel& model = models.models().front();
  CARAVAN_ASSIGN_OR_RETURN(std::string text,
                           MakeText(*model.tokenizer, kTokens));
  MetricsRegistry registry;
  TokenizerService service(&models, &SystemClock::Get(), absl::UTCTimeZone(),
                           &registry);
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<GrpcServer> server,
                           GrpcServer::Start({}, {&service}));
  Bench bench(model, std::move(text), StrCat("127.0.0.1:", server->port()));
  return bench.Run(calls);
}

}  // namespace
}  // namespace caravan::tokenizer

int main(int argc, char** argv) {
  caravan::InitLog("bench", "error");
  const std::string directory = argc > 1 ? argv[1] : "deploy/demo-model";
  const int calls = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5000;
  const absl::Status status = caravan::tokenizer::Run(directory, calls);
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << status << "\n";
  return EXIT_FAILURE;
}
