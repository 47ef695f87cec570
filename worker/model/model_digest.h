// What the stages of a replica agree on before any of them is asked for a
// token, beside the hashes of what each has loaded.
#ifndef CARAVAN_WORKER_MODEL_MODEL_DIGEST_H_
#define CARAVAN_WORKER_MODEL_MODEL_DIGEST_H_

#include <string>

#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"

namespace caravan::worker {

// SHA-256, in hex, of the configuration, its stage left out, and of name, type
// and shape of every tensor of the checkpoint.
std::string ModelDigest(const ModelConfig& config,
                        const CheckpointTensors& checkpoint);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_MODEL_DIGEST_H_
