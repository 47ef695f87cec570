// Drives the forward page by hand, one sequence at a time, for parity tests.
#ifndef CARAVAN_TESTS_GOLDEN_GOLDEN_MODEL_H_
#define CARAVAN_TESTS_GOLDEN_GOLDEN_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/llama.h"
#include "worker/model/model_loader.h"
#include "worker/model/rope.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

// A backend under test: fp32 activations and cache.
struct GoldenBackend {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> make;
};

inline void PrintTo(const GoldenBackend& value, std::ostream* out) {
  *out << value.name;
}

// Every backend that this machine can run (golden_backends.cc).
std::vector<GoldenBackend> GoldenBackends();

using LogitRows = std::vector<std::vector<float>>;

// A model with a cache for one sequence. Not thread-safe.
class GoldenModel {
 public:
  static absl::StatusOr<std::unique_ptr<GoldenModel>> Load(
      const std::string& directory, const GoldenBackend& backend,
      std::vector<std::string> overrides = {});

  // Forgets the sequence; the next one has `prompt_length` prompt tokens.
  void Start(int32_t prompt_length);

  // Computes `ids` after what came before, in chunks of at most `chunk`
  // tokens; the logits of all of them.
  absl::StatusOr<LogitRows> Run(std::span<const int32_t> ids, int32_t chunk);

  // `count` greedy ids after `prompt`; before every step `resume_each_step`
  // forgets the cache and computes everything again in one prefill. Ends
  // early at `end_ids`.
  absl::StatusOr<std::vector<int32_t>> Greedy(
      std::span<const int32_t> prompt, int32_t count, bool resume_each_step,
      std::span<const int32_t> end_ids = {});

  const LoadedModel& loaded() const { return *loaded_; }

 private:
  absl::Status RunChunk(std::span<const int32_t> ids, LogitRows& rows);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<KvStorage> kv_;
  std::optional<Activations> activations_;
  std::optional<Llama> llama_;
  std::optional<Rope> rope_;
  std::vector<BlockId> blocks_;
  int32_t position_ = 0;
  int32_t prompt_length_ = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_GOLDEN_GOLDEN_MODEL_H_
