// Checkpoints as Meta publishes them: params.json and consolidated.NN.pth, one
// file for each rank of the training's tensor parallelism. Tensors get their
// Hugging Face names and are put together from the files' parts; rows of q and
// k stay in the interleaved order (RawMatrix::interleaved undoes it).
#ifndef CARAVAN_WORKER_MODEL_META_CHECKPOINT_H_
#define CARAVAN_WORKER_MODEL_META_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/safetensors.h"
#include "worker/model/torch_file.h"

namespace caravan::worker {

// A tensor of all files together.
struct MergedTensor {
  // Name, type and shape of the whole. `data` is null where the parts have to
  // be copied together.
  TensorRecord record;
  // One, or one of each file that counts, in their order.
  std::vector<const TorchTensor*> parts;
  int axis = 0;             // along which parts are joined
  int64_t interleaved = 0;  // rows of a head, for q and k; else 0
};

// Copies the parts of a tensor together, row-major.
void CopyMerged(const MergedTensor& tensor, std::byte* target);

// Thread-safe.
class MetaCheckpoint {
 public:
  // Whether DIR has params.json and consolidated.00.pth.
  static bool IsIn(const std::string& directory);

  // Errors (kModelFileInvalid) name file, tensor or key, limit and value:
  // numbers missing between 00 and the last, tensors that a file lacks or that
  // do not fit together or to params.json, models with vision layers.
  static absl::StatusOr<std::unique_ptr<MetaCheckpoint>> Open(
      const std::string& directory);

  // What config.json of the same model would say. What params.json does not,
  // such as the context, is told from what it does.
  const nlohmann::json& config() const { return config_; }

  // By Hugging Face names.
  const std::map<std::string, MergedTensor, std::less<>>& tensors() const {
    return tensors_;
  }

 private:
  using Part = std::map<std::string, TorchTensor, std::less<>>;

  explicit MetaCheckpoint(std::string directory)
      : directory_(std::move(directory)) {}
  absl::Status OpenFiles();
  absl::Status ReadParams();
  absl::Status MergeAll();
  absl::Status Merge(const std::string& name, const std::string& target,
                     int axis, int64_t interleaved);
  // Leaves one of each run of files that hold the same head.
  absl::Status DropCopies(MergedTensor& tensor) const;
  absl::Status FinishConfig();

  const std::string directory_;
  std::vector<MappedFile> files_;
  std::vector<Part> parts_;  // of each file, by Meta's names
  int64_t dim_ = 0;
  int64_t layers_ = 0;
  int64_t heads_ = 0;
  int64_t kv_heads_ = 0;
  int64_t head_dim_ = 0;
  nlohmann::json params_;
  nlohmann::json config_;
  std::map<std::string, MergedTensor, std::less<>> tensors_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_META_CHECKPOINT_H_
