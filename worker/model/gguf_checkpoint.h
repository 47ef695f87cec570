// A model in a GGUF file, one or several parts: its tensors under their Hugging
// Face names, and what config.json of the same model would say. Names and keys:
// llama.cpp's gguf-py constants, architecture "llama".
#ifndef CARAVAN_WORKER_MODEL_GGUF_CHECKPOINT_H_
#define CARAVAN_WORKER_MODEL_GGUF_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/mapped_file.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

struct GgufTensor {
  std::string name;  // Hugging Face's
  WeightType type = WeightType::kFp32;
  int64_t interleaved = 0;  // rows of a head, for q and k; else 0
  TensorRecord record;      // as in the file
};

// Thread-safe.
class GgufCheckpoint {
 public:
  // Whether `path` is a GGUF file, or a directory with one.
  static bool IsIn(const std::string& path);

  // Errors (kModelFileInvalid, kUnsupportedParameter) name file, key or tensor,
  // limit and value: those of common/gguf, architectures other than llama,
  // types that weights do not have, parts that do not belong together.
  static absl::StatusOr<std::unique_ptr<GgufCheckpoint>> Open(
      const std::string& path);

  // The first part's path.
  const std::string& path() const { return path_; }
  const nlohmann::json& config() const { return config_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // What each rope frequency is divided by; empty where it is not.
  const std::vector<float>& rope_divisors() const { return rope_divisors_; }

 private:
  GgufCheckpoint() = default;
  absl::Status OpenParts();
  absl::Status ReadConfig();
  absl::Status ReadRopeScaling();
  absl::Status AddTensors(const gguf::File& file, const MappedFile& mapped);
  absl::Status AddTensor(const gguf::File& file, const MappedFile& mapped,
                         const gguf::Tensor& tensor);
  absl::Status AddRopeDivisors(const gguf::File& file, const MappedFile& mapped,
                               const gguf::Tensor& tensor);
  bool Has(std::string_view name) const;
  // An integer of the metadata into config_[key], or the error that it is
  // missing.
  absl::Status Copy(std::string_view from, const char* key, bool required);

  std::string path_;
  std::vector<MappedFile> files_;
  std::vector<gguf::File> parts_;
  nlohmann::json config_;
  std::vector<GgufTensor> tensors_;
  std::vector<float> rope_divisors_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GGUF_CHECKPOINT_H_
