// SentencePiece's tokenizer.model: a protobuf ModelProto with a BPE model.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/model_files.h"
#include "common/text/sentencepiece_model.h"
#include "common/text/utf8.h"
#include "common/text/wire_reader.h"

namespace caravan::text {
namespace {

// Reads the protobuf.
class Reader {
 public:
  Reader(std::string_view content, std::string_view file)
      : content_(content), file_(file) {}

  absl::StatusOr<SentencePieceModel> Run() {
    CARAVAN_RETURN_IF_ERROR(Read());
    return std::move(parsed_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return FileError(file_, what);
  }
  absl::Status PieceError(size_t index, std::string_view what) const {
    return Error(StrCat("piece ", index, " ", what));
  }

  absl::Status Torn(const WireReader& reader) const {
    return Error(StrCat("is not a SentencePiece model: broken at byte ",
                        content_.size() - reader.remaining()));
  }

  absl::Status Read() {
    WireReader reader(content_);
    while (reader.Next()) {
      if (reader.field() == 1) {
        CARAVAN_RETURN_IF_ERROR(ReadPiece(reader.bytes()));
      } else if (reader.field() == 2) {
        CARAVAN_RETURN_IF_ERROR(ReadTrainer(reader.bytes()));
      } else if (reader.field() == 3) {
        CARAVAN_RETURN_IF_ERROR(ReadNormalizer(reader.bytes()));
      }
    }
    return reader.ok() ? absl::OkStatus() : Torn(reader);
  }

  absl::Status ReadPiece(std::string_view bytes) {
    const size_t index = parsed_.pieces.size();
    if (index >= kMaxVocabularySize) {
      return Error(StrCat("has more than ", kMaxVocabularySize, " pieces"));
    }
    SentencePiece piece;
    WireReader reader(bytes);
    while (reader.Next()) {
      if (reader.field() == 1) piece.text = std::string(reader.bytes());
      if (reader.field() == 2) piece.score = reader.fixed32();
      if (reader.field() == 3) piece.type = PieceType{reader.varint()};
    }
    if (!reader.ok()) return PieceError(index, "is broken");
    parsed_.pieces.push_back(std::move(piece));
    return absl::OkStatus();
  }

  absl::Status ReadTrainer(std::string_view bytes) {
    WireReader reader(bytes);
    while (reader.Next()) {
      const uint64_t value = reader.varint();
      // Ids are int32, written as 64 bits where they are negative.
      const auto id = static_cast<int64_t>(value);
      if (reader.field() == 3) parsed_.model_type = value;
      if (reader.field() == 24) parsed_.whitespace_as_suffix = value != 0;
      if (reader.field() == 35) parsed_.byte_fallback = value != 0;
      if (reader.field() == 41) parsed_.bos_id = id;
      if (reader.field() == 42) parsed_.eos_id = id;
    }
    return reader.ok() ? absl::OkStatus() : Error("trainer_spec is broken");
  }

  absl::Status ReadNormalizer(std::string_view bytes) {
    WireReader reader(bytes);
    while (reader.Next()) {
      const bool on = reader.varint() != 0;
      if (reader.field() == 2) parsed_.charsmap_bytes = reader.bytes().size();
      if (reader.field() == 3) parsed_.add_dummy_prefix = on;
      if (reader.field() == 4) parsed_.remove_extra_whitespaces = on;
      if (reader.field() == 5) parsed_.escape_whitespaces = on;
    }
    return reader.ok() ? absl::OkStatus() : Error("normalizer_spec is broken");
  }

  std::string_view content_;
  std::string_view file_;
  SentencePieceModel parsed_;
};

// Makes the description that all formats share.
class Builder {
 public:
  Builder(SentencePieceModel parsed, std::string_view file)
      : file_(file), parsed_(std::move(parsed)) {}

