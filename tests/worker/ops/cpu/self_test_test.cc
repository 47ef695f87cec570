// The expected fingerprints. When one of these changes, streams of older
// workers no longer continue on newer ones: raise the version in the class.
#include "worker/ops/self_test.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

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

constexpr NumericsOptions kFp32Class = {ActivationType::kFp32, DType::kFp32};
constexpr NumericsOptions kInt8Class = {ActivationType::kInt8, DType::kBf16};
constexpr NumericsOptions kRoundedClasses[] = {
    {ActivationType::kBf16, DType::kBf16},
    {ActivationType::kFp32, DType::kBf16},
    {ActivationType::kFp32, DType::kFp16}};
const WeightTypes kWeights[] = {DType::kFp32, DType::kBf16, DType::kFp16};

// What auto gives for bitsandbytes' formats.
constexpr NumericsOptions kFourBitClass = {ActivationType::kFp32, DType::kBf16};

// Of the int8 class; a file of the mixture q4_k_m has two.
std::vector<WeightTypes> BlockTypes() {
  std::vector<WeightTypes> all = {WeightType::kQ8_0, WeightType::kQ4_0,
                                  WeightType::kQ4_1, WeightType::kQ5_0,
                                  WeightType::kQ5_1, WeightType::kQ5_K};
  WeightTypes& mixture = all.emplace_back(WeightType::kQ4_K);
  mixture.Add(WeightType::kQ6_K);
  return all;
}

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
      {"w:q8_0/a:int8/kv:bf16/v1",
       "4941e3c356ae9b44aad28bd7b4a7919694d6c05c7a4950941452d01dbbe74799"},
      {"w:q4_0/a:int8/kv:bf16/v1",
       "1a9bf706ab4c0846ef1a28f02682a5ccd9c755d9dc3a44724356def582093eef"},
      {"w:q4_1/a:int8/kv:bf16/v1",
       "0712863fdf0d6190b1375fb193fea14c03131b930d5175c5851203d3b6f5cdc1"},
      {"w:q5_0/a:int8/kv:bf16/v1",
       "db9d6e718e438de981b0f2b905d0107a24f7e8c36bafba7b8fa867f56a8e2549"},
      {"w:q5_1/a:int8/kv:bf16/v1",
       "303e7d5ace6a16476e7747d958aad794b37b2679ffa4cc329a08bcf9e76510be"},
      {"w:q5_k/a:int8/kv:bf16/v1",
       "06d323de196f450a89c6a62d1d919bc958967e57e26f264acb95ba75f34eb2a2"},
      {"w:q4_k+q6_k/a:int8/kv:bf16/v1",
       "0146c03648f007d1c8565949aa866b9cd5986e558eeb2cbc903c6e01cf66ff98"},
      {"w:nf4/a:fp32/kv:bf16/v2",
       "1451685e71523d3ecb384d9b2c3ef30ceba77c0d92b9eb308e170d7014111ec0"},
      {"w:fp4/a:fp32/kv:bf16/v2",
       "cf51483045c16a644b860ec06ad8a8c30661e2f48a5da666d242b90357e4d799"},
  };
  return *expected;
}

void ExpectFingerprint(Backend* backend, WeightTypes weights) {
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint,
                       RunSelfTest(backend, weights));
  EXPECT_EQ(fingerprint.size(), 32u);
  const std::string name = backend->NumericsClass(weights);
  const std::string numerics = name.substr(name.find('/') + 1);
  ASSERT_TRUE(Expected().contains(numerics)) << name;
  EXPECT_EQ(Hex(fingerprint), Expected().at(numerics)) << name;
}

void ExpectCpuFingerprints(const NumericsOptions& numerics,
                           std::span<const WeightTypes> weights) {
  for (const CpuIsa isa : AvailableCpuIsas()) {
    for (const int threads : {1, 3}) {
      ASSERT_OK_AND_ASSIGN(
          const std::unique_ptr<Backend> backend,
          MakeCpuBackend(
              {.numerics = numerics, .threads = threads, .isa = isa}));
      for (const WeightTypes types : weights) {
        ExpectFingerprint(backend.get(), types);
      }
    }
  }
}

TEST(SelfTestTest, EveryCpuClassHasItsFingerprint) {
  ExpectCpuFingerprints(kFp32Class, kWeights);
}

TEST(SelfTestTest, EveryRoundedCpuClassHasItsFingerprint) {
  const WeightTypes kBf16Weights[] = {DType::kBf16};
  for (const NumericsOptions& numerics : kRoundedClasses) {
    ExpectCpuFingerprints(numerics, kBf16Weights);
  }
}

TEST(SelfTestTest, EveryInt8ClassHasItsFingerprint) {
  ExpectCpuFingerprints(kInt8Class, BlockTypes());
}

class FourBitClassTest : public ::testing::TestWithParam<WeightType> {};

TEST_P(FourBitClassTest, HasItsFingerprint) {
  const WeightTypes types = GetParam();
  ExpectCpuFingerprints(kFourBitClass, {&types, 1});
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> backend,
                       MakeReferenceBackend(kFourBitClass));
  ExpectFingerprint(backend.get(), types);
}

INSTANTIATE_TEST_SUITE_P(SelfTest, FourBitClassTest,
                         ::testing::Values(WeightType::kNf4, WeightType::kFp4),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

TEST(SelfTestTest, TheReferenceHasTheFingerprintsOfTheInt8Class) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> backend,
                       MakeReferenceBackend(kInt8Class));
  for (const WeightTypes types : BlockTypes()) {
    ExpectFingerprint(backend.get(), types);
  }
}

TEST(SelfTestTest, TheReferenceHasTheSameFingerprints) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> backend,
                       MakeReferenceBackend(kFp32Class));
  for (const WeightTypes types : kWeights) {
    ExpectFingerprint(backend.get(), types);
  }
  for (const NumericsOptions& numerics : kRoundedClasses) {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> rounded,
                         MakeReferenceBackend(numerics));
    ExpectFingerprint(rounded.get(), DType::kBf16);
  }
}

}  // namespace
}  // namespace caravan::worker
