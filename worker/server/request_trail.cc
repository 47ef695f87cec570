#include "worker/server/request_trail.h"

#include <string>

#include "common/log.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

void LogTokens(const StepReport& report) {
  std::string list;
  for (const TokenEvent& token : report.tokens) {
    StrAppend(&list, list.empty() ? "" : ",", token.group, "/", token.choice,
              ":", token.position);
  }
  LogDebug("tokens", {{"step", report.step}, {"list", list}});
}

// As choice:count.
std::string OutputsOf(const v1::Submit& submit) {
  std::string list;
  for (const v1::SubmitChoice& choice : submit.choices()) {
    StrAppend(&list, list.empty() ? "" : ",", choice.index(), ":",
              choice.output_token_ids_size());
  }
  return list;
}

void LogWork(const SequenceWork& work) {
  LogDebug("sequence_ended", {{"group", work.group},
                              {"choice", work.choice},
                              {"prompt", work.prompt},
                              {"resumed", work.resumed},
                              {"reused", work.reused},
                              {"prefilled", work.prefilled},
                              {"decoded", work.decoded},
                              {"generated", work.generated},
                              {"parked", work.parked}});
}

}  // namespace

void LogSubmit(const v1::Submit& submit, GroupId group,
               const std::string& peer) {
  if (!DebugIsLogged()) return;
  LogDebug("submit", {{"request_id", submit.request_id()},
                      {"group", group},
                      {"peer", peer},
                      {"tenant", submit.tenant()},
                      {"attempt", submit.attempt()},
                      {"outputs", OutputsOf(submit)},
                      {"idempotency_key", submit.idempotency_key()},
                      {"traceparent", submit.traceparent()}});
}

void LogTrail(const StepReport& report) {
  if (!DebugIsLogged()) return;
  if (!report.tokens.empty()) LogTokens(report);
  for (const SequenceWork& work : report.works) LogWork(work);
}

}  // namespace caravan::worker
