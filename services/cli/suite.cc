#include "services/cli/suite.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

constexpr int kMaxWorkers = 64;
constexpr int kMaxStages = 64;
constexpr int kMaxPort = 65535;

absl::Status CheckPort(std::string_view flag, int port) {
  if (port >= 0 && port <= kMaxPort) return absl::OkStatus();
  return FieldError(flag, StrCat("in [0, ", kMaxPort, "]"), StrCat(port));
}

ServiceSpec BaseSpec(const SuiteOptions& options, const std::string& folder,
                     std::string_view name, std::string_view binary) {
  ServiceSpec spec;
  spec.name = name;
  spec.program = StrCat(folder, "/", binary);
  spec.arguments = {"--log-level", "info", "--grace", StrCat(options.grace_s)};
  spec.ports = {{"--metrics-port", "metrics", 0}};
  // Streams end at the gateway first, then what they ran on; a stage before
  // the one behind it.
  spec.stop_order = name == kGatewayService      ? 0
                    : binary == "caravan-worker" ? 1
                                                 : 1 + kMaxStages;
  return spec;
}

void Append(ServiceSpec& spec, std::string_view flag, std::string_view value) {
  spec.arguments.emplace_back(flag);
  spec.arguments.emplace_back(value);
}

}  // namespace

absl::Status SuiteOptions::Validate() const {
  if (!std::filesystem::exists(model)) {
    return FieldError("--model", "an existing model directory or file", model);
  }
  if (workers < 1 || workers > kMaxWorkers) {
    return FieldError("--workers", StrCat("in [1, ", kMaxWorkers, "]"),
                      StrCat(workers));
  }
  if (stages < 1 || stages > kMaxStages) {
    return FieldError("--stages", StrCat("in [1, ", kMaxStages, "]"),
                      StrCat(stages));
  }
  if (threads < 0) return FieldError("--threads", ">= 0", StrCat(threads));
  if (!(grace_s >= 0) || !std::isfinite(grace_s)) {
    return FieldError("--grace", "a finite number of seconds >= 0",
                      StrCat(grace_s));
  }
  CARAVAN_RETURN_IF_ERROR(CheckPort("--http-port", http_port));
  return CheckPort("--grpc-port", grpc_port);
}

std::string ModelName(const SuiteOptions& options) {
  if (!options.served_model_name.empty()) return options.served_model_name;
  std::filesystem::path path =
      std::filesystem::weakly_canonical(std::filesystem::path(options.model));
  if (!path.has_filename()) path = path.parent_path();
  return path.extension() == ".gguf" ? path.stem() : path.filename();
}

std::string WorkerServiceName(int index, int stage) {
  const std::string name = StrCat("worker-", index + 1);
  return stage == 0 ? name : StrCat(name, "-stage-", stage);
}

int ThreadsOfWorker(const SuiteOptions& options, int cores) {
  if (options.threads > 0) return options.threads;
  return std::max(1, cores / (options.workers * options.stages));
}

ServiceSpec RouterSpec(const SuiteOptions& options, const std::string& folder) {
  ServiceSpec spec =
      BaseSpec(options, folder, kRouterService, "caravan-router");
  spec.ports.push_back({"--port", "grpc", 0});
  return spec;
}

ServiceSpec TokenizerSpec(const SuiteOptions& options,
                          const std::string& folder) {
  ServiceSpec spec =
      BaseSpec(options, folder, kTokenizerService, "caravan-tokenizer");
  spec.ports.push_back({"--port", "grpc", 0});
  Append(spec, "--model", StrCat(ModelName(options), "=", options.model));
  if (!options.chat_template.empty()) {
    Append(spec, "--chat-template", options.chat_template);
  }
  return spec;
}

ServiceSpec WorkerSpec(const SuiteOptions& options, const std::string& folder,
                       int index, int cores, const std::string& router) {
  return StageSpec(options, folder, index, /*stage=*/0, cores, router,
                   /*next=*/"");
}

ServiceSpec StageSpec(const SuiteOptions& options, const std::string& folder,
                      int index, int stage, int cores,
                      const std::string& router, const std::string& next) {
  ServiceSpec spec = BaseSpec(options, folder, WorkerServiceName(index, stage),
                              "caravan-worker");
  spec.stop_order += stage;
  spec.ports.push_back({"--port", "grpc", 0});
  Append(spec, "--model", options.model);
  Append(spec, "--served-model-name", ModelName(options));
  if (stage == 0) Append(spec, "--router", router);
  if (options.stages > 1) {
    Append(spec, "--stage", StrCat(stage, "/", options.stages));
  }
  if (!next.empty()) Append(spec, "--next", next);
  Append(spec, "--threads", StrCat(ThreadsOfWorker(options, cores)));
  Append(spec, "--device", options.device);
  spec.arguments.insert(spec.arguments.end(), options.worker_arguments.begin(),
                        options.worker_arguments.end());
  return spec;
}

ServiceSpec GatewaySpec(const SuiteOptions& options, const std::string& folder,
                        const std::string& router,
                        const std::string& tokenizer) {
  ServiceSpec spec =
      BaseSpec(options, folder, kGatewayService, "caravan-gateway");
  spec.ports.push_back({"--http-port", "http", options.http_port});
  spec.ports.push_back({"--grpc-port", "grpc", options.grpc_port});
  Append(spec, "--router", router);
  Append(spec, "--tokenizer", tokenizer);
  Append(spec, "--listen", options.listen);
  if (!options.api_keys.empty()) Append(spec, "--api-keys", options.api_keys);
  return spec;
}

}  // namespace caravan::cli
