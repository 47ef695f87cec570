// The one internal form of a request. Both front doors (HTTP and gRPC)
// translate into it, and nothing behind them knows which one it was.
#ifndef CARAVAN_GATEWAY_REQUEST_H_
#define CARAVAN_GATEWAY_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "common/sampling/params.h"
#include "common/text/vocabulary.h"

namespace caravan::gateway {

using text::TokenId;

// The door and path a request came by; a label of the metrics.
enum class Endpoint { kCompletions, kChat, kGrpcGenerate, kGrpcComplete };

// A call of a tool, in an assistant's earlier message.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments_json;
  bool operator==(const ToolCall&) const = default;
};

// One message of a conversation. Texts are valid UTF-8.
struct Message {
  std::string role;
  std::vector<std::string> content;  // text parts, in order
  std::optional<std::string> name;
  std::vector<ToolCall> tool_calls;
  std::optional<std::string> tool_call_id;
  bool operator==(const Message&) const = default;
};

// A function that the model may call.
struct Tool {
  std::string name;
  std::string definition_json;  // OpenAI's object, its keys in the given order
  bool operator==(const Tool&) const = default;
};

struct Conversation {
  std::vector<Message> messages;  // at least one
  std::vector<Tool> tools;        // those that the template lists
  bool add_generation_prompt = true;
};

// Two texts between which the model fills in.
struct Infill {
  std::string prefix;
  std::string suffix;
  bool suffix_first = false;  // in the prompt
};

// Text to encode, ids to use as they are, messages for the template, or a gap
// to fill.
using PromptInput =
    std::variant<std::string, std::vector<TokenId>, Conversation, Infill>;

// What the client gave; the rest comes from the model, else from the defaults
// of common/sampling. Ranges are explained and checked there.
struct SamplingOverrides {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::vector<sampling::LogitBias> logit_bias;
  std::optional<uint64_t> seed;
  std::optional<int32_t> logprob_count;
  std::optional<int32_t> prompt_logprob_count;
};

struct StopOverrides {
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
};

// Output of an earlier call with the same fields, to be continued.
struct ResumedChoice {
  int32_t index = 0;
  std::vector<TokenId> output;
};

struct GenerationRequest {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string request_id;  // for logs; never empty
  std::string model;       // empty: the only one that is served
  std::string tenant;      // empty without API keys
  double tenant_weight = 1;
  // Scoped by tenant: the same key and body attach to the stream instead of
  // computing again, from `resume_cursor` on (an event's id; may be empty).
  std::string idempotency_key;
  std::string resume_cursor;
  std::string body_digest;  // of what the client sent; with a key
  // Only replicas with this tag of identity (IdentityTag): what a cursor says.
  std::optional<uint64_t> identity_tag;
  std::string routing_key;  // keeps a client's requests together
  std::string traceparent;
  int32_t priority = 0;  // [-100, 100]
  absl::Time deadline = absl::InfiniteFuture();

  std::vector<PromptInput> prompts;  // at least one
  SamplingOverrides sampling;
  StopOverrides stop;
  int32_t n = 1;  // choices of each prompt, [1, 16]
  std::vector<ResumedChoice> resumed_choices;
  bool allow_inexact_resume = false;

  // Bound of max_tokens where the client gave none; absent: what fits.
  std::optional<int32_t> default_max_tokens;

  // What comes back.
  bool echo = false;
  bool return_token_ids = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;
};

// Prompts of one request.
inline constexpr int kMaxPrompts = 256;
// Tools of one conversation, and bytes of all their definitions.
inline constexpr int kMaxTools = 128;
inline constexpr int kMaxToolBytes = 1 << 20;

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_REQUEST_H_
