// The tensors of a model directory, whatever format it has, under their Hugging
// Face names: safetensors or PyTorch files, Meta's checkpoints, and matrices
// that GPTQ, AWQ or bitsandbytes quantized, or that are of 8-bit floats.
#ifndef CARAVAN_WORKER_MODEL_CHECKPOINT_TENSORS_H_
#define CARAVAN_WORKER_MODEL_CHECKPOINT_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/gguf_checkpoint.h"
#include "worker/model/meta_checkpoint.h"
#include "worker/model/quantization_config.h"
#include "worker/model/safetensors.h"
#include "worker/model/torch_file.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// A matrix or vector of weights, (out, in), in the smallest type that loses
// nothing of what the checkpoint says.
struct CheckpointTensor {
  std::string name;
  std::vector<int64_t> shape;
  WeightType type = WeightType::kFp32;
  // As in RawMatrix: rows of a head that lie interleaved in the stored bytes.
  int64_t interleaved = 0;
  // Stored column c is column order[c]; empty where that is c.
  std::vector<int32_t> order;
  // The stored bytes where they lie in a file, else null.
  const std::byte* data = nullptr;
  std::string file;     // path, for messages
  uint64_t offset = 0;  // in it
  // What it is made of, as in the checkpoint, for the weights id.
  std::vector<TensorRecord> parts;

  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const;  // elements of a row
  int64_t elements() const { return rows() * cols(); }
  size_t bytes() const;  // as stored, rows without gaps

  // Used by CheckpointTensors. Rows [first, first + count), first a multiple of
  // kRowRun, as stored and in plain fp32.
  using RowWriter =
      std::function<void(int64_t first, int64_t count, std::byte* target)>;
  RowWriter write_stored;
  RowWriter write_floats;
};

// Thread-safe.
class CheckpointTensors {
 public:
  // Runs of rows that the readers below take.
  static constexpr int64_t kRowRun = 32;

  // Looks for safetensors, then PyTorch files, then Meta's, and for
  // quantization_config, then for a GGUF file, which may be named itself.
  // kNotFound where there is none of them; else the errors
  // of those formats, and kModelFileInvalid for tensors of a quantized matrix
  // that contradict each other.
  static absl::StatusOr<std::unique_ptr<CheckpointTensors>> Open(
      const std::string& directory);

  // "safetensors", "pytorch", "meta" or "gguf", and how matrices are quantized,
  // if some are.
  std::string_view format() const { return format_; }
  const std::optional<QuantizationConfig>& quantization() const {
    return quantization_;
  }

  // Whether matrices may have different types.
  bool mixed() const {
    return quantization_.has_value() || gguf_ != nullptr || converted_;
  }

  const std::map<std::string, CheckpointTensor, std::less<>>& tensors() const {
    return tensors_;
  }
  // In words, with the types in which matrices are kept: "safetensors" or
  // "safetensors, gptq: 224 x q4_0, 3 x fp16".
  std::string Describe() const;

  // Null where there is none of that name.
  const CheckpointTensor* Find(std::string_view name) const;
  // The same, or an error that names the tensor: it is missing, or of a type
  // that weights do not have.
  absl::StatusOr<const CheckpointTensor*> Get(std::string_view name) const;

  // The stored bytes, into bytes() of `target`.
  void ReadStored(const CheckpointTensor& tensor, std::byte* target) const;
  // Rows [first, first + count) in fp32 and in their proper order of rows and
  // columns: exact, but for bitsandbytes' one or two roundings. `first` is a
  // multiple of kRowRun, and with interleaved rows both of the head's.
  void ReadFloats(const CheckpointTensor& tensor, int64_t first, int64_t count,
                  float* target) const;

  // From now on the matrix `name`, which must be there, has the type `type`,
  // one that QuantizeRow writes, and its rows and columns lie in their order:
  // what it was is converted whenever it is read, on `threads` threads.
  // `head_dim` is that of the rows of q and k. Not thread-safe.
  void Convert(const std::string& name, WeightType type, int32_t head_dim,
               int threads);

  // Lets the system take back the pages of the files.
  void DropPages(const CheckpointTensor& tensor) const;

  // config.json, or what it would say of Meta's checkpoint.
  absl::StatusOr<nlohmann::json> Config() const;

 private:
  explicit CheckpointTensors(std::string directory)
      : directory_(std::move(directory)) {}
  absl::Status OpenSafetensors();
  absl::Status OpenTorch();
  absl::Status OpenMeta();
  absl::Status OpenGguf();
  absl::Status AddTorchFile(const std::string& name);
  absl::Status AddTorchShards();
  void AddOwned(const TorchTensor& tensor);
  // Turns records_ into tensors_.
  absl::Status Collect();
  void AddPlain(const TensorRecord& record);
  absl::Status AddGrouped(const std::string& module);
  absl::Status AddFourBit(const std::string& module);
  absl::Status AddEightBit(const std::string& module);
  absl::Status AddFp8(const std::string& module);
  CheckpointTensor& AddMade(const std::string& module, WeightType type,
                            int64_t rows, int64_t cols,
                            const std::vector<const TensorRecord*>& parts);
  const TensorRecord* Record(const std::string& name) const;
  void WriteConverted(const CheckpointTensor& tensor, WeightType type,
                      int32_t head_dim, int threads, std::byte* target) const;

  const std::string directory_;
  std::string format_;
  std::optional<QuantizationConfig> quantization_;
  bool converted_ = false;  // some matrices
  std::unique_ptr<Checkpoint> safetensors_;
  std::unique_ptr<MetaCheckpoint> meta_;
  std::unique_ptr<GgufCheckpoint> gguf_;
  std::vector<MappedFile> files_;                      // of PyTorch
  std::vector<std::unique_ptr<std::byte[]>> buffers_;  // of strided tensors
  std::map<std::string, TensorRecord, std::less<>> records_;
  std::map<std::string, CheckpointTensor, std::less<>> tensors_;
};

// Whether a directory has weights that CheckpointTensors reads.
bool HasCheckpoint(const std::string& directory);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_CHECKPOINT_TENSORS_H_
