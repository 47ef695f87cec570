// The fuzz targets over their corpus, their seeds and some broken copies of
// these, so that they are run where there is no fuzzer.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace caravan::fuzz {
namespace {

constexpr int kCopies = 200;  // of each seed

// One to four random changes: a byte, a cut, a doubled stretch.
std::string Broken(std::string bytes, std::mt19937_64* random) {
  const auto below = [&](size_t limit) {
    return limit == 0 ? 0 : static_cast<size_t>((*random)() % limit);
  };
  for (size_t i = 0; i <= below(4); ++i) {
    const size_t at = below(bytes.size());
    switch (below(4)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(below(256));
        break;
      case 1:
        bytes.resize(at);
        break;
      case 2:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(30)));
        break;
      default:
        bytes.erase(at, below(10));
    }
  }
  return bytes;
}

class Fuzz : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(Fuzz, SurvivesItsCorpus) {
  for (const std::string& input : ReadCorpus(GetParam().name)) {
    GetParam().run(input);
  }
}

TEST_P(Fuzz, SurvivesItsSeedsAndBrokenCopies) {
  std::mt19937_64 random(7);
  for (const std::string& seed : GetParam().seeds()) {
    GetParam().run(seed);
    for (int i = 0; i < kCopies; ++i) {
      GetParam().run(Broken(seed, &random));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, ::testing::ValuesIn(FuzzTargets()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace caravan::fuzz
