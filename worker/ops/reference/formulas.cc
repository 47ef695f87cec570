#include "worker/ops/reference/formulas.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "worker/ops/canonical_math.h"
#include "worker/ops/ops.h"
#include "worker/ops/reference/dot.h"

namespace caravan::worker::reference {
namespace {

using Lanes = std::array<float, 16>;

// The fold that ends Lanes16.
float Fold(Lanes lanes) {
  for (int j = 0; j < 8; ++j) lanes[j] += lanes[j + 8];
  for (int j = 0; j < 4; ++j) lanes[j] += lanes[j + 4];
  lanes[0] += lanes[2];
  lanes[1] += lanes[3];
  return lanes[0] + lanes[1];
}

float SumOfSquares(std::span<const float> x) {
  Lanes lanes = {};
  for (size_t i = 0; i < x.size(); ++i) {
    lanes[i % 16] = std::fma(x[i], x[i], lanes[i % 16]);
  }
  return Fold(lanes);
}

// Keys that one split sees: maximum, sum and output, each from scratch.
struct Split {
  float max = 0;
  float sum = 0;
  std::vector<float> out;
};

// Turns scores into exp(score - max). The split begins at a multiple of 16
// positions, so an index's lane is its position's.
float Exponentiate(float max, std::span<float> scores) {
  Lanes lanes = {};
  for (size_t j = 0; j < scores.size(); ++j) {
    scores[j] = Exp(scores[j] - max);
    lanes[j % 16] += scores[j];
  }
  return Fold(lanes);
}

Split AttendSplit(std::span<const float> q, View<const float> keys,
                  View<const float> values) {
  const int64_t dim = std::ssize(q);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<float> p(keys.rows);
  for (int64_t j = 0; j < keys.rows; ++j) {
    p[j] = scale * Chain(q.data(), 1, keys.row(j), 1, dim, 0.0f);
  }
  Split split;
  split.max = *std::max_element(p.begin(), p.end());
  split.sum = Exponentiate(split.max, p);
  split.out.resize(dim);
  for (int64_t i = 0; i < dim; ++i) {
    split.out[i] =
        Chain(p.data(), 1, values.data + i, values.stride, keys.rows, 0.0f);
  }
  return split;
}

// Adds a later split to what stands for the earlier ones.
void Merge(const Split& next, Split& all) {
  const float max = std::max(all.max, next.max);
  const float a = Exp(all.max - max);
  const float b = Exp(next.max - max);
  all.max = max;
  all.sum = std::fma(all.sum, a, next.sum * b);
  for (size_t i = 0; i < all.out.size(); ++i) {
    all.out[i] = std::fma(all.out[i], a, next.out[i] * b);
  }
}

}  // namespace

void RmsNorm(std::span<const float> x, std::span<const float> weight,
             float epsilon, std::span<float> y) {
  const float mean = SumOfSquares(x) / static_cast<float>(x.size());
  const float scale = 1.0f / std::sqrt(mean + epsilon);
  for (size_t i = 0; i < x.size(); ++i) y[i] = (x[i] * scale) * weight[i];
}

void MatMul(std::span<const float> x, View<const float> w, std::span<float> y) {
  ChainRows(x.data(), w.data, w.stride, w.rows, w.cols, y.data());
}

void MatMulSegmented(std::span<const float> x, View<const float> w,
                     const Borders& borders, std::span<float> y) {
  std::array<std::vector<float>, kSegments> s;
  for (int i = 0; i < kSegments; ++i) {
    s[i].resize(w.rows);
    ChainRows(x.data() + borders[i], w.data + borders[i], w.stride, w.rows,
              borders[i + 1] - borders[i], s[i].data());
  }
  for (int64_t r = 0; r < w.rows; ++r) {
    y[r] = ((s[0][r] + s[1][r]) + (s[2][r] + s[3][r])) +
           ((s[4][r] + s[5][r]) + (s[6][r] + s[7][r]));
  }
}

namespace {

// BfChain over k in [begin, end) of one row of weights.
float Bf16Chain(const float* x, const float* w, int64_t begin, int64_t end) {
  float acc = 0;
  for (int64_t k = begin; k < end; k += 2) {
    const bool odd = k + 1 < end;
    acc = FlushingFma(odd ? w[k + 1] : 0.0f, odd ? x[k + 1] : 0.0f, acc);
    acc = FlushingFma(w[k], x[k], acc);
  }
  return acc;
}

std::vector<float> RoundToBf16(std::span<const float> x) {
  std::vector<float> rounded(x.begin(), x.end());
  for (float& value : rounded) value = ToFloat(ToBf16(value));
  return rounded;
}

float FlushingAdd(float a, float b) { return Flush(a + b); }

}  // namespace

void MatMulBf16(std::span<const float> x, View<const float> w,
                std::span<float> y) {
  const std::vector<float> rounded = RoundToBf16(x);
  for (int64_t r = 0; r < w.rows; ++r) {
    y[r] = Bf16Chain(rounded.data(), w.row(r), 0, w.cols);
  }
}

void MatMulSegmentedBf16(std::span<const float> x, View<const float> w,
                         const Borders& borders, std::span<float> y) {
  const std::vector<float> rounded = RoundToBf16(x);
  for (int64_t r = 0; r < w.rows; ++r) {
    std::array<float, kSegments> s;
    for (int i = 0; i < kSegments; ++i) {
      s[i] = Bf16Chain(rounded.data(), w.row(r), borders[i], borders[i + 1]);
    }
    y[r] = FlushingAdd(
        FlushingAdd(FlushingAdd(s[0], s[1]), FlushingAdd(s[2], s[3])),
        FlushingAdd(FlushingAdd(s[4], s[5]), FlushingAdd(s[6], s[7])));
  }
}

void AddBias(std::span<const float> bias, std::span<float> y) {
  for (size_t i = 0; i < bias.size(); ++i) y[i] += bias[i];
}

void Rope(std::span<const float> cos, std::span<const float> sin,
          std::span<float> head) {
  const size_t half = head.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = std::fma(a, cos[i], -(b * sin[i]));
    head[i + half] = std::fma(b, cos[i], a * sin[i]);
  }
}

void SiluMultiply(std::span<const float> up, std::span<float> x) {
  for (size_t i = 0; i < x.size(); ++i) x[i] = Silu(x[i]) * up[i];
}

void Attention(std::span<const float> q, View<const float> keys,
               View<const float> values, std::span<float> out) {
  Split all;
  for (int64_t first = 0; first < keys.rows; first += kAttentionSplitKeys) {
    const int64_t count =
        std::min<int64_t>(kAttentionSplitKeys, keys.rows - first);
    Split next =
        AttendSplit(q, keys.Rows(first, count), values.Rows(first, count));
    if (first == 0) {
      all = std::move(next);
    } else {
      Merge(next, all);
    }
  }
  for (size_t i = 0; i < out.size(); ++i) out[i] = all.out[i] / all.sum;
}

}  // namespace caravan::worker::reference
