// Code Llama's tokens for filling in: four pieces of the vocabulary that no
// text becomes.
#ifndef CARAVAN_COMMON_TEXT_INFILL_TOKENS_H_
#define CARAVAN_COMMON_TEXT_INFILL_TOKENS_H_

#include "common/text/tokenizer_model.h"

namespace caravan::text {

// Finds the four pieces, whatever format the model came in, and makes them
// control tokens: " <PRE>" in a text stays text, and the decoder leaves them
// out with the special tokens. Does nothing unless all four are there.
void MarkInfillTokens(TokenizerModel* model);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_INFILL_TOKENS_H_
