// The one way in which a front door reads a generation.
#ifndef CARAVAN_GATEWAY_STREAM_TOKEN_STREAM_H_
#define CARAVAN_GATEWAY_STREAM_TOKEN_STREAM_H_

#include <boost/asio/awaitable.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "gateway/stream/events.h"

namespace caravan::gateway {

// Ends in exactly one way: events with `finished`, or one error. Dropping a
// stream before that cancels the request.
class TokenStream {
 public:
  virtual ~TokenStream() = default;

  // What was asked for.
  virtual const GenerationRequest& request() const = 0;

  // What is new: never empty. Not to be called after the end. Runs on the
  // caller's executor; one call at a time.
  virtual boost::asio::awaitable<absl::StatusOr<StreamEvents>> Next() = 0;

  // Thread-safe. Next() ends with `status` soon; the worker hears of it.
  virtual void Cancel(absl::Status status) = 0;

  // The consumer waits for its client between the two: a client that is too
  // slow ends the stream with kSlowReader.
  virtual void BeginWrite() = 0;
  virtual void EndWrite() = 0;

  // From where a client that has all that Next() gave can go on; empty where
  // streams are not kept (no idempotency key).
  virtual std::string EventId() const { return {}; }
};

// What ends the stream of a client that did not take a write in time.
inline absl::Status UnreadFor(absl::Duration write_timeout) {
  return MakeError(Reason::kSlowReader,
                   StrCat("the client must read within ",
                          absl::FormatDuration(write_timeout)));
}

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_TOKEN_STREAM_H_
