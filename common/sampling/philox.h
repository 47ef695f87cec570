// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011): random numbers as a pure function of key and counter,
// so that a token's draw does not depend on who computes it, or when.
#ifndef CARAVAN_COMMON_SAMPLING_PHILOX_H_
#define CARAVAN_COMMON_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace caravan::sampling {

// What a draw is for; the third counter word.
enum class DrawPurpose : uint32_t { kToken = 0 };

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

inline constexpr PhiloxCounter Philox4x32(PhiloxCounter c, PhiloxKey k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0],
         static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1],
         static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

// The 32-bit draw for the token at `output_position` of choice `choice`.
inline constexpr uint32_t TokenDraw(uint64_t seed, uint32_t output_position,
                                    uint32_t choice) {
  const PhiloxCounter counter = {output_position, choice,
                                 static_cast<uint32_t>(DrawPurpose::kToken), 0};
  const PhiloxKey key = {static_cast<uint32_t>(seed),
                         static_cast<uint32_t>(seed >> 32)};
  return Philox4x32(counter, key)[0];
}

}  // namespace caravan::sampling

#endif  // CARAVAN_COMMON_SAMPLING_PHILOX_H_
