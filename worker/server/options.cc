#include "worker/server/options.h"

#include <CLI/CLI.hpp>
#include <initializer_list>
#include <sstream>
#include <string_view>
#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/address_resolver.h"

namespace caravan::worker {
namespace {

absl::Status CheckRange(std::string_view flag, int64_t value, int64_t least,
                        int64_t greatest) {
  if (least <= value && value <= greatest) return absl::OkStatus();
  return FieldError(flag, StrCat("in [", least, ", ", greatest, "]"),
                    StrCat(value));
}

absl::Status CheckOneOf(std::string_view flag, const std::string& value,
                        std::initializer_list<std::string_view> known) {
  std::string list;
  for (const std::string_view name : known) {
    if (value == name) return absl::OkStatus();
    StrAppend(&list, list.empty() ? "" : ", ", name);
  }
  return FieldError(flag, StrCat("one of ", list), value);
}

absl::Status CheckProfile(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(
      CheckOneOf("--profile", o.profile, {"exact", "fast"}));
  if (o.profile == "fast" && o.device != "cuda") {
    return UnsupportedError("--profile=fast", "it needs --device cuda");
  }
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--library-check", o.library_check_tokens, 0, 4096));
  if (o.library_check_tokens > 0 &&
      (o.profile == "fast" || o.device != "cuda")) {
    return UnsupportedError("--library-check",
                            "it is of --device cuda --profile exact");
  }
  if (!o.gemm_algorithms.empty() && o.profile != "fast") {
    return UnsupportedError("--gemm-algorithms", "it needs --profile fast");
  }
  return absl::OkStatus();
}

absl::Status CheckKinds(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(
      CheckOneOf("--device", o.device, {"auto", "cpu", "reference", "cuda"}));
  CARAVAN_RETURN_IF_ERROR(CheckProfile(o));
  CARAVAN_RETURN_IF_ERROR(
      CheckOneOf("--tensor-cores", o.tensor_cores, {"auto", "mma", "wgmma"}));
  CARAVAN_RETURN_IF_ERROR(CheckOneOf("--peers", o.peers, {"nccl", "host"}));
  CARAVAN_RETURN_IF_ERROR(CheckOneOf("--activations", o.activations,
                                     {"auto", "fp32", "bf16", "int8", "fp8"}));
  CARAVAN_RETURN_IF_ERROR(CheckOneOf(
      "--kv", o.kv, {"auto", "fp32", "bf16", "fp16", "fp8", "q8_0"}));
  CARAVAN_RETURN_IF_ERROR(CheckOneOf("--weights", o.weights,
                                     {"keep", "bf16", "fp8", "q8_0", "q4_0"}));
  CARAVAN_RETURN_IF_ERROR(CheckOneOf("--log-level", o.log_level,
                                     {"debug", "info", "warning", "error"}));
  return CheckOneOf("--generation-config", o.generation_config,
                    {"auto", "none"});
}

absl::Status CheckSizes(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("--threads", o.threads, 0, 256));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--ranks", o.ranks, 1, 8));
  if (o.ranks > 1 && o.device == "cuda" &&
      (o.profile == "fast" || o.library_check_tokens > 0)) {
    return UnsupportedError(StrCat("--ranks=", o.ranks),
                            "ranks on devices compute --profile exact, "
                            "without --library-check");
  }
  if (o.threads > 0 && o.threads < o.ranks) {
    return FieldError("--threads", StrCat("at least --ranks ", o.ranks),
                      StrCat(o.threads));
  }
  CARAVAN_RETURN_IF_ERROR(CheckRange("--max-running", o.max_running, 1, 4096));
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--max-step-tokens", o.max_step_tokens, 1, 65536));
  CARAVAN_RETURN_IF_ERROR(CheckRange(
      "--max-prefill-tokens", o.max_prefill_tokens, 1, o.max_step_tokens));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--max-prefill-chunk", o.max_prefill_chunk,
                                     1, o.max_prefill_tokens));
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--max-waiting", o.max_waiting, 1, 1 << 20));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--depth", o.depth, 0, 8));
  CARAVAN_RETURN_IF_ERROR(CheckRange(
      "--session-backlog", o.session_backlog_bytes, 1024, int64_t{1} << 32));
  return CheckRange("--grace", absl::ToInt64Seconds(o.grace), 0, 86400);
}

absl::Status CheckMemory(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("--kv-blocks", o.kv_blocks, 0, 1 << 30));
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--kv-memory", o.kv_memory_bytes, 0, int64_t{1} << 50));
  if (o.kv_blocks > 0 && o.kv_memory_bytes > 0) {
    return FieldError("--kv-blocks", "left out beside --kv-memory",
                      StrCat(o.kv_blocks));
  }
  return absl::OkStatus();
}

