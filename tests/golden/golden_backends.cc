#include "tests/golden/golden_model.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {

std::vector<GoldenBackend> GoldenBackends() {
  return {
      {"reference", [] { return MakeReferenceBackend(NumericsOptions()); }},
  };
}

}  // namespace caravan::worker
