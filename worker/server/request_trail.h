// What the worker did for each request, as debug lines: submits, the tokens of
// every step, and what each sequence took until its end. Off by default, and
// free then. Tests of failover prove by them that nothing is generated twice.
#ifndef CARAVAN_WORKER_SERVER_REQUEST_TRAIL_H_
#define CARAVAN_WORKER_SERVER_REQUEST_TRAIL_H_

#include <string>

#include "caravan/v1/worker.pb.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// `event=submit` with the choices and how many output tokens each comes with;
// `group` is what the other lines call the request by. Thread-safe.
void LogSubmit(const v1::Submit& submit, GroupId group,
               const std::string& peer);

// `event=tokens` with group/choice:position of each new token, before it is
// sent, and `event=sequence_ended` with its SequenceWork. Thread-safe.
void LogTrail(const StepReport& report);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_REQUEST_TRAIL_H_
