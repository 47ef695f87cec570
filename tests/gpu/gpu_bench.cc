// Times the phases of one layer and the head of an 8B Llama on the machine's
// GPU, as a step would run them, beside ceilings measured in the same run.
//
//   gpu_bench [--tokens N,..] [--context N] [--prefill N] [--seconds S]
//             [--graphs]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iomanip>
#include <iostream>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/status/status_macros.h"
#include "worker/ops/check.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/nvidia_device.h"
#include "worker/ops/cuda/storage.h"

namespace caravan::worker {
namespace {

struct Shape {
  int64_t hidden = 4096;
  int32_t heads = 32;
  int32_t kv_heads = 8;
  int32_t head_dim = 128;
  int64_t feed_forward = 14336;
  int64_t vocabulary = 128256;
  int32_t layers = 32;
};

struct BenchOptions {
  std::vector<int> tokens = {1, 8, 64, 256};
  int context = 512;
  int prefill = 2048;
  double seconds = 0.3;  // of a figure
  bool graphs = false;   // whole steps as graphs instead of phases alone
};

struct Ceilings {
  double bytes_per_second = 0;
  double flops = 0;
};

// Median of 5 times of one call, in seconds, of calls that only start work.
class Stopwatch {
 public:
  Stopwatch(cuda::Device* device, double seconds)
      : device_(*device), seconds_(seconds) {}

  absl::StatusOr<double> Time(const std::function<absl::Status()>& call) {
    CARAVAN_ASSIGN_OR_RETURN(const double once, Block(call, 3));
    const int count =
        std::clamp(static_cast<int>(seconds_ / 5 / once), 1, 2000);
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      CARAVAN_ASSIGN_OR_RETURN(const double time, Block(call, count));
      times.push_back(time);
    }
    std::sort(times.begin(), times.end());
    return times[2];
  }

 private:
  absl::StatusOr<double> Block(const std::function<absl::Status()>& call,
                               int count) {
    using Clock = std::chrono::steady_clock;
    CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < count; ++i) CARAVAN_RETURN_IF_ERROR(call());
    CARAVAN_RETURN_IF_ERROR(device_.Synchronize());
    return std::chrono::duration<double>(Clock::now() - begin).count() / count;
  }

  cuda::Device& device_;
  const double seconds_;
};

absl::StatusOr<Ceilings> MeasureCeilings(cuda::Device* device,
                                         Stopwatch& stopwatch) {
  using cuda::MmaCeilingKernel;
  using cuda::ReadCeilingKernel;
  constexpr size_t kBytes = size_t{4} << 30;
  CARAVAN_ASSIGN_OR_RETURN(const cuda::DeviceBuffer data,
                           cuda::DeviceBuffer::Allocate(device, kBytes));
  const int32_t blocks = 4 * device->multiprocessors();
  CARAVAN_ASSIGN_OR_RETURN(
      const cuda::DeviceBuffer sums,
      cuda::DeviceBuffer::Allocate(
          device, sizeof(float) * blocks * ReadCeilingKernel::kThreads));
  Ceilings ceilings;
  CARAVAN_ASSIGN_OR_RETURN(const double read, stopwatch.Time([&] {
    return device->Launch<ReadCeilingKernel>(
        {.x = blocks, .threads = ReadCeilingKernel::kThreads},
        {.data = data.As<cuda::Words4>(),
         .count = kBytes / 16,
         .blocks = blocks,
         .sums = sums.As<uint32_t>()});
  }));
  ceilings.bytes_per_second = kBytes / read;
  constexpr int32_t kRounds = 2000;
  CARAVAN_ASSIGN_OR_RETURN(const double mma, stopwatch.Time([&] {
    return device->Launch<MmaCeilingKernel>(
        {.x = blocks, .threads = MmaCeilingKernel::kThreads},
        {.rounds = kRounds, .sums = sums.As<float>()});
  }));
  ceilings.flops = 2.0 * 16 * 8 * 16 * kRounds * MmaCeilingKernel::kChains *
                   blocks * (MmaCeilingKernel::kThreads / 32) / mma;
  return ceilings;
}

// Weights of a layer and the head, and a step's arrays, on the device.
class Layer {
 public:
  Layer(Backend* backend, const Shape& shape)
      : backend_(*backend), ops_(backend), shape_(shape) {}

  absl::Status Load(int64_t max_tokens, int64_t max_context);
  // `tokens` sequences of `context` keys each, or one of `tokens` prompt
  // tokens where context is 0.
  void Prepare(int64_t tokens, int32_t context);

