// Answers what our tokenizers and templates make of some input, so that tests
// can compare it with other implementations: one JSON object a line in, one a
// line out, in order.
//
//   {"op": "tokenizer", "name": N, "path": DIRECTORY} -> {"size": ids}
//   {"op": "encode", "tokenizer": N, "text": T, "special": BOOL}
//                                                       -> {"ids": [...]}
//   {"op": "decode", "tokenizer": N, "ids": [...], "skip": BOOL}
//                                                       -> {"text": T}
//   {"op": "template", "name": N, "source": T, "tokens": {NAME: T}} -> {}
//   {"op": "render", "template": N, "messages": [...], "tools": [...] or null,
//    "add_generation_prompt": BOOL, "variables": {...}} -> {"text": T}
//
// Anything that fails gives {"error": MESSAGE}, with "raised": true where the
// template raised it. The clock stands at 2024-07-26 12:34:56 UTC. Exits with 1
// where a line is no such object.
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "common/text/incremental_decoder.h"
#include "common/text/tokenizer.h"
#include "services/tokenizer/chat_template.h"

namespace caravan {
namespace {

using nlohmann::ordered_json;

ordered_json ErrorOf(const absl::Status& status) {
  ordered_json answer = {{"error", ToStd(status.message())}};
  if (MetadataOf(status).contains("raised")) answer["raised"] = true;
  return answer;
}

class Oracle {
 public:
  ordered_json Answer(const ordered_json& row) {
    const std::string op = row.at("op");
    if (op == "tokenizer") return LoadTokenizer(row);
    if (op == "encode") return Encode(row);
    if (op == "decode") return Decode(row);
    if (op == "template") return ParseTemplate(row);
    if (op == "render") return Render(row);
    return {{"error", "unknown op"}};
  }

 private:
  ordered_json LoadTokenizer(const ordered_json& row) {
    auto loaded = text::Tokenizer::LoadDirectory(row.at("path"));
    if (!loaded.ok()) return ErrorOf(loaded.status());
    auto& tokenizer = tokenizers_[row.at("name")];
    tokenizer = *std::move(loaded);
    return {{"size", tokenizer->vocabulary().size()}};
  }

  ordered_json Encode(const ordered_json& row) {
    const std::string text = row.at("text");
    const auto ids = tokenizers_.at(row.at("tokenizer"))
                         ->Encode(text, {.add_special_tokens = false,
                                         .allow_special_tokens =
                                             row.value("special", false)});
    if (!ids.ok()) return ErrorOf(ids.status());
    return {{"ids", *ids}};
  }

  ordered_json Decode(const ordered_json& row) {
    const std::vector<text::TokenId> ids = row.at("ids");
    return {
        {"text", text::Decode(tokenizers_.at(row.at("tokenizer"))->vocabulary(),
                              ids, row.value("skip", true))}};
  }

  ordered_json ParseTemplate(const ordered_json& row) {
    std::vector<std::pair<std::string, std::string>> tokens;
    for (const auto& [name, token] : row.at("tokens").items()) {
      tokens.emplace_back(name, token);
    }
    const std::string source = row.at("source");
    auto parsed = tokenizer::ChatTemplate::Create(source, std::move(tokens));
    if (!parsed.ok()) return ErrorOf(parsed.status());
    templates_.insert_or_assign(row.at("name"), *std::move(parsed));
    return ordered_json::object();
  }

  ordered_json Render(const ordered_json& row) {
    const auto messages = jinja::ParseJson(row.at("messages").dump());
    const auto tools = jinja::ParseJson(row.at("tools").dump());
    const auto variables = jinja::ParseJson(row.at("variables").dump());
    for (const auto* const value : {&messages, &tools, &variables}) {
      if (!value->ok()) return ErrorOf(value->status());
    }
    tokenizer::Conversation conversation;
    conversation.messages = messages->items();
    if (tools->is_sequence()) conversation.tools = tools->items();
    conversation.add_generation_prompt = row.at("add_generation_prompt");
    conversation.variables = variables->dict();
    const auto text = templates_.at(row.at("template"))
                          .Render(conversation, now_, absl::UTCTimeZone());
    if (!text.ok()) return ErrorOf(text.status());
    return {{"text", text->bytes()}};
  }

  const absl::Time now_ = absl::FromCivil(
      absl::CivilSecond(2024, 7, 26, 12, 34, 56), absl::UTCTimeZone());
  std::map<std::string, std::unique_ptr<text::Tokenizer>> tokenizers_;
  std::map<std::string, tokenizer::ChatTemplate> templates_;
};

int Run() {
  Oracle oracle;
  int number = 0;
  try {
    for (std::string line; std::getline(std::cin, line);) {
      ++number;
      std::cout << oracle.Answer(ordered_json::parse(line)).dump() << '\n';
    }
  } catch (const std::exception& error) {  // of nlohmann::json and std::map
    std::cerr << "line " << number << ": " << error.what() << '\n';
    return 1;
  }
  return std::cout.flush() ? 0 : 1;
}

}  // namespace
}  // namespace caravan

int main() {
  std::ios::sync_with_stdio(false);
  return caravan::Run();
}
