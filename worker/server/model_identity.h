// What a worker says about the model that it serves (caravan.v1.ModelInfo).
#ifndef CARAVAN_WORKER_SERVER_MODEL_IDENTITY_H_
#define CARAVAN_WORKER_SERVER_MODEL_IDENTITY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/model.pb.h"
#include "worker/model/model_loader.h"

namespace caravan::worker {

struct ModelInfoParts {
  std::string name;        // "": the directory's
  std::string weights_id;  // hex
  std::string numerics_class;
  std::string fingerprint;  // 32 bytes
  int32_t block_count = 0;
  int32_t max_running = 0;
  absl::Time created;
};

// Refuses a tokenizer with more ids than the embedding has rows, naming both
// (fewer are legal: the other ids decode to nothing). To be asked before the
// weights are read. Errors: kModelFileInvalid.
absl::Status CheckTokenizer(const ModelDescription& model);

// Reads the directory's tokenizer and chat template for their ids. Errors:
// kModelFileInvalid.
absl::StatusOr<v1::ModelInfo> MakeModelInfo(const ModelDescription& model,
                                            const ModelInfoParts& parts);

// The last part of a path: "/models/llama/" is "llama".
std::string DirectoryName(const std::string& directory);

// The bytes of lower-case hexadecimal digits. Error: kInternal.
absl::StatusOr<std::string> BytesFromHex(std::string_view hex);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_MODEL_IDENTITY_H_
