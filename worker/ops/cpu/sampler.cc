#include "worker/ops/cpu/sampler.h"

#include "worker/ops/sample.h"

namespace caravan::worker::cpu {

void Sampler::Run(const SampleArgs& args) {
  const int64_t samples = static_cast<int64_t>(args.samples.size());
  const int64_t scores = static_cast<int64_t>(args.scores.size());
  shares_.Reset(samples + scores, team_.size());
  team_.Run([&](int member) {
    for (int64_t i; (i = shares_.Next(member)) >= 0;) {
      if (i < samples) {
        const SampleRow& row = args.samples[i];
        float* const logits = args.logits.row(row.logits_row);
        args.sampled[i] =
            SampleToken({logits, static_cast<size_t>(args.logits.cols)}, row);
      } else {
        const ScoreRow& row = args.scores[i - samples];
        const float* const logits = args.logits.row(row.logits_row);
        args.scored[i - samples] =
            ScoreToken({logits, static_cast<size_t>(args.logits.cols)},
                       row.token_id, row.candidate_count);
      }
    }
  });
}

}  // namespace caravan::worker::cpu
