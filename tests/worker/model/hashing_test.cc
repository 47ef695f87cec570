#include "worker/model/hashing.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace caravan::worker {
namespace {

TEST(HashingTest, KnownAnswers) {
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Xxh3Hex({}), "99aa06d3014798d86001c324468d497f");
}

TensorRecord Record(std::string name, std::vector<int64_t> shape,
                    const std::vector<float>& values) {
  TensorRecord record;
  record.name = std::move(name);
  record.dtype_name = std::string("F32");
  record.shape = std::move(shape);
  record.data = reinterpret_cast<const std::byte*>(values.data());
  record.bytes = values.size() * sizeof(float);
  return record;
}

TEST(HashingTest, ListingIsSortedByNameAndHoldsTypeShapeAndHash) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const TensorRecord first = Record("a", {6}, values);
  const TensorRecord second = Record("b", {2, 3}, values);
  WeightsListing listing;
  listing.Add(second);
  listing.Add(first);
  const std::string hash = Xxh3Hex(std::as_bytes(std::span(values)));
  EXPECT_EQ(listing.Listing(),
            "a\tF32\t6\t" + hash + "\nb\tF32\t2,3\t" + hash + "\n");
  EXPECT_EQ(listing.Id(), Sha256Hex(listing.Listing()));
}

}  // namespace
}  // namespace caravan::worker