  absl::Status Qkv();
  absl::Status Attend();
  absl::Status Project();
  absl::Status GateUp();
  absl::Status Down();
  absl::Status Head();
  // The greedy token of each row; or one drawn from top-k and top-p, scored.
  absl::Status Greedy() {
    sampling::SamplingParams params;
    params.temperature = 0;
    return Sample(params);
  }
  absl::Status Draw() {
    sampling::SamplingParams params;
    params.top_p = 0.9f;
    params.top_k = 50;
    params.logprob_count = 5;
    return Sample(params);
  }
  absl::Status Begin() {
    return backend_.BeginStep(
        {std::span(ids_).first(tokens_), slots_, rows_, Rope(), Rope()});
  }
  // All of the step's layers, as a model runs them.
  absl::Status Layers();

 private:
  absl::Status Fill();
  absl::Status Sample(const sampling::SamplingParams& params);
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      const std::vector<int64_t>& rows, int64_t cols, PackSpec spec) {
    std::vector<RawMatrix> parts;
    for (const int64_t r : rows) {
      parts.push_back({reinterpret_cast<const std::byte*>(random_.data()),
                       DType::kBf16, r, cols});
    }
    return backend_.Pack(parts, spec);
  }
  View<const float> Rope() const {
    return {rope_.data(), tokens_, shape_.head_dim / 2};
  }
  View<float> Array(int64_t offset, int64_t rows, int64_t cols) {
    return {reinterpret_cast<float*>(arena_->data) + offset, rows, cols};
  }
  int64_t heads_width() const {
    return int64_t{shape_.heads} * shape_.head_dim;
  }
  View<float> x() { return Array(0, tokens_, shape_.hidden); }
  View<float> q() {
    return Array(max_tokens_ * shape_.hidden, tokens_, heads_width());
  }
  View<float> out() {
    return Array(max_tokens_ * (shape_.hidden + heads_width()), tokens_,
                 heads_width());
  }
  View<float> hidden() {
    return Array(max_tokens_ * (shape_.hidden + 2 * heads_width()), tokens_,
                 shape_.feed_forward);
  }
  View<float> logits() {
    return Array(
        max_tokens_ * (shape_.hidden + 2 * heads_width() + shape_.feed_forward),
        std::ssize(wanted_), shape_.vocabulary);
  }

  Backend& backend_;
  CheckedOps ops_;
  const Shape shape_;
  int64_t max_tokens_ = 0;
  int64_t tokens_ = 0;
  std::vector<uint16_t> random_;
  std::unique_ptr<PackedMatrix> qkv_, output_, gate_up_, down_, head_;
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<Arena> arena_;
  std::vector<float> norm_, rope_;
  std::vector<int32_t> ids_, wanted_;
  std::vector<int64_t> slots_;
  std::vector<std::vector<BlockId>> blocks_;
  std::vector<AttentionRow> rows_;
  int32_t block_count_ = 0;
};

absl::Status Layer::Load(int64_t max_tokens, int64_t max_keys) {
  max_tokens_ = max_tokens;
  random_.resize(shape_.vocabulary * shape_.hidden);
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 4 <= random_.size(); i += 4) {
    const uint64_t bits = random();
    for (int j = 0; j < 4; ++j) {  // magnitudes of 2^-7 to 2^-6
      random_[i + j] =
          static_cast<uint16_t>(((bits >> (16 * j)) & 0x807f) | 0x3c00);
    }
  }
  const int64_t kv = int64_t{shape_.kv_heads} * shape_.head_dim;
  CARAVAN_ASSIGN_OR_RETURN(qkv_, Pack({heads_width(), kv, kv}, shape_.hidden,
                                      {PackKind::kQkv, shape_.head_dim}));
  CARAVAN_ASSIGN_OR_RETURN(output_,
                           Pack({shape_.hidden}, heads_width(),
                                {PackKind::kHeadSegments, shape_.head_dim}));
  CARAVAN_ASSIGN_OR_RETURN(
      gate_up_, Pack({shape_.feed_forward, shape_.feed_forward}, shape_.hidden,
                     {PackKind::kGateUp, 32}));
  CARAVAN_ASSIGN_OR_RETURN(down_, Pack({shape_.hidden}, shape_.feed_forward,
                                       {PackKind::kGroupSegments, 32}));
  CARAVAN_ASSIGN_OR_RETURN(
      head_, Pack({shape_.vocabulary}, shape_.hidden, {PackKind::kHead, 32}));
  block_count_ = static_cast<int32_t>(max_keys / kBlockSlots + max_tokens);
  CARAVAN_ASSIGN_OR_RETURN(kv_,
                           backend_.AllocateKv({.layers = 1,
                                                .kv_heads = shape_.kv_heads,
                                                .head_dim = shape_.head_dim,
                                                .block_count = block_count_}));
  const int64_t floats =
      max_tokens * (shape_.hidden + 2 * heads_width() + shape_.feed_forward) +
      256 * shape_.vocabulary;
  CARAVAN_ASSIGN_OR_RETURN(arena_, backend_.AllocateArena(4 * floats));
  norm_.assign(shape_.hidden, 1.0f);
  CARAVAN_RETURN_IF_ERROR(backend_.Keep(norm_));
  CARAVAN_RETURN_IF_ERROR(
      backend_.ReserveScratch({.max_tokens = static_cast<int32_t>(max_tokens),
                               .hidden = shape_.hidden,
                               .qkv_rows = heads_width() + 2 * kv,
                               .widest = shape_.feed_forward,
                               .heads = shape_.heads,
                               .logits_rows = 256,
                               .vocabulary = shape_.vocabulary}));
  return Fill();
}

