#include "tests/golden/golden_model.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {

std::vector<GoldenBackend> GoldenBackends() {
  std::vector<GoldenBackend> backends = {
      {"reference", [] { return MakeReferenceBackend(NumericsOptions()); }}};
  for (const CpuIsa isa : AvailableCpuIsas()) {
    backends.push_back({std::string("cpu-") + Name(isa), [isa] {
                          CpuOptions options;
                          options.threads = 1;
                          options.isa = isa;
                          return MakeCpuBackend(options);
                        }});
  }
  return backends;
}

}  // namespace caravan::worker
