// The sampling rule of one row of logits, and log probabilities: the scalar
// definition. A backend may compute the same faster, with the same result.
//
// With l the raw logits (fp32, each operation one rounding), for every id:
//   1. repetition  (r != 1, id in prompt or output): l = l > 0 ? l / r : l * r
//   2. frequency f, presence p (id c > 0 times in the output):
//                  l = (l - f * c) - p
//   3. bias b:     l = l + b, for each entry of that id in order
//      then l is clamped to the finite floats (after 1 to 3, touched ids only).
//   4. mask:       end ids have l = -infinity while output_position <
//                  min_tokens, unless that would mask the whole vocabulary.
//   Temperature 0: the token is the id of the greatest l, ties to the lower id;
//   nothing below applies. Else, in double, with m the greatest l and T the
//   temperature,
//   5. weight      w = floor(Exp64((l - m) / T) * 2^40), an integer; 0 is out.
//   6. top_k > 0:  the k ids first in order (w descending, id ascending) stay.
//   7. top_p:      S = sum of w of those that stay, P = floor(top_p * 2^32):
//                  the shortest prefix of that order whose sum c has
//                  c * 2^32 >= P * S stays; at least one id.
//   8. min_p:      M = floor(min_p * 2^32): ids with w * 2^32 >= M * 2^40 stay
//                  (2^40 is the weight of the greatest l).
//   9. draw        x = TokenDraw(seed, output_position, choice), S = sum of w
//                  of those that stay: the token is the first in ascending id
//                  whose running sum exceeds (x * S) >> 32.
//
// Thread-safe: functions of their arguments.
#ifndef CARAVAN_WORKER_OPS_SAMPLE_H_
#define CARAVAN_WORKER_OPS_SAMPLE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "worker/ops/ops.h"
#include "worker/ops/sample_math.h"
#include "worker/ops/sampling_state.h"

namespace caravan::worker {

// Whether no logit is NaN or infinite.
bool AllFinite(std::span<const float> logits);

// Precondition: all finite, at least one logit.
LogNormalizer ComputeLogNormalizer(std::span<const float> logits);

// Logprob, rank and the `candidate_count` most probable ids of `token_id`.
// `finite` is false, and nothing else set, when a logit is not finite.
TokenScore ScoreToken(std::span<const float> logits, int32_t token_id,
                      int32_t candidate_count);

// Samples by the rule above. Scores the token where the parameters ask for
// logprobs. Changes `logits` (steps 1 to 4).
TokenScore SampleToken(std::span<float> logits, const SampleRow& row);

// Parts of the rule, for backends that speed up others; sample_math.h has more.

// Steps 1 to 4, in place.
void ApplyPenaltiesAndMask(std::span<float> logits, const SamplingState& state,
                           int32_t output_position);

// The id of the greatest logit, ties to the lower id.
int32_t ArgMax(std::span<const float> logits);

// Steps 6 to 9, given step 5's weights of all ids.
int32_t DrawToken(std::span<const uint64_t> weights,
                  const sampling::SamplingParams& params, uint32_t draw);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_SAMPLE_H_
