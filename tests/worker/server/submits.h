// Submits as a gateway makes them: every field filled.
#ifndef CARAVAN_TESTS_WORKER_SERVER_SUBMITS_H_
#define CARAVAN_TESTS_WORKER_SERVER_SUBMITS_H_

#include <cstdint>
#include <vector>

#include "caravan/v1/worker.pb.h"
#include "common/sampling/params.h"
#include "common/sampling/proto.h"

namespace caravan::testing {

// One greedy choice of up to `max_tokens`.
inline v1::Submit MakeSubmit(uint64_t handle,
                             const std::vector<int32_t>& prompt, uint64_t epoch,
                             int32_t max_tokens = 8) {
  v1::Submit submit;
  submit.set_handle(handle);
  submit.set_epoch(epoch);
  v1::TokenSpan* const tokens = submit.add_prompt()->mutable_tokens();
  for (const int32_t id : prompt) tokens->add_token_ids(id);
  submit.add_choices();
  sampling::SamplingParams sampling;
  sampling.temperature = 0;
  *submit.mutable_sampling() = sampling::ToProto(sampling);
  sampling::StopCriteria stop;
  stop.max_tokens = max_tokens;
  *submit.mutable_stop() = sampling::ToProto(stop);
  return submit;
}

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_WORKER_SERVER_SUBMITS_H_
