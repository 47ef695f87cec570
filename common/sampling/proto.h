// caravan.v1.SamplingParams and StopCriteria <-> the structs of params.h.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_SAMPLING_PROTO_H_
#define CARAVAN_COMMON_SAMPLING_PROTO_H_

#include "caravan/v1/sampling.pb.h"
#include "common/sampling/params.h"

namespace caravan::sampling {

// Fields that `proto` does not have are those of `defaults`; an empty
// logit_bias is absent. Ranges are not checked: call Validate on the result.
// Defaults nest: FromProto(request, FromProto(model, SamplingParams())).
SamplingParams FromProto(const v1::SamplingParams& proto,
                         const SamplingParams& defaults = {});

// The same; an empty list is absent, a flag is on when either side has it on.
StopCriteria FromProto(const v1::StopCriteria& proto,
                       const StopCriteria& defaults = {});

// Every field present, so that the receiver adds no default of its own.
v1::SamplingParams ToProto(const SamplingParams& params);
v1::StopCriteria ToProto(const StopCriteria& stop);

}  // namespace caravan::sampling

#endif  // CARAVAN_COMMON_SAMPLING_PROTO_H_
