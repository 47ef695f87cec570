// caravan-tokenizer: text and conversations to token ids and back.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/build_info.h"
#include "common/clock.h"
#include "common/grpc/server.h"
#include "common/grpc/service_options.h"
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
      GrpcServer::Start(ToServerOptions(options, options.port), {&service}));
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

}  // namespace
}  // namespace caravan::tokenizer

int main(int argc, char** argv) {
  caravan::BlockTerminationSignals();
  return caravan::RunService(
      "tokenizer", caravan::tokenizer::ParseTokenizerOptions(argc, argv),
      caravan::tokenizer::Serve);
}
