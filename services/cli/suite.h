// What `caravan up` starts: the command lines of the four services.
#ifndef CARAVAN_SERVICES_CLI_SUITE_H_
#define CARAVAN_SERVICES_CLI_SUITE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/cli/supervisor.h"

namespace caravan::cli {

inline constexpr std::string_view kRouterService = "router";
inline constexpr std::string_view kTokenizerService = "tokenizer";
inline constexpr std::string_view kGatewayService = "gateway";

// Flags of `caravan up`.
struct SuiteOptions {
  std::string model;              // --model: directory or GGUF file
  std::string served_model_name;  // empty: the directory's name
  std::string chat_template;    // --chat-template of the tokenizer; empty: none
  int workers = 1;              // --workers: replicas, in [1, 64]
  int stages = 1;               // --stages: processes of each, in [1, 64]
  int threads = 0;              // --threads of each process; 0: share cores
  std::string device = "auto";  // --device of each worker
  std::string listen = "127.0.0.1";  // --listen: of the gateway only
  int http_port = 8080;              // --http-port of the gateway; 0: any
  int grpc_port = 8081;              // --grpc-port of the gateway; 0: any
  std::string api_keys;              // --api-keys file of the gateway
  double grace_s = 30;               // --grace: for running streams
  std::vector<std::string> worker_arguments;  // after --

  // Names the flag that is out of range.
  absl::Status Validate() const;
};

// The name under which the model is served.
std::string ModelName(const SuiteOptions& options);

// "worker-1" and so on; "worker-1-stage-1" for the later stages of a replica.
std::string WorkerServiceName(int index, int stage = 0);

// Threads of each process: the flag, or cores shared by all stages of all
// workers.
int ThreadsOfWorker(const SuiteOptions& options, int cores);

// `folder` is where the binaries lie. Addresses are HOST:PORT.
ServiceSpec RouterSpec(const SuiteOptions& options, const std::string& folder);
ServiceSpec TokenizerSpec(const SuiteOptions& options,
                          const std::string& folder);
ServiceSpec WorkerSpec(const SuiteOptions& options, const std::string& folder,
                       int index, int cores, const std::string& router);
// One process of a replica in several stages; `next` is the address of the
// stage behind, empty for the last, and only the first uses `router`.
ServiceSpec StageSpec(const SuiteOptions& options, const std::string& folder,
                      int index, int stage, int cores,
                      const std::string& router, const std::string& next);
ServiceSpec GatewaySpec(const SuiteOptions& options, const std::string& folder,
                        const std::string& router,
                        const std::string& tokenizer);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_SUITE_H_