// Zeros would cost less power: random x, and keys and values everywhere.
absl::Status Layer::Fill() {
  const int64_t all = int64_t{block_count_} * kBlockSlots;
  tokens_ = std::min(max_tokens_, all);
  rope_.assign(tokens_ * shape_.head_dim / 2, 0.5f);
  std::mt19937 random(2);
  for (int64_t t = 0; t < tokens_; ++t) {
    ids_.push_back(static_cast<int32_t>(random() % shape_.vocabulary));
  }
  for (int64_t first = 0; first + tokens_ <= all; first += tokens_) {
    slots_.clear();
    for (int64_t t = 0; t < tokens_; ++t) slots_.push_back(first + t);
    CARAVAN_RETURN_IF_ERROR(Begin());
    CARAVAN_RETURN_IF_ERROR(
        ops_.Embed({.ids = ids_, .table = head_.get(), .x = x()}));
    CARAVAN_RETURN_IF_ERROR(Qkv());
  }
  return absl::OkStatus();
}

void Layer::Prepare(int64_t tokens, int32_t context) {
  tokens_ = tokens;
  rope_.assign(tokens * shape_.head_dim / 2, 0.5f);
  wanted_.clear();
  slots_.clear();
  rows_.clear();
  blocks_.clear();
  const bool prefill = context == 0;
  const int32_t sequences = prefill ? 1 : static_cast<int32_t>(tokens);
  const int32_t keys = prefill ? static_cast<int32_t>(tokens) : context;
  BlockId next = 0;
  for (int32_t s = 0; s < sequences; ++s) {
    std::vector<BlockId> blocks;
    for (int32_t k = 0; k < keys; k += kBlockSlots) {
      blocks.push_back(next++ % block_count_);
    }
    blocks_.push_back(std::move(blocks));
  }
  for (int32_t s = 0; s < sequences; ++s) {
    const int32_t count = prefill ? keys : 1;
    rows_.push_back(
        {static_cast<int32_t>(slots_.size()), count, keys - count, blocks_[s]});
    for (int32_t p = keys - count; p < keys; ++p) {
      slots_.push_back(int64_t{blocks_[s][p / kBlockSlots]} * kBlockSlots +
                       p % kBlockSlots);
    }
    wanted_.push_back(static_cast<int32_t>(slots_.size()) - 1);
  }
}

absl::Status Layer::Qkv() {
  return ops_.NormQkvRopeStore({.x = x(),
                                .norm = norm_,
                                .epsilon = 1e-5f,
                                .qkv = qkv_.get(),
                                .bias = {},
                                .cos = Rope(),
                                .sin = Rope(),
                                .slots = slots_,
                                .layer = 0,
                                .heads = shape_.heads,
                                .kv_heads = shape_.kv_heads,
                                .head_dim = shape_.head_dim,
                                .kv = kv_.get(),
                                .q = q()});
}

absl::Status Layer::Attend() {
  return ops_.Attend({.q = q(),
                      .rows = rows_,
                      .layer = 0,
                      .heads = shape_.heads,
                      .kv_heads = shape_.kv_heads,
                      .head_dim = shape_.head_dim,
                      .kv = kv_.get(),
                      .out = out()});
}

