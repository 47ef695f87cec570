#include "worker/ops/cpu/int8_probe.h"

#include <array>
#include <cstddef>

namespace caravan::worker::cpu {
namespace {

constexpr int kLanesPerChain = 16;
constexpr int kChains = 4;

// In plain integers, which the compiler makes vectors of.
double PortableDot(int64_t rounds, int32_t* sum) {
  std::array<int32_t, kLanesPerChain * kChains> acc;
  std::array<uint8_t, acc.size()> a;
  std::array<int8_t, acc.size()> b;
  for (size_t i = 0; i < acc.size(); ++i) {
    acc[i] = *sum + static_cast<int32_t>(i);
    a[i] = static_cast<uint8_t>(i);
    b[i] = static_cast<int8_t>(*sum - static_cast<int32_t>(i));
  }
  for (int64_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < acc.size(); ++i) {
      const uint32_t product = static_cast<uint32_t>(int32_t{a[i]} * b[i]);
      acc[i] = static_cast<int32_t>(static_cast<uint32_t>(acc[i]) + product);
    }
    a[static_cast<size_t>(round) % a.size()] ^= 1;  // keeps the products inside
  }
  uint32_t total = 0;
  for (const int32_t value : acc) total ^= static_cast<uint32_t>(value);
  *sum = static_cast<int32_t>(total & 1023);
  return 2.0 * static_cast<double>(acc.size()) * static_cast<double>(rounds);
}

constexpr Int8Probe kPortable = {"portable", &PortableDot};

}  // namespace

const Int8Probe* PortableInt8Probe() { return &kPortable; }

const Int8Probe& BestInt8Probe() {
  if (const Int8Probe* probe = Avx512VnniInt8Probe()) return *probe;
  if (const Int8Probe* probe = Avx2Int8Probe()) return *probe;
  return kPortable;
}

}  // namespace caravan::worker::cpu
