#include "common/text/bpe_tokenizer.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/unicode_class.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

constexpr TokenId kNoToken = -1;

// A symbol that takes part in no merge, and back. Ids of tokens and of unknown
// characters are kept apart from merging by being negative.
TokenId Frozen(TokenId id) { return -2 - id; }
TokenId Thawed(TokenId symbol) { return symbol < 0 ? -2 - symbol : symbol; }

bool CanOccurInUtf8(int byte) {
  return byte != 0xC0 && byte != 0xC1 && byte < 0xF5;
}

// Offset of the last character of text[0, end).
size_t LastCharacter(std::string_view text, size_t end) {
  size_t offset = end - 1;
  while (offset > 0 && (text[offset] & 0xC0) == 0x80) --offset;
  return offset;
}

CharClass ClassAt(std::string_view text, size_t offset) {
  return ClassOf(DecodeUtf8(text.substr(offset)).code_point);
}

std::string_view TrimSpaces(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

void AppendWithVisibleSpaces(std::string_view text, std::string* out) {
  for (const char c : text) {
    if (c == ' ') {
      out->append(kVisibleSpace);
    } else {
      out->push_back(c);
    }
  }
}

std::string CollapseSpaces(std::string_view text) {
  std::string out;
  for (const char c : TrimSpaces(text)) {
    if (c != ' ' || out.back() != ' ') out.push_back(c);
  }
  return out;
}

// Beginning of the white space before `end`, not before `begin`.
size_t SkipSpaceBefore(std::string_view text, size_t begin, size_t end) {
  while (end > begin) {
    const size_t last = LastCharacter(text, end);
    if (ClassAt(text, last) != CharClass::kWhiteSpace) break;
    end = last;
  }
  return end;
}

size_t SkipSpaceAfter(std::string_view text, size_t offset) {
  while (offset < text.size() &&
         ClassAt(text, offset) == CharClass::kWhiteSpace) {
    offset += Utf8Size(text[offset]);
  }
  return offset;
}

bool BeginsWithSpace(std::string_view text) {
  return text.front() == ' ' ||
         text.substr(0, kVisibleSpace.size()) == kVisibleSpace;
}

void TrimVisibleSpacesAtEnd(std::string* text) {
  while (std::string_view(*text).ends_with(kVisibleSpace)) {
    text->resize(text->size() - kVisibleSpace.size());
  }
}

// Whether Normalize() would give the text itself.
bool KeepsText(const Normalization& n, bool at_text_start) {
  return !n.collapse_spaces && !n.visible_spaces &&
         (n.prefix == PrefixScheme::kNever ||
          (n.prefix == PrefixScheme::kFirst && !at_text_start));
}

std::string Normalize(const Normalization& n, std::string_view text,
                      bool at_text_start) {
  std::string collapsed;
  if (n.collapse_spaces) {
    collapsed = CollapseSpaces(text);
    text = collapsed;
  }
  if (text.empty()) return "";
  const bool wanted = n.prefix == PrefixScheme::kAlways ||
                      (n.prefix == PrefixScheme::kFirst && at_text_start);
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kVisibleSpace.size());
  if (wanted && !(n.prefix_unless_present && BeginsWithSpace(text))) {
    out.append(n.visible_spaces || n.visible_prefix ? kVisibleSpace : " ");
  }
  if (!n.visible_spaces) {
    out.append(text);
    return out;
  }
  AppendWithVisibleSpaces(text, &out);
  // SentencePiece trims after it has made spaces visible.
  if (n.collapse_spaces) TrimVisibleSpacesAtEnd(&out);
  return out;
}

absl::Status InvalidUtf8At(size_t offset) {
  return MakeError(Reason::kInvalidUtf8,
                   StrCat("text must be valid UTF-8; byte ", offset,
                          " does not belong to a character"),
                   {{"offset", StrCat(offset)}});
}

}  // namespace

BpeTokenizer::BpeTokenizer(TokenizerModel model)
    : model_(std::move(model)), merges_(model_.merging.pairs) {
  byte_ids_.fill(kNoToken);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(
    TokenizerModel model) {
  KeepLastOfEachName(&model.added_tokens);
  std::string id = TokenizerIdOf(model);
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(std::move(model)));
  tokenizer->tokenizer_id_ = std::move(id);
  CARAVAN_RETURN_IF_ERROR(tokenizer->Prepare());
  return tokenizer;
}

