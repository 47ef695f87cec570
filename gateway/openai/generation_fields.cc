#include "gateway/openai/generation_fields.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/sampling/params.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway::openai {
namespace {

absl::Status ReadSampling(ObjectReader& reader, SamplingOverrides& sampling) {
  CARAVAN_RETURN_IF_ERROR(reader.Read("temperature", sampling.temperature));
  CARAVAN_RETURN_IF_ERROR(reader.Read("top_p", sampling.top_p));
  CARAVAN_RETURN_IF_ERROR(reader.Read("top_k", sampling.top_k));
  CARAVAN_RETURN_IF_ERROR(reader.Read("min_p", sampling.min_p));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("repetition_penalty", sampling.repetition_penalty));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("presence_penalty", sampling.presence_penalty));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("frequency_penalty", sampling.frequency_penalty));
  return reader.ReadSeed("seed", sampling.seed);
}

// {"token id": bias}, ascending by id.
absl::Status ReadLogitBias(ObjectReader& reader, SamplingOverrides& sampling) {
  const Json* value = reader.Find("logit_bias");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object()) {
    return TypeError("logit_bias", "an object of token id to bias", *value);
  }
  for (const auto& [key, bias] : value->items()) {
    const std::string field = StrCat("logit_bias[", Excerpt(Json(key)), "]");
    int32_t id = 0;
    const auto parsed =
        std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size()) {
      return FieldError(field, "named by a token id", Excerpt(Json(key)));
    }
    if (!bias.is_number()) return TypeError(field, "a number", bias);
    sampling.logit_bias.push_back({id, bias.get<float>()});
  }
  return absl::OkStatus();
}

// A string, or an array of them.
absl::Status ReadStopTexts(ObjectReader& reader, StopOverrides& stop) {
  const Json* value = reader.Find("stop");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    stop.stop.push_back(value->get<std::string>());
    return absl::OkStatus();
  }
  if (!value->is_array()) {
    return TypeError("stop", "a string or an array of strings", *value);
  }
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& text = (*value)[i];
    if (!text.is_string()) {
      return TypeError(StrCat("stop[", i, "]"), "a string", text);
    }
    stop.stop.push_back(text.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ReadStop(ObjectReader& reader, StopOverrides& stop) {
  CARAVAN_RETURN_IF_ERROR(ReadStopTexts(reader, stop));
  CARAVAN_RETURN_IF_ERROR(reader.Read("max_tokens", stop.max_tokens));
  CARAVAN_RETURN_IF_ERROR(reader.Read("min_tokens", stop.min_tokens));
  CARAVAN_RETURN_IF_ERROR(
      reader.ReadTokenIds("stop_token_ids", stop.stop_token_ids));
  CARAVAN_RETURN_IF_ERROR(reader.Read("ignore_eos", stop.ignore_eos));
  return reader.Read("include_stop_str_in_output",
                     stop.include_stop_str_in_output);
}

absl::Status ReadStreaming(ObjectReader& reader, GenerationRequest& request) {
  CARAVAN_RETURN_IF_ERROR(reader.Read("stream", request.stream));
  const Json* options = reader.Find("stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!options->is_object()) {
    return TypeError("stream_options", "an object", *options);
  }
  if (!request.stream) {
    return FieldError("stream_options", "given with stream = true only",
                      "stream = false");
  }
  ObjectReader inner(*options, "stream_options");
  CARAVAN_RETURN_IF_ERROR(inner.Read("include_usage", request.include_usage));
  inner.Accept("include_obfuscation");  // padding of OpenAI's own transport
  return inner.RefuseUnknown();
}

absl::Status ReadCount(ObjectReader& reader, std::string_view key,
                       int64_t least, int64_t most, int32_t& out) {
  const Json* value = reader.Find(key);
  if (value == nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(const int64_t count,
                           AsInteger(key, *value, least, most));
  out = static_cast<int32_t>(count);
  return absl::OkStatus();
}

bool IsEmptyArray(const Json& value) {
  return value.is_array() && value.empty();
}

bool IsNone(const Json& value) { return value == "none"; }

bool IsTextFormat(const Json& value) {
  return value == Json::object({{"type", "text"}});
}

bool IsTextOnly(const Json& value) { return value == Json::array({"text"}); }

}  // namespace

absl::Status ReadSharedFields(ObjectReader& reader,
                              GenerationRequest& request) {
  CARAVAN_RETURN_IF_ERROR(reader.Read("model", request.model));
  CARAVAN_RETURN_IF_ERROR(ReadSampling(reader, request.sampling));
  CARAVAN_RETURN_IF_ERROR(ReadLogitBias(reader, request.sampling));
  CARAVAN_RETURN_IF_ERROR(ReadStop(reader, request.stop));
  CARAVAN_RETURN_IF_ERROR(ReadStreaming(reader, request));
  CARAVAN_RETURN_IF_ERROR(
      ReadCount(reader, "n", 1, sampling::kMaxChoices, request.n));
  CARAVAN_RETURN_IF_ERROR(ReadCount(reader, "priority", -sampling::kMaxPriority,
                                    sampling::kMaxPriority, request.priority));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("return_token_ids", request.return_token_ids));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("skip_special_tokens", request.skip_special_tokens));
  return reader.Read("allow_inexact_resume", request.allow_inexact_resume);
}

absl::Status ReadNeutralFields(ObjectReader& reader) {
  for (const std::string_view key :
       {"user", "metadata", "store", "service_tier", "safety_identifier",
        "prompt_cache_key"}) {
    reader.Accept(key);
  }
  CARAVAN_RETURN_IF_ERROR(
      reader.AllowOnly("functions", IsEmptyArray, "use tools"));
  CARAVAN_RETURN_IF_ERROR(
      reader.AllowOnly("function_call", IsNone, "use tool_choice"));
  CARAVAN_RETURN_IF_ERROR(reader.AllowOnly("response_format", IsTextFormat,
                                           "use {\"type\":\"text\"}"));
  CARAVAN_RETURN_IF_ERROR(
      reader.AllowOnly("modalities", IsTextOnly, "use [\"text\"]"));
  const auto never = [](const Json&) { return false; };
  for (const std::string_view key :
       {"audio", "prediction", "reasoning_effort", "verbosity",
        "web_search_options", "adapter"}) {
    CARAVAN_RETURN_IF_ERROR(reader.AllowOnly(key, never, "leave it out"));
  }
  return absl::OkStatus();
}

}  // namespace caravan::gateway::openai
