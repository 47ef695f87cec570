// The expected fingerprints. When one of these changes, streams of older
// workers no longer continue on newer ones: raise the version in the class.
#include "worker/ops/self_test.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <span>
#include <string>

#include "tests/support/status_matchers.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

std::string Hex(const std::string& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

constexpr NumericsOptions kFp32Class = {DType::kFp32, DType::kFp32};
constexpr NumericsOptions kRoundedClasses[] = {{DType::kBf16, DType::kBf16},
                                               {DType::kFp32, DType::kBf16},
                                               {DType::kFp32, DType::kFp16}};
constexpr DType kWeights[] = {DType::kFp32, DType::kBf16, DType::kFp16};

// By class, without the processor: all instruction sets, and the reference,
// give equal bits in each of them.
const std::map<std::string, std::string>& Expected() {
  static const auto* const expected = new std::map<std::string, std::string>{
      {"w:fp32/a:fp32/kv:fp32/v1",
       "091a477f63381ab782ffce002711f34f861adde978023a3497b68c3fe8411661"},
      {"w:bf16/a:fp32/kv:fp32/v1",
       "525a9abb51798364ec0c7f71a6ef51335ad1efb23534dec5b294b21dd508544e"},
      {"w:fp16/a:fp32/kv:fp32/v1",
       "25669aa4442ee3cdee5ae2ca73656408189e1e15e492a2c22e94d5e16d8cb5ec"},
      {"w:bf16/a:bf16/kv:bf16/v1",
       "fb3bf480ec4ba6b9dd22a522dbba66b5dd635d6c77b9f54c0d45b4f6f99956fb"},
      {"w:bf16/a:fp32/kv:bf16/v1",
       "4468007001b82ffc0f78a69fdc910984da445e80e5be93f51c9624e19d7a2335"},
      {"w:bf16/a:fp32/kv:fp16/v1",
       "57489384cd5c25df853b1e5d5f6e637eaa67929047313ef431781f32d210f109"},
  };
  return *expected;
}

void ExpectFingerprint(Backend* backend, DType weights) {
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint,
                       RunSelfTest(backend, weights));
  EXPECT_EQ(fingerprint.size(), 32u);
  const std::string name = backend->NumericsClass(weights);
  const std::string numerics = name.substr(name.find('/') + 1);
  ASSERT_TRUE(Expected().contains(numerics)) << name;
  EXPECT_EQ(Hex(fingerprint), Expected().at(numerics)) << name;
}

void ExpectCpuFingerprints(const NumericsOptions& numerics,
                           std::span<const DType> weights) {
  for (const CpuIsa isa : AvailableCpuIsas()) {
    for (const int threads : {1, 3}) {
      ASSERT_OK_AND_ASSIGN(
          const std::unique_ptr<Backend> backend,
          MakeCpuBackend(
              {.numerics = numerics, .threads = threads, .isa = isa}));
      for (const DType dtype : weights) {
        ExpectFingerprint(backend.get(), dtype);
      }
    }
  }
}

TEST(SelfTestTest, EveryCpuClassHasItsFingerprint) {
  ExpectCpuFingerprints(kFp32Class, kWeights);
}

TEST(SelfTestTest, EveryRoundedCpuClassHasItsFingerprint) {
  constexpr DType kBf16Weights[] = {DType::kBf16};
  for (const NumericsOptions& numerics : kRoundedClasses) {
    ExpectCpuFingerprints(numerics, kBf16Weights);
  }
}

TEST(SelfTestTest, TheReferenceHasTheSameFingerprints) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> backend,
                       MakeReferenceBackend(kFp32Class));
  for (const DType dtype : kWeights) ExpectFingerprint(backend.get(), dtype);
  for (const NumericsOptions& numerics : kRoundedClasses) {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> rounded,
                         MakeReferenceBackend(numerics));
    ExpectFingerprint(rounded.get(), DType::kBf16);
  }
}

}  // namespace
}  // namespace caravan::worker
