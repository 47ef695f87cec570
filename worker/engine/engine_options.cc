#include <cstdint>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/engine/engine.h"

namespace caravan::worker {
namespace {

absl::Status AtLeast(std::string_view flag, int64_t least, int64_t value) {
  if (value >= least) return absl::OkStatus();
  return FieldError(flag, StrCat("at least ", least), StrCat(value));
}

}  // namespace

absl::Status EngineOptions::Validate() const {
  CARAVAN_RETURN_IF_ERROR(AtLeast("--kv-blocks", 1, block_count));
  CARAVAN_RETURN_IF_ERROR(AtLeast("--max-running", 1, max_running));
  CARAVAN_RETURN_IF_ERROR(AtLeast("--max-step-tokens", 1, max_step_tokens));
  CARAVAN_RETURN_IF_ERROR(AtLeast("--max-prefill-chunk", 1, max_prefill_chunk));
  CARAVAN_RETURN_IF_ERROR(
      AtLeast("--max-prefill-tokens", 1, max_prefill_tokens));
  CARAVAN_RETURN_IF_ERROR(AtLeast("--max-waiting", 1, max_waiting));
  CARAVAN_RETURN_IF_ERROR(AtLeast("--depth", 1, depth));
  CARAVAN_RETURN_IF_ERROR(AtLeast("micro_batches", 1, micro_batches));
  CARAVAN_RETURN_IF_ERROR(AtLeast("context_length", 1, context_length));
  return AtLeast("unscaled_context_length", 0, unscaled_context_length);
}

}  // namespace caravan::worker