absl::Status BpeTokenizer::Prepare() {
  for (const std::string& pattern : model_.patterns) {
    CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<PreTokenizer> pre_tokenizer,
                             PreTokenizer::Create(pattern));
    pre_tokenizers_.push_back(std::move(pre_tokenizer));
  }
  PreparePieces();
  PrepareNames();
  if (model_.merging.bytes_are_symbols) {
    CARAVAN_RETURN_IF_ERROR(PrepareByteSymbols());
  }
  cut_at_spaces_ = MergesStopAtSpaces();
  PrepareNeighbours();
  PrepareWholePieces();
  if (model_.merging.bytes_are_symbols) PrepareFormedCharacters();
  // Only the tables made from them are needed from here on.
  model_.pieces = {};
  model_.merging.pairs = {};
  return absl::OkStatus();
}

absl::Status BpeTokenizer::PrepareByteSymbols() {
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] != kNoToken) continue;
    if (model_.merging.unknown_id) {
      byte_ids_[byte] = Frozen(*model_.merging.unknown_id);
    } else if (CanOccurInUtf8(byte)) {
      return MakeError(Reason::kModelFileInvalid,
                       StrCat("the vocabulary has no token for byte ", byte,
                              " and no unknown token"));
    }
  }
  return absl::OkStatus();
}

void BpeTokenizer::PreparePieces() {
  const bool bytes = model_.merging.bytes_are_symbols;
  for (TokenId id = 0; id < model_.vocabulary.size(); ++id) {
    const TokenEntry& token = model_.vocabulary.tokens[id];
    const std::string& piece = model_.pieces[id];
    if (!bytes && token.kind == TokenKind::kByte) {
      byte_ids_[static_cast<unsigned char>(token.bytes.front())] = id;
      continue;
    }
    if (piece.empty()) continue;
    if (bytes && piece.size() == 1) {
      byte_ids_[static_cast<unsigned char>(piece.front())] = id;
    }
    if (!bytes && Utf8Size(piece.front()) == static_cast<int>(piece.size())) {
      characters_.try_emplace(DecodeUtf8(piece).code_point, id);
    }
  }
  TokenId symbol = model_.vocabulary.size();
  for (const std::string& character : model_.merging.extra_symbols) {
    characters_.try_emplace(DecodeUtf8(character).code_point, symbol++);
  }
  if (bytes) return;
  constexpr uint32_t kLow = 0x10000;
  low_characters_.assign(kLow, kNoToken);
  for (const auto& [code_point, id] : characters_) {
    if (code_point < kLow) low_characters_[code_point] = id;
  }
  has_all_byte_tokens_ = std::ranges::none_of(
      byte_ids_, [](TokenId id) { return id == kNoToken; });
}

void BpeTokenizer::Names::Add(const AddedToken& token, std::string_view name,
                              int32_t index) {
  (token.special ? special : text).Add(name, index);
  begins[static_cast<unsigned char>(name.front())] |= token.special ? 2 : 1;
}

void BpeTokenizer::PrepareNames() {
  for (size_t i = 0; i < model_.added_tokens.size(); ++i) {
    const AddedToken& token = model_.added_tokens[i];
    const auto index = static_cast<int32_t>(i);
    if (!token.normalized) {
      raw_names_.Add(token, token.name, index);
    } else if (!model_.stages) {
      normalized_names_.Add(token, token.name, index);
    } else {
      normalized_names_.Add(token,
                            Normalize(model_.stages->before_names, token.name,
                                      /*at_text_start=*/true),
                            index);
    }
  }
  for (const TokenId id : model_.user_defined) {
    user_defined_.Add(model_.pieces[id], id);
  }
  for (const TokenId id : model_.unused) taken_apart_[id] = {-1, -1, id, 0};
  for (const MergePair& pair : model_.merging.pairs) {
    const auto it = taken_apart_.find(pair.result);
    if (it != taken_apart_.end() && it->second.left < 0) it->second = pair;
  }
}

void BpeTokenizer::PrepareNeighbours() {
  std::vector<TokenId> symbols;
  for (const std::string& piece : model_.pieces) {
    symbols.clear();
    AppendSymbols(piece, &symbols);
    for (size_t i = 1; i < symbols.size(); ++i) {
      neighbours_.Add(symbols[i - 1], symbols[i]);
    }
  }
}