absl::Status Layer::Project() {
  return ops_.ProjectAdd({out(), output_.get(), {}, x()});
}

absl::Status Layer::GateUp() {
  return ops_.NormGateUpSilu({.x = x(),
                              .norm = norm_,
                              .epsilon = 1e-5f,
                              .gate_up = gate_up_.get(),
                              .gate_bias = {},
                              .up_bias = {},
                              .out = hidden()});
}

absl::Status Layer::Down() {
  return ops_.DownAdd({hidden(), down_.get(), {}, x()});
}

absl::Status Layer::Head() {
  return ops_.NormHead({.x = x(),
                        .tokens = wanted_,
                        .norm = norm_,
                        .epsilon = 1e-5f,
                        .head = head_.get(),
                        .logits = logits()});
}

absl::Status Layer::Sample(const sampling::SamplingParams& params) {
  const SamplingState state(params, /*choice=*/0, /*min_tokens=*/0,
                            /*end_ids=*/{}, /*prompt=*/{}, /*output=*/{});
  std::vector<SampleRow> samples(wanted_.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = {static_cast<int32_t>(i), &state, static_cast<int32_t>(i)};
  }
  std::vector<TokenScore> sampled(samples.size());
  return ops_.Sample({logits(), samples, {}, sampled, {}});
}

absl::Status Layer::Layers() {
  CARAVAN_RETURN_IF_ERROR(Begin());
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    CARAVAN_RETURN_IF_ERROR(Qkv());
    CARAVAN_RETURN_IF_ERROR(Attend());
    CARAVAN_RETURN_IF_ERROR(Project());
    CARAVAN_RETURN_IF_ERROR(GateUp());
    CARAVAN_RETURN_IF_ERROR(Down());
  }
  backend_.EndStep();
  return absl::OkStatus();
}

// One line of the table: time, bytes and flops of a phase against ceilings.
void Print(const std::string& name, int64_t tokens, int64_t context,
           double seconds, double bytes, double flops,
           const Ceilings& ceilings) {
  std::cout << std::left << std::setw(10) << name << std::right << std::setw(6)
            << tokens << std::setw(7) << context << std::fixed
            << std::setprecision(1) << std::setw(11) << seconds * 1e6 << " us"
            << std::setw(9) << bytes / seconds / 1e9 << " GB/s" << std::setw(6)
            << 100 * bytes / seconds / ceilings.bytes_per_second << "%"
            << std::setw(9) << flops / seconds / 1e12 << " TFLOP/s"
            << std::setw(6) << 100 * flops / seconds / ceilings.flops << "%\n";
}

struct Phase {
  std::string name;
  absl::Status (Layer::*run)();
  double weights;  // elements
  double keys;     // bytes of cache read
  double flops;    // beside the weights'
};

// All layers at once, and sampling: what has no ceiling but its bytes.
absl::Status MeasureWhole(Layer& layer, const Shape& shape, int64_t tokens,
                          int32_t context, const Ceilings& ceilings,
                          Stopwatch& stopwatch) {
  layer.Prepare(tokens, context);
  const double width = shape.heads * shape.head_dim;
  const double kv = shape.kv_heads * shape.head_dim;
  const double d = shape.hidden;
  const double weights =
      shape.layers * (d * (2 * width + 2 * kv) + 3.0 * d * shape.feed_forward);
  const double keys = 4.0 * shape.layers * tokens * context * kv;
  const double logits = 4.0 * tokens * shape.vocabulary;
  CARAVAN_ASSIGN_OR_RETURN(const double layers,
                           stopwatch.Time([&] { return layer.Layers(); }));
  Print("layers", tokens, context, layers, 2 * weights + keys,
        2 * weights * tokens, ceilings);
  CARAVAN_RETURN_IF_ERROR(layer.Head());
  CARAVAN_ASSIGN_OR_RETURN(const double greedy,
                           stopwatch.Time([&] { return layer.Greedy(); }));
  Print("greedy", tokens, context, greedy, logits, 0, ceilings);
  CARAVAN_ASSIGN_OR_RETURN(const double drawn,
                           stopwatch.Time([&] { return layer.Draw(); }));
  Print("draw", tokens, context, drawn, logits, 0, ceilings);
  return absl::OkStatus();
}