// HOST, or HOST:PORT with port 0 for the one that is bound.
absl::Status CheckAdvertise(const std::string& address) {
  const bool with_port = address.find(':') != std::string::npos;
  if (address.empty() || address.ends_with(":0") ||
      (!with_port && address.find_first_of(" /[]") == std::string::npos) ||
      SplitHostPort(address).ok()) {
    return absl::OkStatus();
  }
  return FieldError("--advertise", "HOST or HOST:PORT", address);
}

bool IsWildcard(std::string_view host) {
  return host == "0.0.0.0" || host == "::" || host == "[::]";
}

absl::Status CheckAddresses(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("--port", o.server.port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--metrics-port", o.metrics_port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckAdvertise(o.advertise));
  for (const std::string& router : o.routers) {
    if (!SplitHostPort(router).ok()) {
      return FieldError("--router", "HOST:PORT with a port in [1, 65535]",
                        router);
    }
  }
  if (o.advertise.empty() && IsWildcard(o.server.listen) &&
      !o.routers.empty()) {
    return FieldError("--advertise",
                      "an address that gateways reach when --listen is not one",
                      o.server.listen);
  }
  return absl::OkStatus();
}

absl::Status CheckChain(const WorkerOptions& o) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("--stage count", o.stage.count, 1, 1024));
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("--stage index", o.stage.index, 0, o.stage.count - 1));
  CARAVAN_RETURN_IF_ERROR(CheckRange("--step-timeout",
                                     absl::ToInt64Milliseconds(o.step_timeout),
                                     1, 86400000));
  if (o.stage.last() != o.next.empty()) {
    return FieldError("--next",
                      o.stage.last() ? "left out on the last stage"
                                     : "HOST:PORT of the stage behind",
                      o.next.empty() ? "nothing" : o.next);
  }
  if (!o.next.empty() && !SplitHostPort(o.next).ok()) {
    return FieldError("--next", "HOST:PORT with a port in [1, 65535]", o.next);
  }
  if (!o.stage.first() && !o.routers.empty()) {
    return FieldError("--router", "left out on all stages but the first",
                      o.routers[0]);
  }
  if (o.stage.whole() || !o.null_model) return absl::OkStatus();
  return FieldError("--null-model", "left out on a stage of several",
                    StrCat(o.stage.index, "/", o.stage.count));
}

// INDEX/COUNT.
Stage ParseStage(const std::string& text) {
  Stage stage;
  char slash = 0;
  std::istringstream stream(text);
  if (stream >> stage.index >> slash >> stage.count && slash == '/' &&
      stream.peek() == std::istringstream::traits_type::eof()) {
    return stage;
  }
  throw CLI::ValidationError("--stage", StrCat("must be INDEX/COUNT, such as "
                                               "0/2; got ",
                                               text));
}

void AddChainFlags(CLI::App& app, WorkerOptions& o) {
  app.add_option_function<std::string>(
      "--stage", [&o](const std::string& text) { o.stage = ParseStage(text); },
      "INDEX/COUNT: the part of a model that several workers serve");
  app.add_option("--next", o.next, "HOST:PORT of the stage behind this one");
  app.add_option_function<double>(
      "--step-timeout",
      [&o](double seconds) { o.step_timeout = absl::Seconds(seconds); },
      "Seconds after which stages that give no answer are lost (default 60)");
}

void AddModelFlags(CLI::App& app, WorkerOptions& o) {
  app.add_option("--model", o.model_directory, "Model directory")->required();
  app.add_option("--served-model-name", o.served_model_name,
                 "Name in /v1/models (default: the directory's)");
  app.add_option("--override", o.overrides,
                 "KEY=JSON for a key of config.json; repeatable");
  app.add_option("--generation-config", o.generation_config,
                 "auto, or none to ignore generation_config.json");
  app.add_flag("--null-model", o.null_model,
               "Compute nothing (for measuring everything else)");
}