// With formed characters merging may begin with a character or with its bytes,
// at either side of a border.
void BpeTokenizer::PrepareFormedCharacters() {
  formed_.emplace(model_.pieces, model_.merging.pairs, merges_, byte_ids_);
  for (const std::string& piece : model_.pieces) {
    for (size_t i = 1; i < piece.size(); ++i) AddFormedNeighbours(piece, i);
  }
}

// The border at `at` of a piece, where characters meet.
void BpeTokenizer::AddFormedNeighbours(std::string_view piece, size_t at) {
  const auto is_continuation = [&](size_t i) {
    return (piece[i] & 0xC0) == 0x80;
  };
  if (is_continuation(at)) return;
  const auto symbol_of = [&](size_t begin, size_t end) {
    const Utf8Char c = DecodeUtf8(piece.substr(begin, end - begin));
    const bool whole = c.kind == Utf8Char::Kind::kValid &&
                       begin + static_cast<size_t>(c.size) == end;
    return whole ? formed_->SymbolOf(c.code_point) : kNoToken;
  };
  const size_t begin = LastCharacter(piece, at);
  const size_t end =
      std::min(piece.size(), at + static_cast<size_t>(Utf8Size(piece[at])));
  const auto byte = [&](size_t i) {
    return byte_ids_[static_cast<unsigned char>(piece[i])];
  };
  const TokenId left = symbol_of(begin, at);
  const TokenId right = symbol_of(at, end);
  if (left >= 0) neighbours_.Add(left, byte(at));
  if (right >= 0) neighbours_.Add(byte(at - 1), right);
  if (left >= 0 && right >= 0) neighbours_.Add(left, right);
}

void BpeTokenizer::PrepareWholePieces() {
  const auto count = static_cast<size_t>(std::ranges::count_if(
      model_.pieces, [](const std::string& piece) { return !piece.empty(); }));
  whole_pieces_.Reserve(count);
  Symbols symbols;
  std::vector<TokenId> ids;
  for (TokenId id = 0; id < model_.vocabulary.size(); ++id) {
    const std::string& piece = model_.pieces[id];
    if (piece.empty()) continue;
    if (!model_.merging.whole_piece_first) {
      ids.clear();
      MergePiece(piece, &symbols, &ids);
      if (ids.size() != 1 || ids[0] != id) continue;
    }
    whole_pieces_.Add(piece, id);
  }
}

// Unknown characters in a row would be one token across the cut as well, so the
// visible space has to be a symbol.
bool BpeTokenizer::MergesStopAtSpaces() const {
  const uint32_t space = DecodeUtf8(kVisibleSpace).code_point;
  if (!model_.normalization.visible_spaces || !characters_.contains(space)) {
    return false;
  }
  return std::ranges::none_of(model_.pieces, [](std::string_view piece) {
    const size_t first = piece.find_first_not_of(kVisibleSpace);
    return first != std::string_view::npos &&
           piece.find(kVisibleSpace, first) != std::string_view::npos;
  });
}

absl::StatusOr<std::vector<TokenId>> BpeTokenizer::Encode(
    std::string_view text, const EncodeOptions& options) const {
  CARAVAN_ASSIGN_OR_RETURN(
      std::vector<TokenId> ids,
      EncodeJoined(text, {{text.size(), options.allow_special_tokens}},
                   options.word_cache));
  if (options.add_special_tokens) {
    ids.insert(ids.begin(), model_.prefix_ids.begin(), model_.prefix_ids.end());
    ids.insert(ids.end(), model_.suffix_ids.begin(), model_.suffix_ids.end());
  }
  return ids;
}

absl::StatusOr<std::vector<TokenId>> BpeTokenizer::EncodeSpans(
    const std::vector<TextSpan>& spans) const {
  std::string text;
  std::vector<Border> borders;
  for (const TextSpan& span : spans) {
    if (span.text.empty()) continue;
    text.append(span.text);
    const bool allow = span.allow_special_tokens;
    if (!borders.empty() && borders.back().allow_special == allow) {
      borders.pop_back();
    }
    borders.push_back({text.size(), allow});
  }
  return EncodeJoined(text, borders, /*word_cache=*/true);
}

