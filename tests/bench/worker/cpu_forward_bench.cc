// The phases of a whole model of TinyLlama's shape (1.1 billion parameters,
// random, with fp32 activations), beside the read bandwidth of the moment:
//   worker_cpu_bench [--layers N] [--threads N] [--isa NAME] [--pin]
//                    [--prefill N] [--batch N]... [--context N] [--steps N]
//                    [--weights bf16|nf4]
// Not Google Benchmark: each figure needs the ceiling of its own minute.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "worker/bench/ceilings.h"
#include "worker/ops/backend.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker {
namespace {

constexpr int64_t kHidden = 2048;
constexpr int64_t kFeedForward = 5632;
constexpr int32_t kHeads = 32;
constexpr int32_t kKvHeads = 4;
constexpr int32_t kHeadDim = 64;
constexpr int64_t kVocabulary = 32000;

struct Flags {
  int layers = 22;
  int threads = 2;
  bool pin = false;
  CpuIsa isa = CpuIsa::kAuto;
  WeightType weights = WeightType::kBf16;
  int prefill = 512;
  std::vector<int> batches;
  int context = 128;
  int steps = 8;
};

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

sampling::SamplingParams NucleusWithLogprobs() {
  sampling::SamplingParams params;
  params.temperature = 0.8f;
  params.top_p = 0.95f;
  params.logprob_count = 0;
  return params;
}

struct Layer {
  std::unique_ptr<PackedMatrix> qkv, projection, gate_up, down;
};

class Model {
 public:
  explicit Model(const Flags& flags) {
    auto backend = MakeCpuBackend({.numerics = {},
                                   .threads = flags.threads,
                                   .pin = flags.pin,
                                   .isa = flags.isa});
    Must(backend.status());
    backend_ = *std::move(backend);
    weights_ = flags.weights;
    source_.resize(kVocabulary * kHidden);
    std::mt19937 random(1);
    for (uint16_t& bits : source_) {
      const uint32_t draw = random();
      bits = static_cast<uint16_t>((draw & 0x8000) | 0x3c00 | (draw & 0x7f));
    }
    for (int l = 0; l < flags.layers; ++l) {
      layers_.push_back(
          {Pack({kHeads * kHeadDim + 2 * kKvHeads * kHeadDim}, kHidden,
                {PackKind::kQkv, kHeadDim}),
           Pack({kHidden}, kHeads * kHeadDim,
                {PackKind::kHeadSegments, kHeadDim}),
           Pack({kFeedForward, kFeedForward}, kHidden, {PackKind::kGateUp, 32}),
           Pack({kHidden}, kFeedForward, {PackKind::kGroupSegments, 32})});
    }
    head_ = Pack({kVocabulary}, kHidden, {PackKind::kHead, 32});
    norm_.assign(kHidden, 1.0f);
    blocks_per_row_ =
        (std::max(flags.context + flags.steps + 64, flags.prefill) + 15) / 16;
    int rows = 1;
    for (const int batch : flags.batches) rows = std::max(rows, batch);
    auto kv = backend_->AllocateKv({.layers = flags.layers,
                                    .kv_heads = kKvHeads,
                                    .head_dim = kHeadDim,
                                    .block_count = blocks_per_row_ * rows});
    Must(kv.status());
    kv_ = *std::move(kv);
  }

  size_t weight_bytes() const {
    size_t bytes = head_->bytes;
    for (const Layer& layer : layers_) {
      bytes += layer.qkv->bytes + layer.projection->bytes +
               layer.gate_up->bytes + layer.down->bytes;
    }
    return bytes;
  }