void AddServerFlags(CLI::App& app, WorkerOptions& o) {
  app.add_option("--listen", o.server.listen, "Address to bind");
  app.add_option("--port", o.server.port, "gRPC port; 0: any");
  app.add_option("--metrics-port", o.metrics_port, "Prometheus port; 0: any");
  app.add_option("--tls-cert", o.server.tls.certificate_file, "Certificate");
  app.add_option("--tls-key", o.server.tls.key_file, "Key");
  app.add_option("--tls-ca", o.server.tls.ca_file,
                 "Authority that peers are verified with");
  app.add_option("--router", o.routers, "Routers, HOST:PORT[,...]")
      ->delimiter(',');
  app.add_option("--advertise", o.advertise,
                 "HOST[:PORT] that gateways reach (default: as bound)");
  app.add_option("--log-level", o.log_level, "debug, info, warning, error");
  app.add_option_function<double>(
      "--grace", [&o](double seconds) { o.grace = absl::Seconds(seconds); },
      "Seconds that running streams get after SIGTERM (default 30)");
  app.add_option("--session-backlog", o.session_backlog_bytes,
                 "Bytes that a session may leave unread")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
}

void AddEngineFlags(CLI::App& app, WorkerOptions& o) {
  app.add_option("--device", o.device, "auto, cpu, reference, cuda");
  app.add_option("--activations", o.activations, "auto, fp32, bf16, int8, fp8");
  app.add_option("--kv", o.kv, "auto, fp32, bf16, fp16, fp8, q8_0");
  app.add_option("--weights", o.weights,
                 "keep, or quantize at load: bf16, fp8, q8_0, q4_0");
  app.add_option("--threads", o.threads, "Compute threads; 0: one per core");
  app.add_flag("--pin", o.pin, "Bind compute threads to cores");
  app.add_option("--ranks", o.ranks,
                 "Tensor-parallel ranks that share the threads out: 1, 2, 4, "
                 "8");
  app.add_option("--profile", o.profile,
                 "exact, or on cuda fast: bits depend on the batch");
  app.add_option("--gemm-algorithms", o.gemm_algorithms,
                 "File that keeps what --profile fast measures at start");
  app.add_option("--library-check", o.library_check_tokens,
                 "Tokens up to which products may be the library's on cuda "
                 "where a check finds its bits equal; 0: none");
  app.add_option("--peers", o.peers,
                 "How ranks on CUDA devices reach each other: nccl, or host");
  app.add_option("--tensor-cores", o.tensor_cores,
                 "Instruction of products on a GPU: auto, mma, wgmma (a class "
                 "of its own)");
  app.add_flag("--early-starts,!--no-early-starts", o.early_starts,
               "Small kernels on CUDA start while the one before ends");
  app.add_flag("--cuda-graphs,!--no-cuda-graphs", o.cuda_graphs,
               "Replay decode steps as CUDA graphs");
  app.add_option("--kv-blocks", o.kv_blocks, "KV blocks of 16 tokens");
  app.add_option("--kv-memory", o.kv_memory_bytes,
                 "Memory of the KV cache, such as 2GiB")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  app.add_option("--max-running", o.max_running, "Sequences that run at once");
  app.add_option("--max-waiting", o.max_waiting, "Sequences that may wait");
  app.add_option("--max-step-tokens", o.max_step_tokens, "Tokens in a step");
  app.add_option("--max-prefill-chunk", o.max_prefill_chunk,
                 "Prompt tokens of one sequence in a step");
  app.add_option("--max-prefill-tokens", o.max_prefill_tokens,
                 "Prompt tokens of all sequences in a step");
  app.add_option("--depth", o.depth, "Plans in flight (0: 1, or stages + 1)");
  app.add_flag_function(
      "--no-prefix-cache", [&o](int64_t) { o.prefix_cache = false; },
      "Compute every prompt whole");
}

}  // namespace

int32_t WorkerOptions::EffectiveDepth() const {
  if (depth > 0) return depth;
  return stage.whole() ? 1 : stage.count + 1;
}

absl::Status WorkerOptions::Validate() const {
  if (model_directory.empty()) {
    return FieldError("--model", "a directory", "nothing");
  }
  CARAVAN_RETURN_IF_ERROR(CheckKinds(*this));
  CARAVAN_RETURN_IF_ERROR(CheckSizes(*this));
  CARAVAN_RETURN_IF_ERROR(CheckMemory(*this));
  CARAVAN_RETURN_IF_ERROR(CheckChain(*this));
  return CheckAddresses(*this);
}

std::optional<int> ParseOptions(int argc, char** argv, WorkerOptions* options) {
  CLI::App app("caravan-worker: serves one model to gateways");
  AddModelFlags(app, *options);
  AddServerFlags(app, *options);
  AddChainFlags(app, *options);
  AddEngineFlags(app, *options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  const absl::Status status = options->Validate();
  if (status.ok()) return std::nullopt;
  LogError("bad_flag", {{"status", status}});
  return 2;
}

}  // namespace caravan::worker
