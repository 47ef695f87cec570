// GGUF files with the vocabularies of other files, as converters write them.
#ifndef CARAVAN_TESTS_COMMON_TEXT_GGUF_MODELS_H_
#define CARAVAN_TESTS_COMMON_TEXT_GGUF_MODELS_H_

#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/gguf/gguf_writer.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"

namespace caravan::text {

// Kinds of tokens in GGUF files.
enum GgufKind : int32_t {
  kGgufNormal = 1,
  kGgufUnknown = 2,
  kGgufControl = 3,
  kGgufByte = 6,
};

// The piece of a SentencePiece token, with visible spaces.
inline std::string PieceOf(const TokenEntry& token) {
  if (token.kind == TokenKind::kByte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>",
                  static_cast<unsigned char>(token.bytes[0]));
    return name;
  }
  std::string piece;
  for (const char c : token.bytes) {
    if (c == ' ') {
      piece += "\xE2\x96\x81";
    } else {
      piece += c;
    }
  }
  return piece;
}

// As in Llama-2: the order of ids, but for runs of spaces, which merge
// last.
inline float ScoreOf(const TokenEntry& token, size_t id) {
  if (token.kind != TokenKind::kNormal) return 0;
  const bool spaces = token.bytes.size() > 1 &&
                      token.bytes.find_first_not_of(' ') == std::string::npos;
  return spaces ? -1e9f : -static_cast<float>(id);
}

// A vocabulary with Llama-2's scores, and rows of padding behind it.
inline std::string SentencePieceGguf(const Tokenizer& tokenizer, int padding) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> kinds;
  for (const TokenEntry& token : tokenizer.vocabulary().tokens) {
    kinds.push_back(token.kind == TokenKind::kSpecial
                        ? (tokens.empty() ? kGgufUnknown : kGgufControl)
                    : token.kind == TokenKind::kByte ? kGgufByte
                                                     : kGgufNormal);
    scores.push_back(ScoreOf(token, tokens.size()));
    tokens.push_back(PieceOf(token));
  }
  for (int i = 0; i < padding; ++i) {
    tokens.push_back("[PAD" + std::to_string(tokens.size()) + "]");
    scores.push_back(-10000);
    kinds.push_back(5);
  }
  gguf::HeaderWriter writer;
  writer.Add("general.architecture", "llama");
  writer.Add("tokenizer.ggml.model", "llama");
  writer.Add("tokenizer.ggml.pre", "default");
  writer.Add("tokenizer.ggml.tokens", tokens);
  writer.Add("tokenizer.ggml.scores", scores);
  writer.Add("tokenizer.ggml.token_type", kinds);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{2});
  writer.Add("tokenizer.chat_template", "{{ bos_token }}{{ messages }}");
  return writer.Header();
}

// The byte-level vocabulary of a tokenizer.json.
inline std::string ByteLevelGguf(const nlohmann::json& tokenizer,
                                 const std::string& pre) {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  const auto put = [&](const std::string& name, size_t id, int32_t kind) {
    if (id >= tokens.size()) {
      tokens.resize(id + 1);
      kinds.resize(id + 1, kGgufNormal);
    }
    tokens[id] = name;
    kinds[id] = kind;
  };
  const nlohmann::json& model = tokenizer["model"];
  for (const auto& [piece, id] : model["vocab"].items()) {
    put(piece, id.get<size_t>(), kGgufNormal);
  }
  for (const nlohmann::json& token : tokenizer["added_tokens"]) {
    put(token["content"], token["id"].get<size_t>(), kGgufControl);
  }
  std::vector<std::string> merges;
  for (const nlohmann::json& merge : model["merges"]) {
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : merge[0].get<std::string>() + " " +
                                             merge[1].get<std::string>());
  }
  gguf::HeaderWriter writer;
  writer.Add("general.architecture", "llama");
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", pre);
  writer.Add("tokenizer.ggml.tokens", tokens);
  writer.Add("tokenizer.ggml.token_type", kinds);
  writer.Add("tokenizer.ggml.merges", merges);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{128000});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{128001});
  return writer.Header();
}

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_COMMON_TEXT_GGUF_MODELS_H_
