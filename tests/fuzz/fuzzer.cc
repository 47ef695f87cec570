// libFuzzer's entrance; CARAVAN_FUZZ_TARGET names the target. Run from the
// checkout; with --seeds=FOLDER it only writes the target's seeds there.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz_target.h"

namespace caravan::fuzz {
namespace {

const FuzzTarget& Target() {
  for (const FuzzTarget& target : FuzzTargets()) {
    if (target.name == CARAVAN_FUZZ_TARGET) return target;
  }
  Require(false, "there is a target called " CARAVAN_FUZZ_TARGET);
  std::abort();
}

void WriteSeeds(const std::string& folder) {
  int number = 0;
  for (const std::string& seed : Target().seeds()) {
    std::ofstream(folder + "/seed-" + std::to_string(number++),
                  std::ios::binary)
        << seed;
  }
  std::printf("%d seeds\n", number);
}

}  // namespace
}  // namespace caravan::fuzz

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  constexpr std::string_view kSeeds = "--seeds=";
  for (int i = 1; i < *count; ++i) {
    const std::string_view argument = (*arguments)[i];
    if (!argument.starts_with(kSeeds)) continue;
    caravan::fuzz::WriteSeeds(std::string(argument.substr(kSeeds.size())));
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const caravan::fuzz::FuzzTarget& kTarget = caravan::fuzz::Target();
  kTarget.run(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
