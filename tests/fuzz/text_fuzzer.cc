// libFuzzer's entrance; CARAVAN_FUZZ_TARGET names the target. Run from the
// checkout, for example: build/fuzz/bin/text_jinja_fuzzer -max_total_time=60
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/text_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const caravan::fuzz::TextTarget* const kTarget =
      caravan::fuzz::FindTextTarget(CARAVAN_FUZZ_TARGET);
  kTarget->run(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
