// Prompts that ask a model to fill in what is missing between two texts.
#ifndef CARAVAN_SERVICES_TOKENIZER_INFILL_H_
#define CARAVAN_SERVICES_TOKENIZER_INFILL_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"

namespace caravan::tokenizer {

// Which text comes first in the prompt; the models know both.
enum class InfillOrder { kPrefixSuffixMiddle, kSuffixPrefixMiddle };

// Code Llama's prompt, BOS first:
//   PSM: <PRE> prefix <SUF> suffix <MID>
//   SPM: <PRE> <SUF> suffix <MID> prefix
// The prefix is encoded as any text (with SentencePiece's leading space), the
// suffix without that space; names of special tokens in either are text.
// Errors: kInvalidUtf8; kUnsupportedParameter for a model without the tokens.
absl::StatusOr<std::vector<text::TokenId>> EncodeInfill(
    const text::Tokenizer& tokenizer, std::string_view prefix,
    std::string_view suffix, InfillOrder order);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_INFILL_H_
