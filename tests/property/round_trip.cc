#include "tests/property/round_trip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/incremental_decoder.h"
#include "common/text/tokenizer.h"
#include "tests/common/text/generated_text.h"
#include "tests/property/text_by_definition.h"
#include "tests/property/tokenizers.h"

namespace caravan::text {
namespace {

constexpr int kMaxCharacters = 40;
constexpr int kMaxIds = 12;

// Ids of a text, with some of anything put between.
std::vector<TokenId> GenerateIds(const Tokenizer& tokenizer,
                                 std::mt19937_64* random) {
  const auto below = [&](int limit) {
    return static_cast<int>((*random)() % limit);
  };
  std::vector<TokenId> ids;
  if (below(2) == 0) {
    const auto encoded = tokenizer.Encode(GenerateText(random, kMaxIds),
                                          {.add_special_tokens = false});
    if (encoded.ok()) ids = *encoded;
  }
  const int size = tokenizer.vocabulary().size();
  for (int i = below(kMaxIds); i >= 0; --i) {
    const bool byte = below(2) == 0;  // bytes have low ids in every vocabulary
    const TokenId id = byte ? below(std::min(size, 260)) : below(size + 2) - 1;
    ids.insert(ids.begin() + below(static_cast<int>(ids.size()) + 1), id);
  }
  if (ids.size() > 2 * kMaxIds) ids.resize(2 * kMaxIds);
  return ids;
}

}  // namespace

void ExpectRoundTrips(int cases) {
  std::mt19937_64 random(20261123);
  const auto tokenizers = AllTokenizers();
  for (int i = 0; i < cases; ++i) {
    const Tokenizer& tokenizer = *tokenizers[i % tokenizers.size()];
    const std::string text = GenerateText(&random, kMaxCharacters);
    ASSERT_EQ(RoundTrip(tokenizer, text), text) << "case " << i;
  }
}

void ExpectEverySplitDecodesAlike(int cases) {
  std::mt19937_64 random(20261124);
  const auto tokenizers = AllTokenizers();
  for (int i = 0; i < cases; ++i) {
    const Tokenizer& tokenizer = *tokenizers[i % tokenizers.size()];
    const Vocabulary& vocabulary = tokenizer.vocabulary();
    const std::vector<TokenId> ids = GenerateIds(tokenizer, &random);
    const bool skip = i % 2 == 0;
    const std::string whole = TextByDefinition(vocabulary, ids, skip);
    ASSERT_EQ(Decode(vocabulary, ids, skip), whole) << "case " << i;
    IncrementalDecoder decoder(vocabulary, skip);
    std::string text;
    for (size_t k = 0; k < ids.size(); ++k) {
      text += decoder.Append(ids[k]);
      // What was given is never taken back, and every beginning is right.
      ASSERT_TRUE(whole.starts_with(text)) << "case " << i;
      IncrementalDecoder ended = decoder;
      ASSERT_EQ(text + ended.Finish(),
                TextByDefinition(vocabulary, std::span(ids).first(k + 1), skip))
          << "case " << i << ", after " << k + 1 << " ids";
    }
    ASSERT_EQ(text + decoder.Finish(), whole) << "case " << i;
  }
}

}  // namespace caravan::text