  absl::StatusOr<TokenizerModel> Run() {
    CARAVAN_RETURN_IF_ERROR(CheckKind());
    for (size_t i = 0; i < parsed_.pieces.size(); ++i) {
      CARAVAN_RETURN_IF_ERROR(CheckPiece(i));
      CARAVAN_RETURN_IF_ERROR(AddPiece(static_cast<TokenId>(i)));
    }
    AddExtraSymbols();
    SetRules();
    CARAVAN_RETURN_IF_ERROR(SetPairs());
    return std::move(model_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return FileError(file_, what);
  }
  absl::Status PieceError(size_t index, std::string_view what) const {
    return Error(StrCat("piece ", index, " ", what));
  }

  absl::Status CheckKind() const {
    constexpr uint64_t kBpe = 2;
    if (parsed_.pieces.empty()) return Error("has no pieces");
    if (parsed_.model_type != kBpe) {
      return Error(StrCat("has model_type ", parsed_.model_type,
                          "; only BPE (2) is supported"));
    }
    if (parsed_.charsmap_bytes > 0) {
      return Error(
          "has a character map; only the identity normalizer is "
          "supported");
    }
    if (parsed_.whitespace_as_suffix) {
      return Error("treats white space as suffix, which is not supported");
    }
    if (!parsed_.escape_whitespaces) {
      return Error("does not escape white space, which is not supported");
    }
    return absl::OkStatus();
  }

  absl::Status CheckPiece(size_t index) const {
    const SentencePiece& piece = parsed_.pieces[index];
    if (piece.text.empty()) return PieceError(index, "is empty");
    if (piece.text.size() > kMaxPieceBytes) {
      return PieceError(index,
                        StrCat("has ", piece.text.size(), " bytes; at most ",
                               kMaxPieceBytes, " are allowed"));
    }
    if (FirstInvalidUtf8(piece.text)) {
      return PieceError(index, "is not valid UTF-8");
    }
    if (std::isnan(piece.score)) return PieceError(index, "has the score NaN");
    return absl::OkStatus();
  }

  absl::Status AddPiece(TokenId id) {
    const SentencePiece& piece = parsed_.pieces[id];
    GrowTo(id, &model_);
    TokenEntry& token = model_.vocabulary.tokens[id];
    switch (piece.type) {
      case PieceType::kUnknown:
        model_.merging.unknown_id = id;
        AddToken({.name = piece.text, .id = id, .special = true}, &model_);
        return absl::OkStatus();
      case PieceType::kControl:
        AddToken({.name = piece.text, .id = id, .special = true}, &model_);
        return absl::OkStatus();
      case PieceType::kByte:
        return AddByte(id);
      case PieceType::kUserDefined:
        model_.user_defined.push_back(id);
        break;
      case PieceType::kUnused:
        model_.unused.push_back(id);
        break;
      case PieceType::kNormal:
        break;
      default:
        return PieceError(id, StrCat("has the unknown type ",
                                     static_cast<uint64_t>(piece.type)));
    }
    if (!symbols_.try_emplace(piece.text, id).second) {
      return PieceError(id, StrCat("repeats \"", piece.text, "\""));
    }
    model_.pieces[id] = piece.text;
    token = {WithSpaces(piece.text), TokenKind::kNormal};
    return absl::OkStatus();
  }

  absl::Status AddByte(TokenId id) {
    const std::string& text = parsed_.pieces[id].text;
    const auto digit = [&](size_t at) {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      return kDigits.find(text[at]);
    };
    if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>' ||
        digit(3) > 15 || digit(4) > 15) {
      return PieceError(id,
                        StrCat("must be a byte such as <0x0A>; got ", text));
    }
    const auto byte = static_cast<char>(digit(3) * 16 + digit(4));
    model_.vocabulary.tokens[id] = {std::string(1, byte), TokenKind::kByte};
    return absl::OkStatus();
  }

  // Merging begins with characters, also with those that are no piece.
  void AddExtraSymbols() {
    std::set<std::string> extra;
    for (const std::string& piece : model_.pieces) {
      std::string_view rest = piece;
      while (!rest.empty()) {
        const std::string character(rest.substr(0, Utf8Size(rest.front())));
        rest.remove_prefix(character.size());
        if (!symbols_.contains(character)) extra.insert(character);
      }
    }
    for (const std::string& character : extra) {
      const auto id = static_cast<TokenId>(model_.pieces.size() +
                                           model_.merging.extra_symbols.size());
      symbols_[character] = id;
      model_.merging.extra_symbols.push_back(character);
    }
  }

  void SetRules() {
    Normalization& n = model_.normalization;
    n.prefix =
        parsed_.add_dummy_prefix ? PrefixScheme::kAlways : PrefixScheme::kNever;
    n.visible_spaces = true;
    n.collapse_spaces = parsed_.remove_extra_whitespaces;
    model_.merging.byte_fallback = parsed_.byte_fallback;
    model_.merging.fuse_unknown = true;
    model_.vocabulary.strip_leading_space = parsed_.add_dummy_prefix;
    const auto is_control = [&](int64_t id) {
      return id >= 0 && id < model_.vocabulary.size() &&
             parsed_.pieces[id].type == PieceType::kControl;
    };
    if (is_control(parsed_.bos_id)) {
      model_.vocabulary.bos_id = static_cast<TokenId>(parsed_.bos_id);
      model_.prefix_ids = {*model_.vocabulary.bos_id};
    }
    if (is_control(parsed_.eos_id)) {
      model_.vocabulary.eos_ids = {static_cast<TokenId>(parsed_.eos_id)};
    }
  }

  // Pieces of equal score have equal rank.
  absl::Status SetPairs() {
    std::vector<RankedPiece> ranked;
    for (TokenId id = 0; id < model_.vocabulary.size(); ++id) {
      // User-defined pieces are found by name; merging may make them as well.
      const std::string& text = model_.pieces[id];
      if (text.empty()) continue;
      ranked.push_back({id, text, 0});
    }
    const auto score = [&](const RankedPiece& piece) {
      return parsed_.pieces[piece.id].score;
    };
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](const RankedPiece& a, const RankedPiece& b) {
                       return score(a) > score(b);
                     });
    for (size_t i = 1; i < ranked.size(); ++i) {
      ranked[i].rank = ranked[i - 1].rank +
                       (score(ranked[i]) == score(ranked[i - 1]) ? 0 : 1);
    }
    CARAVAN_ASSIGN_OR_RETURN(
        model_.merging.pairs,
        PairsOfPieces(ranked, symbols_, /*bytes_are_symbols=*/false));
    return absl::OkStatus();
  }

  std::string_view file_;
  const SentencePieceModel parsed_;
  TokenizerModel model_;
  absl::flat_hash_map<std::string, TokenId> symbols_;
};

}  // namespace

absl::StatusOr<TokenizerModel> ModelOf(SentencePieceModel parsed,
                                       std::string_view file) {
  return Builder(std::move(parsed), file).Run();
}

absl::StatusOr<TokenizerModel> ParseSentencePiece(std::string_view content,
                                                  std::string_view file) {
  CARAVAN_ASSIGN_OR_RETURN(SentencePieceModel parsed,
                           Reader(content, file).Run());
  return ModelOf(std::move(parsed), file);
}

}  // namespace caravan::text
