// caravan replay: repeats the request of a receipt and compares.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/http_session.h"

namespace caravan::cli {
namespace {

using Json = nlohmann::json;

struct ReplayOptions {
  std::string receipt;       // base64, or a file with it
  std::string request_file;  // body of the HTTP request
  std::string gateway = "127.0.0.1:8080";
  std::string api_key;
};

absl::StatusOr<std::string> ReadFile(std::string_view flag,
                                     const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return FieldError(flag, "a readable file", path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// White space at the ends is not part of it.
std::string Trim(std::string text) {
  constexpr std::string_view kSpace = " \t\r\n";
  text.erase(text.find_last_not_of(kSpace) + 1);
  text.erase(0, std::min(text.find_first_not_of(kSpace), text.size()));
  return text;
}

absl::StatusOr<v1::Receipt> ReadReceipt(const std::string& given) {
  const bool is_file = std::ifstream(given).good();
  std::string text = given;
  if (is_file) {
    CARAVAN_ASSIGN_OR_RETURN(text, ReadFile("RECEIPT", given));
  }
  return receipt::DecodeReceipt(Trim(std::move(text)));
}

// The request as it was, with what the receipt knows better: the seed that was
// drawn and the defaults that the model had.
absl::StatusOr<Json> MakeBody(const std::string& text,
                              const v1::Receipt& receipt) {
  Json body = ParseJson(text);
  if (!body.is_object()) {
    return FieldError("--request", "a file with a JSON object", "none");
  }
  if (!body.contains("messages") && !body.contains("prompt")) {
    return FieldError("--request", "a body with messages or prompt", "neither");
  }
  body["stream"] = false;
  body.erase("stream_options");
  body["return_token_ids"] = true;
  const v1::SamplingParams& sampling = receipt.sampling();
  body["seed"] = sampling.seed();
  const auto fill = [&](const char* field, auto value) {
    if (!body.contains(field)) body[field] = value;
  };
  fill("model", receipt.model());
  fill("temperature", sampling.temperature());
  fill("top_p", sampling.top_p());
  fill("top_k", sampling.top_k());
  fill("min_p", sampling.min_p());
  fill("repetition_penalty", sampling.repetition_penalty());
  fill("presence_penalty", sampling.presence_penalty());
  fill("frequency_penalty", sampling.frequency_penalty());
  return body;
}

absl::StatusOr<std::vector<int32_t>> IdsOf(const Json& json,
                                           const char* field) {
  const auto it = json.find(field);
  const bool listed = it != json.end() && it->is_array();
  if (!listed) {
    return MakeError(Reason::kInternal,
                     StrCat("the gateway's answer has no ", field));
  }
  std::vector<int32_t> ids;
  for (const Json& id : *it) {
    if (!id.is_number_integer()) {
      return MakeError(Reason::kInternal, StrCat(field, " has no integers"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

struct Regenerated {
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> outputs;
  std::string fingerprint;
};

// With several prompts each choice has its own's ids, the choices of one
// standing together.
absl::StatusOr<Regenerated> Parse(const std::string& text, size_t n) {
  const Json answer = ParseJson(text);
  const bool whole = answer.is_object() && answer.contains("choices") &&
                     answer["choices"].is_array();
  if (!whole) {
    return MakeError(Reason::kInternal, "the gateway's answer has no choices");
  }
  Regenerated regenerated;
  const bool one_prompt = answer.contains("prompt_token_ids");
  if (one_prompt) {
    CARAVAN_ASSIGN_OR_RETURN(regenerated.prompt,
                             IdsOf(answer, "prompt_token_ids"));
  }
  for (const Json& choice : answer["choices"]) {
    CARAVAN_ASSIGN_OR_RETURN(regenerated.outputs.emplace_back(),
                             IdsOf(choice, "token_ids"));
    const bool first_of_prompt = (regenerated.outputs.size() - 1) % n == 0;
    if (one_prompt || !first_of_prompt) continue;
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                             IdsOf(choice, "prompt_token_ids"));
    regenerated.prompt.insert(regenerated.prompt.end(), prompt.begin(),
                              prompt.end());
  }
  const auto fingerprint = answer.find("system_fingerprint");
  if (fingerprint != answer.end() && fingerprint->is_string()) {
    regenerated.fingerprint = fingerprint->get<std::string>();
  }
  return regenerated;
}

absl::Status RunReplay(const ReplayOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const v1::Receipt receipt,
                           ReadReceipt(options.receipt));
  CARAVAN_ASSIGN_OR_RETURN(const std::string text,
                           ReadFile("--request", options.request_file));
  CARAVAN_ASSIGN_OR_RETURN(const Json body, MakeBody(text, receipt));
  CARAVAN_ASSIGN_OR_RETURN(HttpTarget target, ParseHttpTarget(options.gateway));
  target.api_key = options.api_key;
  const std::string path =
      body.contains("messages") ? "/v1/chat/completions" : "/v1/completions";
  CARAVAN_ASSIGN_OR_RETURN(const HttpReply reply,
                           PostAndWait(target, path, DumpJson(body)));
  if (reply.status != 200) return StatusOfReply(reply);
  const bool has_n = body.contains("n") && body["n"].is_number_unsigned();
  const size_t n = has_n ? std::max<size_t>(1, body["n"].get<size_t>()) : 1;
  CARAVAN_ASSIGN_OR_RETURN(const Regenerated regenerated, Parse(reply.body, n));
  const std::string fingerprint =
      receipt::SystemFingerprint(receipt.identity(), receipt.build());
  const absl::Status same = receipt::CheckRegenerated(
      receipt, regenerated.prompt, regenerated.outputs);
  if (!same.ok() && fingerprint != regenerated.fingerprint) {
    return Annotate(same, StrCat("computed by ", regenerated.fingerprint,
                                 " instead of ", fingerprint, " (",
                                 receipt.identity().numerics_class(), ")"));
  }
  CARAVAN_RETURN_IF_ERROR(same);
  std::cout << "equal: " << receipt.prompt_token_count() << " prompt tokens, "
            << receipt.choices_size() << " choices, seed "
            << receipt.sampling().seed() << ", "
            << receipt.identity().numerics_class() << "\n";
  return absl::OkStatus();
}

}  // namespace

Command AddReplay(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "replay", "Repeat the request of a receipt and compare");
  const auto options = std::make_shared<ReplayOptions>();
  app->add_option("receipt", options->receipt, "Receipt (base64), or its file")
      ->required();
  app->add_option("--request", options->request_file,
                  "File with the body of the HTTP request")
      ->required();
  app->add_option("--gateway", options->gateway, "HOST:PORT of its HTTP door");
  app->add_option("--api-key", options->api_key,
                  "Key, where the gateway wants one");
  return {app, [options] { return RunReplay(*options); }};
}

}  // namespace caravan::cli
