#include "worker/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "worker/ops/canonical_math.h"

namespace caravan::worker {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// How strongly scores sharpen when a context is stretched by `factor`.
double YarnScale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * Log64(factor) + 1;
}

float AttentionFactor(const RopeScaling& rope) {
  if (rope.type != RopeType::kYarn) return 1;
  if (rope.attention_factor) return static_cast<float>(*rope.attention_factor);
  if (rope.mscale.value_or(0) != 0 && rope.mscale_all_dim.value_or(0) != 0) {
    return static_cast<float>(YarnScale(rope.factor, *rope.mscale) /
                              YarnScale(rope.factor, *rope.mscale_all_dim));
  }
  return static_cast<float>(YarnScale(rope.factor, 1));
}

// base^(-2i/d).
double PlainFrequency(double base, int32_t i, int32_t head_dim) {
  return 1 / Pow64(base, 2.0 * i / head_dim);
}

// The index of the pair that turns `rotations` times over the original context.
double YarnIndex(const ModelConfig& config, double rotations) {
  return config.head_dim *
         Log64(config.rope.original_context / (kTwoPi * rotations)) /
         (2 * Log64(config.rope_theta));
}

}  // namespace

Rope::Rope(const ModelConfig& config)
    : config_(config), attention_factor_(AttentionFactor(config.rope)) {
  switch (config_.rope.type) {
    case RopeType::kYarn:
      frequencies_ = Yarn();
      break;
    case RopeType::kLlama3:
      frequencies_ = Llama3();
      break;
    default:
      frequencies_ = Plain(config_.rope_theta);
  }
  for (size_t i = 0; i < config_.rope_divisors.size(); ++i) {
    frequencies_[i] /= config_.rope_divisors[i];
  }
  if (config_.rope.type != RopeType::kLinear) return;
  for (float& frequency : frequencies_) {
    frequency /= static_cast<float>(config_.rope.factor);
  }
}

std::vector<float> Rope::Plain(double base) const {
  std::vector<float> frequencies(config_.head_dim / 2);
  for (int32_t i = 0; i < config_.head_dim / 2; ++i) {
    frequencies[i] =
        static_cast<float>(PlainFrequency(base, i, config_.head_dim));
  }
  return frequencies;
}

// Pairs that turn often keep their frequency, pairs that turn less than once
// are interpolated, those between are mixed along a ramp.
std::vector<float> Rope::Yarn() const {
  const RopeScaling& rope = config_.rope;
  double low = YarnIndex(config_, rope.beta_fast);
  double high = YarnIndex(config_, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config_.head_dim - 1.0);
  if (low == high) high += 0.001;
  std::vector<float> frequencies(config_.head_dim / 2);
  for (int32_t i = 0; i < config_.head_dim / 2; ++i) {
    const double plain =
        PlainFrequency(config_.rope_theta, i, config_.head_dim);
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    frequencies[i] =
        static_cast<float>(plain / rope.factor * ramp + plain * (1 - ramp));
  }
  return frequencies;
}

// By wavelength: short ones stay, long ones are interpolated, between them a
// smooth mix.
std::vector<float> Rope::Llama3() const {
  const RopeScaling& rope = config_.rope;
  std::vector<float> frequencies(config_.head_dim / 2);
  for (int32_t i = 0; i < config_.head_dim / 2; ++i) {
    const double plain =
        PlainFrequency(config_.rope_theta, i, config_.head_dim);
    const double turns = rope.original_context * plain / kTwoPi;
    const double mix =
        std::clamp((turns - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor),
                   0.0, 1.0);
    frequencies[i] =
        static_cast<float>((1 - mix) * plain / rope.factor + mix * plain);
  }
  return frequencies;
}

int32_t Rope::ScaledLength(int32_t position, int32_t prompt_length) const {
  if (config_.rope.type != RopeType::kDynamic) return 0;
  const int32_t length = std::max(prompt_length, position + 1);
  return length > config_.max_position_embeddings ? length : 0;
}

std::vector<float> Rope::ForLength(int32_t length) const {
  const double d = config_.head_dim;
  const double factor = config_.rope.factor;
  const double stretch =
      factor * length / config_.max_position_embeddings - (factor - 1);
  return Plain(config_.rope_theta * Pow64(stretch, d / (d - 2)));
}

std::vector<float> Rope::InverseFrequencies(int32_t position,
                                            int32_t prompt_length) const {
  const int32_t length = ScaledLength(position, prompt_length);
  return length > 0 ? ForLength(length) : frequencies_;
}

void Rope::Fill(int32_t position, int32_t prompt_length, std::span<float> cos,
                std::span<float> sin) const {
  const int32_t length = ScaledLength(position, prompt_length);
  std::vector<float> scaled;
  if (length > 0) scaled = ForLength(length);
  const std::vector<float>& frequencies = length > 0 ? scaled : frequencies_;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    const SinCos value = SinCos64(angle);
    cos[i] = static_cast<float>(value.cos) * attention_factor_;
    sin[i] = static_cast<float>(value.sin) * attention_factor_;
  }
}

}  // namespace caravan::worker
