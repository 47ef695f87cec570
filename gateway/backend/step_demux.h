// Splits what one step gave to a session by request.
#ifndef CARAVAN_GATEWAY_BACKEND_STEP_DEMUX_H_
#define CARAVAN_GATEWAY_BACKEND_STEP_DEMUX_H_

#include <vector>

#include "caravan/v1/worker.pb.h"
#include "gateway/stream/inbox.h"

namespace caravan::gateway {

// One entry for each handle that the step speaks of, in the order of first
// mention. Thread-safe: a pure function.
std::vector<HandleEvents> SplitByHandle(const v1::StepOutput& step);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_STEP_DEMUX_H_