absl::StatusOr<std::vector<TokenId>> BpeTokenizer::EncodeJoined(
    std::string_view text, const std::vector<Border>& borders,
    bool word_cache) const {
  if (const auto invalid = FirstInvalidUtf8(text)) {
    return InvalidUtf8At(*invalid);
  }
  Output out;
  out.ids.reserve(text.size() / 4 + 16);
  // A short text has few words twice.
  constexpr size_t kLeastBytesForCache = 4096;
  if (word_cache && text.size() >= kLeastBytesForCache) out.words.emplace();
  CARAVAN_RETURN_IF_ERROR(ForEachName(
      raw_names_, text, borders,
      [&](size_t begin, size_t end) {
        return EncodeBetweenNames(text, borders, begin, end, &out);
      },
      &out));
  return std::move(out.ids);
}

template <class Between>
absl::Status BpeTokenizer::ForEachName(const Names& names,
                                       std::string_view text,
                                       const std::vector<Border>& borders,
                                       const Between& between,
                                       Output* out) const {
  size_t stretch = 0;  // where what is not yet passed to `between` begins
  size_t offset = names.empty() ? text.size() : 0;
  auto border = borders.begin();
  while (offset < text.size()) {
    while (border->end <= offset) ++border;
    if (names.text.empty() && !border->allow_special) {
      offset = border->end;
      continue;
    }
    if (!names.CanBegin(text[offset], border->allow_special)) {
      ++offset;  // no name begins inside of a character either
      continue;
    }
    size_t size = 0;
    const AddedToken* const token =
        FindAdded(names, text, offset,
                  border->allow_special ? border->end : offset, &size);
    if (token == nullptr) {
      offset += size > 0 ? size : Utf8Size(text[offset]);
      continue;
    }
    CARAVAN_RETURN_IF_ERROR(between(
        stretch,
        token->strip_left ? SkipSpaceBefore(text, stretch, offset) : offset));
    out->ids.push_back(token->id);
    offset += size;
    if (token->strip_right) offset = SkipSpaceAfter(text, offset);
    stretch = offset;
  }
  return between(stretch, text.size());
}

const AddedToken* BpeTokenizer::FindAdded(const Names& names,
                                          std::string_view text, size_t offset,
                                          size_t special_end,
                                          size_t* size) const {
  const AddedToken* best = nullptr;
  const auto consider = [&](const NameMatcher& matcher, size_t end) {
    const auto match = matcher.LongestPrefix(text.substr(offset, end - offset));
    if (!match || match->size <= *size) return;
    best = &model_.added_tokens[match->value];
    *size = match->size;
  };
  *size = 0;
  consider(names.text, text.size());
  consider(names.special, special_end);
  const bool refused = best != nullptr && best->single_word &&
                       !StandsAlone(text, offset, offset + *size);
  return refused ? nullptr : best;
}

bool BpeTokenizer::StandsAlone(std::string_view text, size_t begin,
                               size_t end) const {
  const auto is_word = [&](size_t offset) {
    const CharClass c = ClassAt(text, offset);
    return c == CharClass::kLetter || c == CharClass::kNumber ||
           text[offset] == '_';
  };
  if (begin > 0 && is_word(LastCharacter(text, begin))) return false;
  return end >= text.size() || !is_word(end);
}

// Of the raw text, what lies between the names in it.
absl::Status BpeTokenizer::EncodeBetweenNames(
    std::string_view text, const std::vector<Border>& borders, size_t begin,
    size_t end, Output* out) const {
  const std::string_view raw = text.substr(begin, end - begin);
  const bool at_start = begin == 0;
  if (normalized_names_.empty() || raw.empty()) {
    return EncodeStretch(model_.normalization, raw, at_start, out);
  }
  std::string changed;
  std::string_view normal = raw;
  if (model_.stages && !KeepsText(model_.stages->before_names, at_start)) {
    changed = Normalize(model_.stages->before_names, raw, at_start);
    normal = changed;
  }
  const Normalization& rest =
      model_.stages ? model_.stages->after_names : model_.normalization;
  return ForEachName(
      normalized_names_, normal,
      BordersInside(text, borders, begin, end, normal),
      [&](size_t from, size_t to) {
        return EncodeStretch(rest, normal.substr(from, to - from),
                             at_start && from == 0, out);
      },
      out);
}

