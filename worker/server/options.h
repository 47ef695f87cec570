// The flags of caravan-worker.
#ifndef CARAVAN_WORKER_SERVER_OPTIONS_H_
#define CARAVAN_WORKER_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/grpc/server.h"
#include "worker/model/stage.h"

namespace caravan::worker {

struct WorkerOptions {
  // What is served.
  std::string model_directory;    // --model
  std::string served_model_name;  // --served-model-name; "": the directory's
  std::vector<std::string> overrides;      // --override KEY=JSON, repeatable
  std::string generation_config = "auto";  // --generation-config auto|none
  bool null_model = false;                 // --null-model: computes nothing

  // Where.
  ServerOptions server = {.port = 8100};  // --listen --port --tls-*
  std::string advertise;             // --advertise HOST[:PORT]; "": as bound
  std::vector<std::string> routers;  // --router HOST:PORT[,...]
  int metrics_port = 9500;           // --metrics-port; 0: any

  // Which part of the model: a replica may be several workers, in a chain.
  Stage stage;       // --stage INDEX/COUNT; the first one registers
  std::string next;  // --next HOST:PORT of the stage behind; not on the last
  absl::Duration step_timeout = absl::Seconds(60);  // --step-timeout SECONDS

  // How it computes: parameters that affect what is computed.
  std::string device = "auto";       // --device auto|cpu|reference|cuda
  std::string activations = "auto";  // --activations auto|fp32|bf16|int8
  std::string kv = "auto";           // --kv auto|fp32|bf16|fp16|q8_0
  std::string weights = "keep";      // --weights keep|bf16|q8_0|q4_0

  // --profile exact|fast. Fast, on cuda only: products by the device's library,
  // whose bits depend on the batch; a class of its own.
  std::string profile = "exact";

  // How it computes: parameters that affect performance only.
  int32_t threads = 0;  // --threads; 0: one per core
  bool pin = false;     // --pin: binds threads to cores
  // --ranks, 1, 2, 4 or 8: tensor-parallel parts that share the threads out,
  // spread over the NUMA nodes; on cuda a device each.
  int32_t ranks = 1;
  std::string tensor_cores = "auto";  // auto, mma, wgmma
  std::string peers = "nccl";         // nccl, host: between ranks on devices
  bool early_starts = true;           // --no-early-starts: grid after grid
  bool cuda_graphs = true;            // --no-cuda-graphs: launches one by one
  // --library-check TOKENS, [0, 4096], on cuda in the exact profile: products
  // of up to so many tokens are the library's for shapes whose bits it gives
  int32_t library_check_tokens = 0;
  // --gemm-algorithms FILE: what --profile fast measures, kept; "": nowhere
  std::string gemm_algorithms;
  int32_t max_running = 64;       // --max-running, sequences, [1, 4096]
  int32_t max_step_tokens = 512;  // --max-step-tokens, [1, 65536]
  // --max-prefill-chunk, [1, prefill tokens]
  int32_t max_prefill_chunk = 128;
  // --max-prefill-tokens, [1, step tokens]. On a CPU 128 rows reach the speed
  // of a thousand, and what arrived first is answered first.
  int32_t max_prefill_tokens = 128;
  int32_t max_waiting = 1024;  // --max-waiting, sequences, [1, 1048576]
  // --depth, plans in flight, [0, 8]; 0: 1, or one more than there are stages
  int32_t depth = 0;
  bool prefix_cache = true;  // --no-prefix-cache

  // Memory. At most one of the two; neither: what is useful and fits.
  int64_t kv_blocks = 0;        // --kv-blocks, of 16 tokens
  int64_t kv_memory_bytes = 0;  // --kv-memory, bytes or such as 2GiB

  // Behaviour under stress.
  int64_t session_backlog_bytes = 16 << 20;  // --session-backlog
  absl::Duration grace = absl::Seconds(30);  // --grace SECONDS

  std::string log_level = "info";  // --log-level debug|info|warning|error

  // Plans in flight.
  int32_t EffectiveDepth() const;

  // Names the flag, the limit and the value.
  absl::Status Validate() const;
};

// Reads the command line. Returns a process exit code where there is nothing
// to run: 0 after --help, else after printing what is wrong with which flag.
std::optional<int> ParseOptions(int argc, char** argv, WorkerOptions* options);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_OPTIONS_H_