absl::Status MeasureStep(Layer& layer, const Shape& shape, int64_t tokens,
                         int32_t context, const Ceilings& ceilings,
                         Stopwatch& stopwatch) {
  layer.Prepare(tokens, context);
  const double width = shape.heads * shape.head_dim;
  const double kv = shape.kv_heads * shape.head_dim;
  const double keys = context > 0 ? 1.0 * tokens * context : tokens;
  const double pairs =  // of queries and keys
      context > 0 ? keys : 0.5 * tokens * (tokens + 1);
  const double d = shape.hidden;
  const std::vector<Phase> phases = {
      {"qkv", &Layer::Qkv, d * (width + 2 * kv), 0, 0},
      {"attend", &Layer::Attend, 0, keys * kv * 4, 4 * pairs * width},
      {"project", &Layer::Project, d * width, 0, 0},
      {"gate_up", &Layer::GateUp, d * 2.0 * shape.feed_forward, 0, 0},
      {"down", &Layer::Down, d * shape.feed_forward, 0, 0},
      {"head", &Layer::Head, d * shape.vocabulary, 0, 0}};
  double step = 0;
  double step_bytes = 0;
  double step_flops = 0;
  for (const Phase& phase : phases) {
    CARAVAN_RETURN_IF_ERROR(layer.Begin());
    CARAVAN_ASSIGN_OR_RETURN(const double time, stopwatch.Time([&] {
      return (layer.*phase.run)();
    }));
    const bool head = phase.name == "head";
    const double rows = head && context == 0 ? 1 : static_cast<double>(tokens);
    const double bytes = 2 * phase.weights + phase.keys;
    const double flops = 2 * phase.weights * rows + phase.flops;
    Print(phase.name, tokens, context, time, bytes, flops, ceilings);
    const double times = head ? 1 : shape.layers;
    step += times * time;
    step_bytes += times * bytes;
    step_flops += times * flops;
  }
  Print("step", tokens, context, step, step_bytes, step_flops, ceilings);
  return absl::OkStatus();
}

absl::Status Run(const BenchOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Device> owned,
                           cuda::OpenNvidiaDevice({}));
  cuda::Device* const device = owned.get();
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<Backend> backend,
      cuda::MakeBackendOn(std::move(owned), {.graphs = options.graphs}));
  Stopwatch stopwatch(device, options.seconds);
  CARAVAN_ASSIGN_OR_RETURN(const Ceilings ceilings,
                           MeasureCeilings(device, stopwatch));
  std::cout << backend->NumericsClass(DType::kBf16) << ", "
            << device->multiprocessors() << " multiprocessors; ceilings "
            << ceilings.bytes_per_second / 1e9 << " GB/s read, "
            << ceilings.flops / 1e12 << " TFLOP/s mma.sync\n"
            << "phase     tokens context; a step is 32 layers and the head\n";
  const Shape shape;
  Layer layer(backend.get(), shape);
  const int most =
      std::max(options.prefill,
               *std::max_element(options.tokens.begin(), options.tokens.end()));
  CARAVAN_RETURN_IF_ERROR(layer.Load(
      most,
      std::max<int64_t>(options.prefill, int64_t{256} * options.context)));
  for (const int tokens : options.tokens) {
    CARAVAN_RETURN_IF_ERROR(MeasureWhole(layer, shape, tokens, options.context,
                                         ceilings, stopwatch));
    if (options.graphs) continue;
    CARAVAN_RETURN_IF_ERROR(MeasureStep(layer, shape, tokens, options.context,
                                        ceilings, stopwatch));
  }
  if (options.prefill == 0 || options.graphs) return absl::OkStatus();
  return MeasureStep(layer, shape, options.prefill, 0, ceilings, stopwatch);
}

}  // namespace
}  // namespace caravan::worker

int main(int argc, char** argv) {
  CLI::App app("Phases of an 8B layer on the GPU, against measured ceilings");
  caravan::worker::BenchOptions options;
  app.add_option("--tokens", options.tokens, "Sequences of a decode step")
      ->delimiter(',')
      ->check(CLI::Range(1, 256));
  app.add_option("--context", options.context, "Keys of each")
      ->check(CLI::Range(1, 16384));
  app.add_option("--prefill", options.prefill, "Prompt tokens; 0: none")
      ->check(CLI::Range(0, 16384));
  app.add_flag("--graphs", options.graphs, "Whole steps, as graphs");
  app.add_option("--seconds", options.seconds, "Of each figure")
      ->check(CLI::Range(0.01, 10.0));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = caravan::worker::Run(options);
  if (status.ok()) return 0;
  std::cerr << status.message() << '\n';
  return 1;
}