  // Seconds of one step: `rows` sequences of `tokens` tokens from `position`.
  double Step(int rows, int tokens, int position) {
    const int64_t count = int64_t{rows} * tokens;
    Prepare(rows, tokens, position);
    const absl::Time start = absl::Now();
    const View<float> x(x_.data(), count, kHidden);
    const View<float> q(q_.data(), count, kHeads * kHeadDim);
    const View<float> attended(attended_.data(), count, kHeads * kHeadDim);
    const View<float> h(h_.data(), count, kFeedForward);
    const View<const float> angles(angles_.data(), count, kHeadDim / 2);
    for (size_t l = 0; l < layers_.size(); ++l) {
      const int32_t layer = static_cast<int32_t>(l);
      Time("qkv", [&] {
        return backend_->NormQkvRopeStore({.x = x,
                                           .norm = norm_,
                                           .epsilon = 1e-5f,
                                           .qkv = layers_[l].qkv.get(),
                                           .bias = {},
                                           .cos = angles,
                                           .sin = angles,
                                           .slots = slots_,
                                           .layer = layer,
                                           .heads = kHeads,
                                           .kv_heads = kKvHeads,
                                           .head_dim = kHeadDim,
                                           .kv = kv_.get(),
                                           .q = q});
      });
      Time("attend", [&] {
        return backend_->Attend({.q = q,
                                 .rows = rows_,
                                 .layer = layer,
                                 .heads = kHeads,
                                 .kv_heads = kKvHeads,
                                 .head_dim = kHeadDim,
                                 .kv = kv_.get(),
                                 .out = attended});
      });
      Time("project", [&] {
        return backend_->ProjectAdd({.a = attended,
                                     .w = layers_[l].projection.get(),
                                     .bias = {},
                                     .x = x});
      });
      Time("gate_up", [&] {
        return backend_->NormGateUpSilu({.x = x,
                                         .norm = norm_,
                                         .epsilon = 1e-5f,
                                         .gate_up = layers_[l].gate_up.get(),
                                         .gate_bias = {},
                                         .up_bias = {},
                                         .out = h});
      });
      Time("down", [&] {
        return backend_->DownAdd(
            {.h = h, .w = layers_[l].down.get(), .bias = {}, .x = x});
      });
    }
    std::vector<int32_t> last;
    for (int r = 0; r < rows; ++r) last.push_back((r + 1) * tokens - 1);
    logits_.resize(rows * kVocabulary);
    Time("head", [&] {
      return backend_->NormHead(
          {.x = x,
           .tokens = last,
           .norm = norm_,
           .epsilon = 1e-5f,
           .head = head_.get(),
           .logits = View<float>(logits_.data(), rows, kVocabulary)});
    });
    std::vector<SampleRow> samples;
    std::vector<TokenScore> sampled(rows);
    for (int r = 0; r < rows; ++r) {
      samples.push_back(
          {.logits_row = r, .state = &state_, .output_position = position});
    }
    Time("sample", [&] {
      return backend_->Sample(
          {.logits = View<float>(logits_.data(), rows, kVocabulary),
           .samples = samples,
           .scores = {},
           .sampled = sampled,
           .scored = {}});
    });
    return absl::ToDoubleSeconds(absl::Now() - start);
  }

  void PrintPhases(int steps) {
    for (const auto& [name, seconds] : phases_) {
      std::printf("  %s %.2f", name.c_str(), seconds / steps * 1e3);
    }
    std::printf(" ms\n");
    phases_.clear();
  }

 private:
  template <typename Body>
  void Time(const char* name, const Body& body) {
    const absl::Time start = absl::Now();
    Must(body());
    phases_[name] += absl::ToDoubleSeconds(absl::Now() - start);
  }

  std::unique_ptr<PackedMatrix> Pack(const std::vector<int64_t>& rows,
                                     int64_t cols, PackSpec spec) {
    std::vector<RawMatrix> parts;
    for (const int64_t count : rows) {
      parts.push_back({reinterpret_cast<const std::byte*>(source_.data()),
                       weights_, count, cols});
    }
    auto packed = backend_->Pack(parts, spec);
    Must(packed.status());
    return *std::move(packed);
  }

  void Prepare(int rows, int tokens, int position) {
    const size_t count = static_cast<size_t>(rows) * tokens;
    x_.assign(count * kHidden, 0.01f);
    q_.resize(count * kHeads * kHeadDim);
    attended_.resize(count * kHeads * kHeadDim);
    h_.resize(count * kFeedForward);
    angles_.assign(count * kHeadDim / 2, 0.5f);
    blocks_.assign(rows, {});
    rows_.clear();
    slots_.clear();
    for (int r = 0; r < rows; ++r) {
      for (int b = 0; b < blocks_per_row_; ++b) {
        blocks_[r].push_back(r * blocks_per_row_ + b);
      }
      rows_.push_back({.first_token = r * tokens,
                       .token_count = tokens,
                       .first_position = position,
                       .blocks = blocks_[r]});
      for (int p = position; p < position + tokens; ++p) {
        slots_.push_back(int64_t{blocks_[r][p / 16]} * 16 + p % 16);
      }
    }
  }

