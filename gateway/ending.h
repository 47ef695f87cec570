// What a request that has ended well says last: usage, receipt, and from where
// on it was not exact.
#ifndef CARAVAN_GATEWAY_ENDING_H_
#define CARAVAN_GATEWAY_ENDING_H_

#include <string>

#include "gateway/running_request.h"
#include "gateway/stream/events.h"

namespace caravan::gateway {

// The last event. All groups are complete.
Finished MakeFinished(const RunningRequest& run);

// The receipt alone; empty, with a log line, where it has no room for what it
// has to say.
std::string MakeReceipt(const RunningRequest& run);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ENDING_H_
