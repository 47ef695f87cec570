// What a fuzzer does with some bytes. Nothing may crash, hang or break a
// promise; errors are fine.
#ifndef CARAVAN_TESTS_FUZZ_FUZZ_TARGET_H_
#define CARAVAN_TESTS_FUZZ_FUZZ_TARGET_H_

#include <string>
#include <string_view>
#include <vector>

namespace caravan::fuzz {

struct FuzzTarget {
  std::string_view name;  // also of its corpus, tests/fuzz/corpus/NAME
  void (*run)(std::string_view bytes);
  // Valid inputs to begin with.
  std::vector<std::string> (*seeds)();
};

// The targets of this program; defined by the library that it links.
const std::vector<FuzzTarget>& FuzzTargets();

// Ends the process, as a fuzzer wants it, when a promise is broken.
void Require(bool holds, const char* promise);

// The files of a target's corpus; empty where there is none.
std::vector<std::string> ReadCorpus(std::string_view target);

}  // namespace caravan::fuzz

#endif  // CARAVAN_TESTS_FUZZ_FUZZ_TARGET_H_
