#include "common/text/hash_secret.h"

#include <random>

namespace caravan::text {
namespace {

HashSecret Draw() {
  std::random_device device;
  const auto word = [&device] {
    return static_cast<uint64_t>(device()) << 32 | device();
  };
  return {word(), word(), word() | 1};
}

}  // namespace

const HashSecret kHashSecret = Draw();

}  // namespace caravan::text
