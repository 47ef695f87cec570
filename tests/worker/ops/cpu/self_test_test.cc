// The expected fingerprints. When one of these changes, streams of older
// workers no longer continue on newer ones: raise the version in the class.
#include "worker/ops/self_test.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
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

// By class. All instruction sets, and the reference, give equal bits in fp32.
const std::map<std::string, std::string>& Expected() {
  static const std::string fp32 =
      "091a477f63381ab782ffce002711f34f861adde978023a3497b68c3fe8411661";
  static const std::string bf16 =
      "525a9abb51798364ec0c7f71a6ef51335ad1efb23534dec5b294b21dd508544e";
  static const std::string fp16 =
      "25669aa4442ee3cdee5ae2ca73656408189e1e15e492a2c22e94d5e16d8cb5ec";
  static const std::map<std::string, std::string> expected = [] {
    std::map<std::string, std::string> map;
    for (const char* processor :
         {"cpu-avx512", "cpu-avx2", "cpu-portable", "reference"}) {
      const std::string name = processor;
      map[name + "/w:fp32/a:fp32/kv:fp32/v1"] = fp32;
      map[name + "/w:bf16/a:fp32/kv:fp32/v1"] = bf16;
      map[name + "/w:fp16/a:fp32/kv:fp32/v1"] = fp16;
    }
    return map;
  }();
  return expected;
}

void ExpectFingerprints(Backend* backend) {
  for (const DType dtype : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    ASSERT_OK_AND_ASSIGN(const std::string fingerprint,
                         RunSelfTest(backend, dtype));
    EXPECT_EQ(fingerprint.size(), 32u);
    const std::string name = backend->NumericsClass(dtype);
    ASSERT_TRUE(Expected().contains(name)) << name;
    EXPECT_EQ(Hex(fingerprint), Expected().at(name)) << name;
  }
}

TEST(SelfTestTest, EveryCpuClassHasItsFingerprint) {
  for (const CpuIsa isa : AvailableCpuIsas()) {
    for (const int threads : {1, 3}) {
      ASSERT_OK_AND_ASSIGN(
          const std::unique_ptr<Backend> backend,
          MakeCpuBackend({.numerics = {}, .threads = threads, .isa = isa}));
      ExpectFingerprints(backend.get());
    }
  }
}

TEST(SelfTestTest, TheReferenceHasTheSameFingerprint) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Backend> backend,
                       MakeReferenceBackend(NumericsOptions()));
  ExpectFingerprints(backend.get());
}

}  // namespace
}  // namespace caravan::worker
