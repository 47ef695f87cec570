// Rotary position embedding: which angle each pair of a head turns by, for
// every kind of context extension of the family. All of it by the canonical
// functions: no libm result enters a table.
#ifndef CARAVAN_WORKER_MODEL_ROPE_H_
#define CARAVAN_WORKER_MODEL_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "worker/model/config.h"

namespace caravan::worker {

// Thread-safe: immutable.
class Rope {
 public:
  explicit Rope(const ModelConfig& config);

  // The inverse frequencies (d / 2, fp32) for a position of a sequence whose
  // original prompt has `prompt_length` tokens. Only dynamic NTK depends on
  // either: its base is that of length max(prompt_length, position + 1).
  std::vector<float> InverseFrequencies(int32_t position,
                                        int32_t prompt_length) const;

  // cos and sin (d / 2 each) of the angles fp32(position) * frequency, rounded
  // to fp32 before the functions are taken, times the attention factor.
  void Fill(int32_t position, int32_t prompt_length, std::span<float> cos,
            std::span<float> sin) const;

  // What yarn multiplies cos and sin by; 1 for every other type.
  float attention_factor() const { return attention_factor_; }

 private:
  std::vector<float> Plain(double base) const;
  std::vector<float> Yarn() const;
  std::vector<float> Llama3() const;
  // Dynamic NTK's length for a position, or 0 where nothing is scaled.
  int32_t ScaledLength(int32_t position, int32_t prompt_length) const;
  std::vector<float> ForLength(int32_t length) const;

  const ModelConfig config_;
  float attention_factor_ = 1;
  std::vector<float> frequencies_;  // of unscaled lengths
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_ROPE_H_
