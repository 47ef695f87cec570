// Model files with random damage: whatever the bytes, the answer is a model
// or an error that names the file, never a crash. Seeds are fixed; a failure
// prints its round.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/model/config.h"
#include "worker/model/memory_plan.h"
#include "worker/model/rope.h"
#include "worker/model/safetensors.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

constexpr int kRounds = 4000;

constexpr std::array<std::string_view, 18> kHostile = {"-1",
                                                       "0",
                                                       "1e999",
                                                       "18446744073709551616",
                                                       "9223372036854775807",
                                                       "4294967295",
                                                       "0.5",
                                                       "null",
                                                       "true",
                                                       "\"\"",
                                                       "[]",
                                                       "{}",
                                                       "[[[[",
                                                       "\\u0000",
                                                       "\xff",
                                                       "\"a\":",
                                                       ",,",
                                                       "2147483648"};

// Changes some bytes, cuts a piece out, or puts something hostile in.
std::string Damage(std::string text, std::mt19937& random) {
  const int changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    switch (random() % 4) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, 1 + random() % 16);
        break;
      case 2:
        text.insert(at, kHostile[random() % kHostile.size()]);
        break;
      default: {  // a number becomes another one
        const size_t digit = text.find_first_of("0123456789", at);
        if (digit == std::string::npos) break;
        const size_t end = text.find_first_not_of("0123456789.", digit);
        text.replace(digit, end - digit, kHostile[random() % kHostile.size()]);
      }
    }
  }
  return text;
}

TEST(ModelFilesFuzzTest, DamagedConfigsGiveAModelOrAnError) {
  std::mt19937 random(20240601);
  ASSERT_OK_AND_ASSIGN(const auto backend,
                       MakeReferenceBackend(NumericsOptions()));
  for (const char* const model : {"rope-yarn", "rope-dynamic", "tied"}) {
    const std::string good = testing::ReadFile(testing::RepositoryPath(
        std::string("tests/data/tiny/") + model + "/config.json"));
    for (int round = 0; round < kRounds; ++round) {
      SCOPED_TRACE(round);
      const auto config =
          ParseModelConfig(Damage(good, random), "config.json", {});
      if (!config.ok()) {
        EXPECT_NE(config.status().message().find("config.json"),
                  absl::string_view::npos);
        continue;
      }
      EXPECT_GT(config->context_length(), 0);
      EXPECT_GT(MakeMemoryPlan(*config, DType::kBf16, *backend, {}).parameters,
                0);
      if (config->head_dim <= 1024) Rope(*config).InverseFrequencies(50, 60);
    }
  }
}

TEST(ModelFilesFuzzTest, DamagedSafetensorsGiveTensorsInsideTheFileOrAnError) {
  std::mt19937 random(20240602);
  const std::string good = testing::ReadFile(testing::RepositoryPath(
      "tests/data/tiny/sharded/model-00003-of-00003.safetensors"));
  const size_t header =
      8 + static_cast<uint8_t>(good[0]) + 256 * static_cast<uint8_t>(good[1]);
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const std::string bytes =
        round % 2 == 0
            ? Damage(good.substr(0, header), random) + good.substr(header)
            : good.substr(0, 8) + Damage(good.substr(8, header - 8), random) +
                  good.substr(header);
    const auto tensors =
        ParseSafetensors(std::as_bytes(std::span(bytes)), "m.safetensors");
    if (!tensors.ok()) {
      EXPECT_THAT(tensors.status(),
                  testing::HasReason(Reason::kModelFileInvalid,
                                     ::testing::HasSubstr("m.safetensors")));
      continue;
    }
    for (const TensorRecord& tensor : *tensors) {
      EXPECT_LE(tensor.offset + tensor.bytes, bytes.size());
    }
  }
}

}  // namespace
}  // namespace caravan::worker
