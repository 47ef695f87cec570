// Calls of tools in what a model wrote. Models have no other way to call than
// to write in the form that their template taught them:
//
//   {"name": "f", "parameters": {...}}      Llama-3.1; also "arguments", with
//                                           "type" or "function" around it,
//                                           several after each other (";"
//                                           between) or in an array
//   [f(a='x', b=1), g()]                    Llama-3.2, pythonic
//   <function=f>{...}</function>            Meta's other convention
//   f.call(query="x")                       built-in tools of Llama-3.1
//
// Only a text that is nothing but calls of tools that the request named counts;
// all else is an answer in words.
#ifndef CARAVAN_GATEWAY_STREAM_TOOL_CALLS_H_
#define CARAVAN_GATEWAY_STREAM_TOOL_CALLS_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/request.h"
#include "gateway/stream/events.h"

namespace caravan::gateway {

// The calls, without ids, their arguments as JSON text; none where the text is
// something else. Thread-safe.
std::vector<ToolCall> ParseToolCalls(std::string_view text,
                                     std::span<const Tool> tools);

// Whether a text that begins so may still become calls.
bool MayBecomeToolCalls(std::string_view text, std::span<const Tool> tools);

// Holds a choice's deltas back while its text may be calls, and turns them
// into one delta with the calls when it ends as such.
//
// Not thread-safe. `tools` must outlive the filter.
class ToolCallFilter {
 public:
  // Ids of the calls are `id_prefix` and their number.
  ToolCallFilter(std::span<const Tool> tools, std::string id_prefix)
      : tools_(tools), id_prefix_(std::move(id_prefix)) {}

  // What the client gets now; nothing while it is held back. The delta with
  // `finish` always comes out.
  std::optional<ChoiceDelta> Apply(ChoiceDelta delta);

 private:
  void Hold(ChoiceDelta delta);

  const std::span<const Tool> tools_;
  const std::string id_prefix_;
  std::optional<ChoiceDelta> held_;
  bool words_ = false;  // the text is no call, whatever follows
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_TOOL_CALLS_H_
