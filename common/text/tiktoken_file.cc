// tiktoken's rank file, as published with Llama-3.
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/model_files.h"
#include "common/text/pre_tokenizer.h"

namespace caravan::text {
namespace {

constexpr int kSpecialTokenCount = 256;

// One line without its end: the bytes and their rank.
struct RankLine {
  std::string bytes;
  TokenId rank;
};

std::optional<RankLine> ParseLine(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return std::nullopt;
  RankLine parsed;
  if (!absl::Base64Unescape(ToAbsl(line.substr(0, space)), &parsed.bytes)) {
    return std::nullopt;
  }
  const std::string_view number = line.substr(space + 1);
  const auto [end, error] = std::from_chars(
      number.data(), number.data() + number.size(), parsed.rank);
  if (error != std::errc() || end != number.data() + number.size() ||
      parsed.rank < 0 || parsed.bytes.empty()) {
    return std::nullopt;
  }
  return parsed;
}

// Takes the next line, without its end.
std::string_view TakeLine(std::string_view* rest) {
  const size_t end = rest->find('\n');
  std::string_view line = rest->substr(0, end);
  rest->remove_prefix(end == std::string_view::npos ? rest->size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

absl::Status ReadRanks(std::string_view content, std::string_view file,
                       TokenizerModel* model) {
  int line_number = 0;
  TokenId count = 0;
  while (!content.empty()) {
    ++line_number;
    const std::string_view line = TakeLine(&content);
    if (line.empty()) continue;
    const std::optional<RankLine> parsed = ParseLine(line);
    const auto where = [&] { return StrCat("line ", line_number); };
    if (!parsed) return FileError(file, StrCat(where(), " is no rank"));
    if (parsed->rank >= kMaxVocabularySize - kSpecialTokenCount) {
      return FileError(file, StrCat(where(), " has rank ", parsed->rank,
                                    ", above the limit"));
    }
    if (parsed->bytes.size() > kMaxPieceBytes) {
      return FileError(
          file, StrCat(where(), " has ", parsed->bytes.size(),
                       " bytes; at most ", kMaxPieceBytes, " are allowed"));
    }
    GrowTo(parsed->rank, model);
    if (!model->pieces[parsed->rank].empty()) {
      return FileError(file, StrCat(where(), " repeats rank ", parsed->rank));
    }
    model->pieces[parsed->rank] = parsed->bytes;
    model->vocabulary.tokens[parsed->rank] = {parsed->bytes,
                                              TokenKind::kNormal};
    ++count;
  }
  if (count == 0) return FileError(file, "has no ranks");
  if (count != model->vocabulary.size()) {
    return FileError(file,
                     StrCat("must have all ranks from 0 to ",
                            model->vocabulary.size() - 1, "; has ", count));
  }
  return absl::OkStatus();
}

absl::Status SetPairs(std::string_view file, TokenizerModel* model) {
  absl::flat_hash_map<std::string, TokenId> symbols;
  std::vector<RankedPiece> ranked;
  symbols.reserve(model->pieces.size());
  ranked.reserve(model->pieces.size());
  for (TokenId id = 0; id < model->vocabulary.size(); ++id) {
    const std::string& piece = model->pieces[id];
    if (!symbols.try_emplace(piece, id).second) {
      return FileError(file, StrCat("rank ", id, " repeats bytes"));
    }
    ranked.push_back({id, piece, static_cast<uint32_t>(id)});
  }
  CARAVAN_ASSIGN_OR_RETURN(
      model->merging.pairs,
      PairsOfPieces(ranked, symbols, /*bytes_are_symbols=*/true));
  return absl::OkStatus();
}

// Meta's current names (llama-models).
std::string DefaultName(int index) {
  static constexpr std::array<std::string_view, 12> kNamed = {
      "<|begin_of_text|>",
      "<|end_of_text|>",
      "<|reserved_special_token_0|>",
      "<|reserved_special_token_1|>",
      "<|finetune_right_pad_id|>",
      "<|step_id|>",
      "<|start_header_id|>",
      "<|end_header_id|>",
      "<|eom_id|>",
      "<|eot_id|>",
      "<|python_tag|>",
      "<|image|>",
  };
  constexpr int kCount = static_cast<int>(kNamed.size());
  if (index < kCount) return std::string(kNamed[index]);
  return StrCat("<|reserved_special_token_", index - kCount + 2, "|>");
}

}  // namespace

bool LooksLikeTiktokenRanks(std::string_view content) {
  return ParseLine(TakeLine(&content)).has_value();
}

absl::StatusOr<TokenizerModel> ParseTiktokenRanks(
    std::string_view content, std::string_view file,
    const std::vector<AddedToken>& special_tokens) {
  TokenizerModel model;
  CARAVAN_RETURN_IF_ERROR(ReadRanks(content, file, &model));
  CARAVAN_RETURN_IF_ERROR(SetPairs(file, &model));
  model.patterns = {std::string(kLlama3Pattern)};
  model.merging.bytes_are_symbols = true;
  model.merging.whole_piece_first = true;
  const TokenId first = model.vocabulary.size();
  if (special_tokens.empty()) {
    for (int i = 0; i < kSpecialTokenCount; ++i) {
      AddToken({.name = DefaultName(i), .id = first + i}, &model);
    }
  }
  for (const AddedToken& token : special_tokens) AddToken(token, &model);
  const std::optional<TokenId> bos = FindByName(model, "<|begin_of_text|>");
  const std::optional<TokenId> eos = FindByName(model, "<|end_of_text|>");
  if (!bos || !eos) {
    return FileError(file,
                     "needs <|begin_of_text|> and <|end_of_text|> among "
                     "the special tokens");
  }
  model.vocabulary.bos_id = bos;
  model.vocabulary.eos_ids = {*eos};
  model.prefix_ids = {*bos};
  return model;
}

}  // namespace caravan::text
