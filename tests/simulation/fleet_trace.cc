#include "tests/simulation/fleet_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace caravan::simulation {
namespace {

constexpr int kTexts = 64;
constexpr int kVocabulary = 32'000;
constexpr int kLeastOutput = 16;
constexpr int kMostOutput = 256;
constexpr double kMeanOutputAboveLeast = 45;
// Of a bursty trace: requests in a burst, and how much closer they come.
constexpr double kBurstLength = 32;
constexpr double kBurstGap = 0.25;

uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

int32_t TokenOf(uint64_t text, int32_t position) {
  return static_cast<int32_t>(
      Mix(text * 0x100000001B3u + static_cast<uint64_t>(position)) %
      kVocabulary);
}

// The k-th text (from 0) with a probability in proportion to 1 / (k + 1).
uint64_t DrawText(TraceRandom& random) {
  double sum = 0;
  for (int k = 0; k < kTexts; ++k) sum += 1.0 / (k + 1);
  double left = random.Uniform() * sum;
  for (int k = 0; k < kTexts; ++k) {
    left -= 1.0 / (k + 1);
    if (left < 0) return static_cast<uint64_t>(k);
  }
  return kTexts - 1;
}

int32_t DrawLength(TraceRandom& random) {
  const uint64_t draw = random.Below(10);
  return draw < 6 ? 512 : draw < 9 ? 1024 : 2048;
}

double DrawGap(const TraceSpec& spec, TraceRandom& random) {
  if (!spec.bursty) return random.Exponential(1);
  const double gap = random.Exponential(kBurstGap);
  if (random.Uniform() >= 1 / kBurstLength) return gap;
  // A burst ends: the mean of all gaps stays 1.
  return gap + random.Exponential(kBurstLength * (1 - kBurstGap));
}

}  // namespace

uint64_t TraceRandom::Next() {
  state_ += 0x9E3779B97F4A7C15u;
  return Mix(state_);
}

double TraceRandom::Uniform() {
  return static_cast<double>(Next() >> 11) * 0x1p-53;
}

double TraceRandom::Exponential(double mean) {
  return -mean * std::log(1 - Uniform());
}

const std::array<TraceSpec, 6>& FixedTraces() {
  static const auto* const traces = new std::array<TraceSpec, 6>{{
      {"shared0-poisson", 0.0, false, 11},
      {"shared50-poisson", 0.5, false, 12},
      {"shared90-poisson", 0.9, false, 13},
      {"shared0-bursty", 0.0, true, 14},
      {"shared50-bursty", 0.5, true, 15},
      {"shared90-bursty", 0.9, true, 16},
  }};
  return *traces;
}

std::vector<TraceRequest> MakeTrace(const TraceSpec& spec, int request_count) {
  TraceRandom random(spec.seed);
  std::vector<TraceRequest> trace;
  double arrival = 0;
  for (int i = 0; i < request_count; ++i) {
    TraceRequest request;
    arrival += DrawGap(spec, random);
    request.arrival = arrival;
    const int32_t length = DrawLength(random);
    const uint64_t text = DrawText(random);
    const uint64_t own_text = Mix(random.Next()) | uint64_t{1} << 32;
    request.shared_tokens = static_cast<int32_t>(length * spec.shared);
    std::vector<int32_t> prompt;
    for (int32_t p = 0; p < length; ++p) {
      prompt.push_back(TokenOf(p < request.shared_tokens ? text : own_text, p));
    }
    request.prompt =
        std::make_shared<const std::vector<int32_t>>(std::move(prompt));
    request.output_tokens = std::min(
        kMostOutput, kLeastOutput + static_cast<int>(random.Exponential(
                                        kMeanOutputAboveLeast)));
    trace.push_back(std::move(request));
  }
  return trace;
}

uint64_t DigestOf(const std::vector<TraceRequest>& trace) {
  uint64_t digest = 0;
  const auto add = [&](uint64_t value) { digest = Mix(digest ^ value); };
  for (const TraceRequest& request : trace) {
    add(static_cast<uint64_t>(std::llround(request.arrival * 1e6)));
    for (const int32_t id : *request.prompt) add(static_cast<uint64_t>(id));
    add(static_cast<uint64_t>(request.output_tokens));
  }
  return digest;
}

}  // namespace caravan::simulation