// Where the borders of `text` are in `normal`, which its part from `begin`
// became; there each byte became one, or a space a visible one, after a prefix
// that belongs to the first character.
std::vector<BpeTokenizer::Border> BpeTokenizer::BordersInside(
    std::string_view text, const std::vector<Border>& borders, size_t begin,
    size_t end, std::string_view normal) {
  const size_t raw = end - begin;
  const bool visible = normal.find(' ') == std::string_view::npos;
  const auto grown = [&](size_t from, size_t to) {
    const auto spaces = std::count(text.begin() + from, text.begin() + to, ' ');
    return visible ? static_cast<size_t>(spaces) * (kVisibleSpace.size() - 1)
                   : 0;
  };
  size_t shift = normal.size() - raw - grown(begin, end);
  std::vector<Border> inside;
  auto border =
      std::upper_bound(borders.begin(), borders.end(), begin,
                       [](size_t at, const Border& b) { return at < b.end; });
  for (size_t at = begin; at < end; ++border) {
    const size_t stop = std::min(border->end, end);
    shift += grown(at, stop);
    at = stop;
    inside.push_back({stop - begin + shift, border->allow_special});
  }
  return inside;
}

absl::Status BpeTokenizer::EncodeStretch(const Normalization& normalization,
                                         std::string_view text,
                                         bool at_text_start,
                                         Output* out) const {
  if (text.empty()) return absl::OkStatus();
  if (KeepsText(normalization, at_text_start)) {
    return EncodeNormalized(text, out);
  }
  return EncodeNormalized(Normalize(normalization, text, at_text_start), out);
}

// In batches, so that the list of pieces stays in the cache.
absl::Status BpeTokenizer::EncodeNormalized(std::string_view text,
                                            Output* out) const {
  constexpr size_t kBatch = 512;
  const bool at_spaces = model_.normalization.split_at_spaces;
  if (pre_tokenizers_.size() > (at_spaces ? 0 : 1)) {
    CARAVAN_RETURN_IF_ERROR(SplitByAll(text, out));
    EncodePieces(out);
    return absl::OkStatus();
  }
  if (pre_tokenizers_.empty()) {
    SplitAtSpaces(text, out);
    return absl::OkStatus();
  }
  for (size_t start = 0; start < text.size();) {
    CARAVAN_ASSIGN_OR_RETURN(start, pre_tokenizers_[0]->SplitSome(
                                        text, start, kBatch, &out->pieces));
    EncodePieces(out);
  }
  return absl::OkStatus();
}

// Encodes what lies between visible spaces, where a tokenizer cuts there, or
// cutting there makes no difference.
void BpeTokenizer::SplitAtSpaces(std::string_view text, Output* out) const {
  const bool every = model_.normalization.split_at_spaces;
  if (!every && !cut_at_spaces_) return EncodePiece(text, out);
  const auto is_space = [&](size_t at) {
    return text.compare(at, kVisibleSpace.size(), kVisibleSpace) == 0;
  };
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    // Runs of spaces stay together where only the merges decide.
    while (!every && end < text.size() && is_space(end)) {
      end += kVisibleSpace.size();
    }
    end = std::min(text.find(kVisibleSpace, std::max(end, begin + 1)),
                   text.size());
    EncodePiece(text.substr(begin, end - begin), out);
    begin = end;
  }
}

// All pre-tokenizers, one after the other.
absl::Status BpeTokenizer::SplitByAll(std::string_view text,
                                      Output* out) const {
  std::vector<std::string_view> pieces = {text};
  if (model_.normalization.split_at_spaces) {
    pieces.clear();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end =
          std::min(text.find(kVisibleSpace, begin + 1), text.size());
      pieces.push_back(text.substr(begin, end - begin));
      begin = end;
    }
  }
  for (const auto& pre_tokenizer : pre_tokenizers_) {
    std::vector<std::string_view> finer;
    for (const std::string_view piece : pieces) {
      CARAVAN_RETURN_IF_ERROR(pre_tokenizer->Split(piece, &finer));
    }
    pieces = std::move(finer);
  }
  out->pieces = std::move(pieces);
  return absl::OkStatus();
}

void BpeTokenizer::EncodePieces(Output* out) const {
  for (const std::string_view piece : out->pieces) EncodePiece(piece, out);
  out->pieces.clear();
}