  std::unique_ptr<Backend> backend_;
  WeightType weights_ = WeightType::kBf16;
  std::vector<uint16_t> source_;  // bf16; of nf4 scales and codes: any will do
  std::vector<Layer> layers_;
  std::unique_ptr<PackedMatrix> head_;
  std::unique_ptr<KvStorage> kv_;
  int blocks_per_row_ = 0;
  std::vector<float> norm_, x_, q_, attended_, h_, angles_, logits_;
  std::vector<int64_t> slots_;
  std::vector<AttentionRow> rows_;
  std::vector<std::vector<BlockId>> blocks_;
  std::map<std::string, double> phases_;
  const SamplingState state_{NucleusWithLogprobs(), 0, 0, {}, {}, {}};
};

Flags Parse(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--pin") {
      flags.pin = true;
      continue;
    }
    if (++i == argc) break;
    const int value = std::atoi(argv[i]);
    if (name == "--layers") flags.layers = value;
    if (name == "--threads") flags.threads = value;
    if (name == "--prefill") flags.prefill = value;
    if (name == "--batch") flags.batches.push_back(value);
    if (name == "--context") flags.context = value;
    if (name == "--steps") flags.steps = value;
    if (name == "--weights") {
      flags.weights = WeightTypeFromName(argv[i]).value_or(WeightType::kBf16);
    }
    if (name == "--isa") {
      for (const CpuIsa isa : AvailableCpuIsas()) {
        if (std::strcmp(Name(isa), argv[i]) == 0) flags.isa = isa;
      }
    }
  }
  if (flags.batches.empty()) flags.batches = {1, 16};
  return flags;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  const Flags flags = Parse(argc, argv);
  auto made = bench::Ceilings::Create(flags.threads);
  Must(made.status());
  bench::Ceilings& ceilings = **made;
  const double fma =
      ceilings.OperationsPerSecond(bench::Arithmetic::kFp32, 0.2);
  std::printf("fma %.0f GFLOP/s\n", fma / 1e9);
  const absl::Time start = absl::Now();
  Model model(flags);
  const double gigabytes = static_cast<double>(model.weight_bytes()) / 1e9;
  std::printf("weights %.3f GB packed in %.1f s\n", gigabytes,
              absl::ToDoubleSeconds(absl::Now() - start));
  const double operations =
      2e9 * gigabytes * static_cast<double>(InfoOf(flags.weights).elements) /
      static_cast<double>(InfoOf(flags.weights).bytes);
  double single = 0;
  for (const int batch : flags.batches) {
    model.Step(batch, 1, flags.context);
    model.PrintPhases(1);
    const double before = ceilings.Read().bytes_per_second / 1e9;
    std::vector<double> seconds;
    for (int s = 0; s < flags.steps; ++s) {
      seconds.push_back(model.Step(batch, 1, flags.context + s));
    }
    const double after = ceilings.Read().bytes_per_second / 1e9;
    const double step = Median(seconds);
    if (batch == 1) single = 1 / step;
    std::printf(
        "decode batch %2d: %.2f ms, %.1f tok/s (%.2fx), %.1f GB/s = %.0f %% of "
        "%.1f/%.1f, %.0f GFLOP/s = %.0f %%\n",
        batch, step * 1e3, batch / step, batch / step / single,
        gigabytes / step, gigabytes / step / std::max(before, after) * 100,
        before, after, operations * batch / step / 1e9,
        operations * 100 * batch / step / fma);
    model.PrintPhases(flags.steps);
  }
  if (flags.prefill > 0) {
    const double step = model.Step(1, flags.prefill, 0);
    std::printf("prefill %d: %.1f tok/s (%.2fx of one stream)\n", flags.prefill,
                flags.prefill / step, flags.prefill / step / single);
    model.PrintPhases(1);
  }
  return 0;
}

}  // namespace
}  // namespace caravan::worker

int main(int argc, char** argv) { return caravan::worker::Main(argc, argv); }
