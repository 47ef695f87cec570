// caravan-tokenizer: text and conversations to token ids and back.
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/build_info.h"
#include "common/clock.h"
#include "common/grpc/server.h"
#include "common/log.h"
#include "common/metrics/names.h"
#include "common/metrics/registry.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/model_set.h"
#include "services/tokenizer/options.h"
#include "services/tokenizer/tokenizer_service.h"

namespace caravan::tokenizer {
namespace {

ServerOptions ToServerOptions(const TokenizerOptions& options) {
  ServerOptions server;
  server.listen = options.listen;
  server.port = options.port;
  server.tls.certificate_file = options.tls_certificate_file;
  server.tls.key_file = options.tls_key_file;
  server.tls.ca_file = options.tls_ca_file;
  return server;
}

absl::StatusOr<ModelSet> LoadModels(const TokenizerOptions& options) {
  std::vector<ModelSource> sources;
  for (const std::string& flag : options.models) {
    sources.push_back(ParseModelSource(flag));
  }
  for (const std::string& flag : options.chat_templates) {
    CARAVAN_RETURN_IF_ERROR(ApplyTemplateFlag(flag, &sources));
  }
  return ModelSet::Load(sources);
}

absl::Status Serve(const TokenizerOptions& options) {
  MetricsRegistry registry;
  registry
      .MakeGauge(metrics::kBuildInfo,
                 {{"process", "tokenizer"}, {"build", std::string(BuildId())}})
      ->Set(1);
  CARAVAN_ASSIGN_OR_RETURN(const ModelSet models, LoadModels(options));
  TokenizerService service(&models, &SystemClock::Get(), absl::LocalTimeZone(),
                           &registry);
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<GrpcServer> server,
      GrpcServer::Start(ToServerOptions(options), {&service}));
  CARAVAN_ASSIGN_OR_RETURN(
      const int metrics_port,
      registry.Expose(options.listen, options.metrics_port));
  server->SetServing(true);
  LogInfo("ready", {{"grpc_port", server->port()},
                    {"metrics_port", metrics_port},
                    {"models", models.models().size()}});
  AnnounceReady({{"grpc", StrCat(options.listen, ":", server->port())},
                 {"metrics", StrCat(options.listen, ":", metrics_port)}});

  const int signal = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal}});
  server->SetServing(false);
  server->Shutdown(absl::Seconds(options.grace_s));
  LogInfo("stopped", {});
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  BlockTerminationSignals();
  const absl::StatusOr<std::optional<TokenizerOptions>> options =
      ParseTokenizerOptions(argc, argv);
  if (!options.ok()) {
    std::cerr << options.status().message() << '\n';
    return EXIT_FAILURE;
  }
  if (!options->has_value()) return EXIT_SUCCESS;
  InitLog("tokenizer", (*options)->log_level);
  const absl::Status status = Serve(**options);
  if (status.ok()) return EXIT_SUCCESS;
  LogError("tokenizer_failed", {{"status", status}});
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace caravan::tokenizer

int main(int argc, char** argv) { return caravan::tokenizer::Main(argc, argv); }