void BpeTokenizer::EncodePiece(std::string_view piece, Output* out) const {
  const TokenId whole = whole_pieces_.Find(piece);
  if (whole >= 0) {
    out->ids.push_back(whole);
    return;
  }
  if (!out->words || piece.size() > PieceKey::kInlineBytes) {
    MergePiece(piece, &out->symbols, &out->ids);
    return;
  }
  const PieceKey key(piece);
  const std::span<const TokenId> known = out->words->Find(key);
  if (!known.empty()) {
    out->ids.insert(out->ids.end(), known.begin(), known.end());
    return;
  }
  const size_t before = out->ids.size();
  MergePiece(piece, &out->symbols, &out->ids);
  out->words->Put(key, std::span(out->ids).subspan(before));
}

void BpeTokenizer::MergePiece(std::string_view piece, Symbols* symbols,
                              std::vector<TokenId>* ids) const {
  symbols->ids.clear();
  AppendSymbols(piece, &symbols->ids);
  const std::span<TokenId> all(symbols->ids);
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin + 1;
    while (end < all.size() && neighbours_.MayHave(all[end - 1], all[end])) {
      ++end;
    }
    const std::span<TokenId> run = all.subspan(begin, end - begin);
    size_t count = 0;
    merges_.Apply(run, &symbols->scratch, &count);
    for (const TokenId symbol : run.first(count)) AppendResult(symbol, ids);
    begin = end;
  }
}

TokenId BpeTokenizer::SymbolOf(uint32_t code_point) const {
  if (code_point < low_characters_.size()) return low_characters_[code_point];
  const auto found = characters_.find(code_point);
  return found == characters_.end() ? kNoToken : found->second;
}

void BpeTokenizer::AppendSymbols(std::string_view piece,
                                 std::vector<TokenId>* symbols) const {
  symbols->reserve(piece.size());
  if (model_.merging.bytes_are_symbols) {
    if (formed_) return formed_->AppendSymbols(piece, byte_ids_, symbols);
    for (const char c : piece) {
      symbols->push_back(byte_ids_[static_cast<unsigned char>(c)]);
    }
    return;
  }
  while (!piece.empty()) {
    if (!user_defined_.empty()) {
      if (const auto match = user_defined_.LongestPrefix(piece)) {
        symbols->push_back(Frozen(match->value));
        piece.remove_prefix(match->size);
        continue;
      }
    }
    int size = 0;
    const TokenId known = SymbolOf(DecodeValidUtf8(piece.data(), &size));
    if (known >= 0) {
      symbols->push_back(known);
    } else {
      AppendUnknown(piece.substr(0, size), symbols);
    }
    piece.remove_prefix(size);
  }
}

void BpeTokenizer::AppendUnknown(std::string_view character,
                                 std::vector<TokenId>* symbols) const {
  const auto id_of = [&](char c) {
    return byte_ids_[static_cast<unsigned char>(c)];
  };
  const bool fallback =
      model_.merging.byte_fallback &&
      (has_all_byte_tokens_ ||
       std::all_of(character.begin(), character.end(),
                   [&](char c) { return id_of(c) != kNoToken; }));
  if (fallback) {
    for (const char c : character) symbols->push_back(Frozen(id_of(c)));
    return;
  }
  if (!model_.merging.unknown_id) return;
  const TokenId unknown = Frozen(*model_.merging.unknown_id);
  const bool fused = model_.merging.fuse_unknown && !symbols->empty() &&
                     symbols->back() == unknown;
  if (!fused) symbols->push_back(unknown);
}

void BpeTokenizer::AppendResult(TokenId symbol,
                                std::vector<TokenId>* ids) const {
  const TokenId id = Thawed(symbol);
  if (taken_apart_.empty() && id < model_.vocabulary.size()) {
    ids->push_back(id);
    return;
  }
  if (id >= model_.vocabulary.size()) {
    const size_t index = id - model_.vocabulary.size();
    std::vector<TokenId> unknown;
    AppendUnknown(model_.merging.extra_symbols[index], &unknown);
    for (const TokenId part : unknown) ids->push_back(Thawed(part));
    return;
  }
  const auto apart = taken_apart_.find(id);
  if (apart == taken_apart_.end() || apart->second.left < 0) {
    ids->push_back(id);
    return;
  }
  AppendResult(apart->second.left, ids);
  AppendResult(apart->second.right, ids);
}

}  // namespace caravan::text
