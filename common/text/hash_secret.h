// What this process's tables of pieces and pairs hash with: random, so that
// whoever writes a tokenizer's file cannot choose pieces that collide.
#ifndef CARAVAN_COMMON_TEXT_HASH_SECRET_H_
#define CARAVAN_COMMON_TEXT_HASH_SECRET_H_

#include <cstdint>

namespace caravan::text {

struct HashSecret {
  uint64_t first;
  uint64_t second;
  uint64_t odd;  // a multiplier
};

// Drawn before main, from the system.
extern const HashSecret kHashSecret;

// The 128-bit product of both, folded: each bit of the result depends on most
// bits of each (the mixing step of wyhash).
inline uint64_t FoldedProduct(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// In the upper bits, from which tables take their place: multiply-shift
// (Dietzfelbinger et al. 1997).
inline uint64_t PairHash(uint64_t key) { return key * kHashSecret.odd; }

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_HASH_SECRET_H_
