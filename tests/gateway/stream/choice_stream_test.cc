#include "gateway/stream/choice_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/gateway/fakes/letters.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::caravan::testing::HasReason;
using testing::IdsOf;
using testing::kEos;
using testing::kSmile;

class ChoiceStreamTest : public ::testing::Test {
 protected:
  ChoiceStreamTest() { options_.end_ids = {kEos}; }

  ChoiceStream Make() {
    return ChoiceStream(0, 0, options_,
                        text::IncrementalDecoder(vocabulary_, true));
  }
  // Appends `ids` and returns the text of each delta.
  std::vector<std::string> Feed(ChoiceStream& stream,
                                const std::vector<TokenId>& ids) {
    std::vector<std::string> texts;
    for (const TokenId id : ids) {
      TokenPiece piece;
      piece.id = id;
      const auto position = static_cast<int32_t>(stream.output().size());
      EXPECT_OK(stream.Append(position, piece));
      texts.push_back(stream.has_delta() ? stream.TakeDelta().text : "-");
    }
    return texts;
  }

  const text::Vocabulary vocabulary_ = testing::MakeLetters();
  ChoiceOptions options_;
};

TEST_F(ChoiceStreamTest, DropsTokensThatItHas) {
  ChoiceStream stream = Make();
  Feed(stream, IdsOf("ab"));
  TokenPiece again;
  again.id = 'z';
  ASSERT_OK_AND_ASSIGN(const bool is_new, stream.Append(1, again));
  EXPECT_FALSE(is_new);
  EXPECT_EQ(stream.output(), IdsOf("ab"));
}

TEST_F(ChoiceStreamTest, RefusesAGap) {
  ChoiceStream stream = Make();
  EXPECT_THAT(stream.Append(1, TokenPiece()), HasReason(Reason::kInternal));
}

TEST_F(ChoiceStreamTest, HoldsTextThatMayBeginAStopText) {
  options_.stop = StopTexts({"the end"});
  ChoiceStream stream = Make();
  EXPECT_EQ(Feed(stream, IdsOf("xthe!")),
            (std::vector<std::string>{"x", "", "", "", "the!"}));
}

TEST_F(ChoiceStreamTest, EndsBeforeAStopTextAndDropsWhatFollows) {
  options_.stop = StopTexts({"END"});
  ChoiceStream stream = Make();
  Feed(stream, IdsOf("okEN"));
  TokenPiece last;
  last.id = 'D';
  ASSERT_OK(stream.Append(4, last));
  ASSERT_TRUE(stream.finished());
  const ChoiceDelta delta = stream.TakeDelta();
  EXPECT_EQ(delta.text, "");
  EXPECT_EQ(delta.finish, FinishReason::kStop);
  EXPECT_EQ(delta.stop_text, "END");
  EXPECT_EQ(delta.first_position, 4);
  ASSERT_OK_AND_ASSIGN(const bool is_new, stream.Append(5, last));
  EXPECT_FALSE(is_new);
  EXPECT_EQ(stream.output().size(), 5u);
}

TEST_F(ChoiceStreamTest, KeepsTheStopTextWhereAskedTo) {
  options_.stop = StopTexts({"END"});
  options_.include_stop = true;
  ChoiceStream stream = Make();
  EXPECT_EQ(Feed(stream, IdsOf("aEND")),
            (std::vector<std::string>{"a", "", "", "END"}));
}

TEST_F(ChoiceStreamTest, StopTextsCountAfterTheLeastNumberOfTokens) {
  options_.stop = StopTexts({"b"});
  options_.min_tokens = 2;
  ChoiceStream stream = Make();
  Feed(stream, IdsOf("abab"));
  EXPECT_TRUE(stream.finished());
  EXPECT_EQ(stream.output().size(), 4u);
}

TEST_F(ChoiceStreamTest, AnEndTokenHasNoTextAndIsNamed) {
  ChoiceStream stream = Make();
  Feed(stream, IdsOf("a"));
  TokenPiece end;
  end.id = kEos;
  ASSERT_OK(stream.Append(1, end));
  stream.Finish(FinishReason::kStop);
  const ChoiceDelta delta = stream.TakeDelta();
  EXPECT_EQ(delta.text, "");
  EXPECT_EQ(delta.tokens.size(), 1u);
  EXPECT_EQ(delta.stop_token_id, kEos);
  EXPECT_EQ(delta.finish, FinishReason::kStop);
  EXPECT_FALSE(stream.has_delta());
}

TEST_F(ChoiceStreamTest, HoldsAnIncompleteCharacterAndReplacesItAtTheEnd) {
  ChoiceStream stream = Make();
  EXPECT_EQ(Feed(stream, {'a', kSmile}), (std::vector<std::string>{"a", ""}));
  stream.Finish(FinishReason::kLength);
  EXPECT_EQ(stream.TakeDelta().text, "\xEF\xBF\xBD");
}

TEST_F(ChoiceStreamTest, CompletesACharacterAcrossTokens) {
  ChoiceStream stream = Make();
  EXPECT_EQ(Feed(stream, {kSmile, 0x98, 0x80}),
            (std::vector<std::string>{"", "", "\xF0\x9F\x98\x80"}));
}

TEST_F(ChoiceStreamTest, NeverReleasesPartOfACharacter) {
  options_.stop = StopTexts({"\xC3\xA9x"});
  ChoiceStream stream = Make();
  EXPECT_EQ(Feed(stream, {0xC3, 0xA9, 'y'}),
            (std::vector<std::string>{"", "", "\xC3\xA9y"}));
}

TEST_F(ChoiceStreamTest, TextOffsetsCountCharacters) {
  ChoiceStream stream = Make();
  Feed(stream, {0xC3, 0xA9});
  TokenPiece piece;
  piece.id = 'a';
  ASSERT_OK(stream.Append(2, piece));
  const ChoiceDelta delta = stream.TakeDelta();
  ASSERT_EQ(delta.tokens.size(), 1u);
  EXPECT_EQ(delta.tokens[0].text_offset, 1);
}

TEST_F(ChoiceStreamTest, TextDoesNotDependOnHowTokensWereCut) {
  options_.stop = StopTexts({"stop here", "never"});
  const std::vector<TokenId> ids = IdsOf("a st sto stop h stop heres");
  std::string expected;
  {
    ChoiceStream one = Make();
    for (const std::string& text : Feed(one, ids)) expected += text;
  }
  ChoiceStream stream = Make();
  for (size_t i = 0; i < ids.size(); ++i) {
    TokenPiece piece;
    piece.id = ids[i];
    ASSERT_OK(stream.Append(static_cast<int32_t>(i), piece));
  }
  EXPECT_EQ(stream.TakeDelta().text + "-", expected);
  EXPECT_TRUE(stream.finished());
}

}  // namespace
}  // namespace caravan::gateway
