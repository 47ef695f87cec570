// tokenizer.json of Hugging Face's tokenizers library.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/json_reader.h"
#include "common/text/model_files.h"
#include "common/text/piece_table.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

constexpr size_t kMaxMerges = 1 << 23;
constexpr size_t kMaxAddedTokens = 1 << 16;
constexpr int kMaxSteps = 16;  // of a Sequence

// Code point of a byte in GPT-2's alphabet, which has no control characters.
uint32_t AlphabetOf(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  if (printable(byte)) return byte;
  uint32_t others = 0;
  for (int b = 0; b < byte; ++b) others += printable(b) ? 0 : 1;
  return 0x100 + others;
}

// The two parts of the file that have most of its entries.
struct LargeParts {
  struct Merge {
    std::string text;                      // "left right"
    size_t left_size = std::string::npos;  // npos: not a pair of pieces
  };
  std::vector<std::pair<std::string, nlohmann::json>> vocab;
  std::vector<Merge> merges;
};

// Keeps model.vocab and model.merges out of the tree, where they are empty.
class FileReader final : public JsonTreeBuilder {
 public:
  explicit FileReader(LargeParts* parts) : parts_(*parts) {}

  bool key(string_t& value) override {
    if (part_ == Part::kNone) return JsonTreeBuilder::key(value);
    if (inside_ == 1) name_ = std::move(value);
    return true;
  }
  bool start_object(size_t size) override {
    if (part_ != Part::kNone) return Inner(/*may_be_pair=*/false);
    if (IsPart("vocab")) return BeginPart(Part::kVocab, json::object());
    const bool model = open_count() == 1 && member() == "model";
    in_model_ = in_model_ || model;
    return JsonTreeBuilder::start_object(size);
  }
  bool start_array(size_t size) override {
    if (part_ != Part::kNone) return Inner(/*may_be_pair=*/inside_ == 1);
    if (IsPart("merges")) return BeginPart(Part::kMerges, json::array());
    return JsonTreeBuilder::start_array(size);
  }
  bool end_object() override { return End(); }
  bool end_array() override { return End(); }

 private:
  using json = nlohmann::json;
  static constexpr int kNeverPair = 3;
  enum class Part : uint8_t { kNone, kVocab, kMerges };

  bool IsPart(std::string_view name) const {
    return in_model_ && open_count() == 2 && member() == name;
  }
  bool BeginPart(Part part, json empty) {
    part_ = part;
    inside_ = 1;
    return Put(std::move(empty)) && Enter();
  }
  // An object or array among the entries of a part.
  bool Inner(bool may_be_pair) {
    if (inside_ == 1 && !AddEntry(json::array())) return false;
    pieces_ = may_be_pair ? 0 : kNeverPair;
    ++inside_;
    return Enter();
  }
  bool End() {
    if (part_ == Part::kNone) {
      if (open_count() == 2) in_model_ = false;
      return Close();
    }
    Leave();
    if (--inside_ == 0) part_ = Part::kNone;
    if (inside_ == 1 && part_ == Part::kMerges && pieces_ != 2) {
      parts_.merges.back().left_size = std::string::npos;
    }
    return true;
  }
  bool Value(json value) override {
    if (part_ == Part::kNone) return Put(std::move(value));
    if (inside_ == 1) return AddEntry(std::move(value));
    if (part_ == Part::kMerges) AddHalf(inside_ == 2, value);
    return true;
  }

  bool AddEntry(json value) {
    if (part_ == Part::kVocab) {
      if (parts_.vocab.size() > size_t{kMaxVocabularySize}) {
        return Fail(
            StrCat("vocab has more than ", kMaxVocabularySize, " entries"));
      }
      parts_.vocab.emplace_back(std::move(name_), std::move(value));
      return true;
    }
    if (parts_.merges.size() >= kMaxMerges) {
      return Fail(StrCat("merges must have at most ", kMaxMerges, " entries"));
    }
    LargeParts::Merge& merge = parts_.merges.emplace_back();
    if (value.is_string()) {
      merge.text = std::move(value.get_ref<std::string&>());
      merge.left_size = merge.text.find(' ');
    }
    return true;
  }

  // One element of ["left", "right"].
  void AddHalf(bool direct, const json& value) {
    LargeParts::Merge& merge = parts_.merges.back();
    if (!direct || !value.is_string()) pieces_ = kNeverPair;
    if (++pieces_ > 2) return;
    if (pieces_ == 2) {
      merge.left_size = merge.text.size();
      merge.text += ' ';
    }
    merge.text += value.get_ref<const std::string&>();
  }

  LargeParts& parts_;
  Part part_ = Part::kNone;
  int inside_ = 0;  // levels, of the part
  bool in_model_ = false;
  std::string name_;  // of the entry of vocab that comes next
  int pieces_ = 0;    // of the merge that is read
};

// Parses the whole file; one member function for each section.
class Parser {
 public:
  Parser(JsonReader root, LargeParts parts)
      : root_(std::move(root)), parts_(std::move(parts)) {}

  absl::StatusOr<TokenizerModel> Parse() {
    CARAVAN_RETURN_IF_ERROR(ParsePreTokenizer());
    CARAVAN_RETURN_IF_ERROR(ParseModel());
    CARAVAN_RETURN_IF_ERROR(ParseAddedTokens());
    CARAVAN_RETURN_IF_ERROR(ParseNormalizer());
    CARAVAN_RETURN_IF_ERROR(ParseDecoder());
    CARAVAN_RETURN_IF_ERROR(ParsePostProcessor());
    return std::move(model_);
  }

 private:
  // The steps of a section: none for null, several for a Sequence.
  absl::StatusOr<std::vector<JsonReader>> Steps(const char* section,
                                                const char* list) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader step, root_.Get(section));
    if (step.is_null()) return std::vector<JsonReader>();
    CARAVAN_ASSIGN_OR_RETURN(const std::string type, step.StringOr("type", ""));
    if (type != "Sequence") return std::vector<JsonReader>{step};
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader steps, step.Get(list));
    CARAVAN_ASSIGN_OR_RETURN(std::vector<JsonReader> elements,
                             steps.Elements());
    if (elements.size() > kMaxSteps) {
      return steps.Error(StrCat("must have at most ", kMaxSteps,
                                " entries; got ", elements.size()));
    }
    return elements;
  }

  static absl::Status Unsupported(const JsonReader& step,
                                  std::string_view type) {
    return step.Error(
        StrCat("has type \"", type, "\", which is not supported"));
  }

  absl::Status ParsePreTokenizer() {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> steps,
                             Steps("pre_tokenizer", "pretokenizers"));
    for (const JsonReader& step : steps) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string type,
                               step.StringOr("type", ""));
      if (type == "Split") {
        CARAVAN_RETURN_IF_ERROR(ParseSplit(step));
      } else if (type == "ByteLevel") {
        CARAVAN_RETURN_IF_ERROR(ParseByteLevel(step));
      } else if (type == "Metaspace") {
        CARAVAN_RETURN_IF_ERROR(ParseMetaspace(step));
      } else if (type == "Digits") {
        CARAVAN_ASSIGN_OR_RETURN(const bool each,
                                 step.BoolOr("individual_digits", false));
        model_.patterns.push_back(each ? R"(\p{N})" : R"(\p{N}+)");
      } else {
        return Unsupported(step, type);
      }
    }
    return absl::OkStatus();
  }

  absl::Status ParseSplit(const JsonReader& step) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string behavior,
                             step.StringOr("behavior", ""));
    if (behavior != "Isolated") {
      return step.Error(
          StrCat("has behavior \"", behavior, "\", which is not supported"));
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader pattern, step.Get("pattern"));
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader regex, pattern.Get("Regex"));
    if (!regex.is_null()) {
      CARAVAN_ASSIGN_OR_RETURN(std::string text, regex.String());
      model_.patterns.push_back(std::move(text));
      return absl::OkStatus();
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader literal, pattern.Get("String"));
    CARAVAN_ASSIGN_OR_RETURN(const std::string text, literal.String());
    if (text.find("\\E") != std::string::npos) {
      return literal.Error("must not contain \\E");
    }
    model_.patterns.push_back(StrCat("\\Q", text, "\\E"));
    return absl::OkStatus();
  }

  absl::Status ParseByteLevel(const JsonReader& step) {
    model_.merging.bytes_are_symbols = true;
    CARAVAN_ASSIGN_OR_RETURN(const bool use_regex,
                             step.BoolOr("use_regex", true));
    if (use_regex) model_.patterns.emplace_back(kGpt2Pattern);
    CARAVAN_ASSIGN_OR_RETURN(const bool add_prefix_space,
                             step.BoolOr("add_prefix_space", true));
    if (add_prefix_space) {
      model_.normalization.prefix = PrefixScheme::kAlways;
      model_.normalization.prefix_unless_present = true;
    }
    return absl::OkStatus();
  }

  absl::Status ParseMetaspace(const JsonReader& step) {
    Normalization& n = model_.normalization;
    n.visible_spaces = true;
    n.prefix_unless_present = true;
    CARAVAN_ASSIGN_OR_RETURN(const std::string replacement,
                             step.StringOr("replacement", kVisibleSpace));
    if (replacement != kVisibleSpace) {
      return step.Error("must have the replacement U+2581");
    }
    CARAVAN_ASSIGN_OR_RETURN(const bool add,
                             step.BoolOr("add_prefix_space", true));
    CARAVAN_ASSIGN_OR_RETURN(
        const std::string scheme,
        step.StringOr("prepend_scheme", add ? "always" : "never"));
    if (scheme == "always") {
      n.prefix = PrefixScheme::kAlways;
    } else if (scheme == "first") {
      n.prefix = PrefixScheme::kFirst;
    } else if (scheme != "never") {
      return step.Error(StrCat("has prepend_scheme \"", scheme,
                               "\"; known are always, first and never"));
    }
    CARAVAN_ASSIGN_OR_RETURN(n.split_at_spaces, step.BoolOr("split", true));
    return absl::OkStatus();
  }

  absl::Status ParseModel() {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader bpe, root_.Get("model"));
    CARAVAN_ASSIGN_OR_RETURN(const std::string type,
                             bpe.StringOr("type", "BPE"));
    if (type != "BPE") return Unsupported(bpe, type);
    for (const char* const affix :
         {"continuing_subword_prefix", "end_of_word_suffix"}) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string text, bpe.StringOr(affix, ""));
      if (!text.empty()) {
        return bpe.Error(StrCat(affix, " must be empty; got \"", text, "\""));
      }
    }
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader dropout, bpe.Get("dropout"));
    if (!dropout.is_null() && dropout.value() != 0) {
      return dropout.Error("must be null: encoding is not random");
    }
    Merging& merging = model_.merging;
    CARAVAN_ASSIGN_OR_RETURN(merging.whole_piece_first,
                             bpe.BoolOr("ignore_merges", false));
    CARAVAN_ASSIGN_OR_RETURN(merging.byte_fallback,
                             bpe.BoolOr("byte_fallback", false));
    CARAVAN_ASSIGN_OR_RETURN(merging.fuse_unknown,
                             bpe.BoolOr("fuse_unk", false));
    CARAVAN_RETURN_IF_ERROR(ParseVocabulary(bpe));
    CARAVAN_RETURN_IF_ERROR(ParseUnknown(bpe));
    return ParseMerges(bpe);
  }

  absl::Status ParseVocabulary(const JsonReader& bpe) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader vocab, bpe.Get("vocab"));
    if (!vocab.value().is_object()) return vocab.Error("must be an object");
    ids_.Reserve(parts_.vocab.size());
    for (const auto& [piece, id] : parts_.vocab) {
      const JsonReader entry(id, "", "");
      const absl::StatusOr<int64_t> number =
          entry.Integer(0, kMaxVocabularySize - 1);
      if (!number.ok()) {
        return vocab.Error(
            StrCat("[\"", piece, "\"]", ToStd(number.status().message())));
      }
      CARAVAN_RETURN_IF_ERROR(
          AddPiece(vocab, piece, static_cast<TokenId>(*number)));
    }
    return absl::OkStatus();
  }

  absl::Status AddPiece(const JsonReader& vocab, const std::string& piece,
                        TokenId id) {
    if (piece.empty()) return vocab.Error("has an empty piece");
    if (piece.size() > kMaxPieceBytes) {
      return vocab.Error(StrCat("has a piece of ", piece.size(),
                                " bytes; at most ", kMaxPieceBytes,
                                " are allowed"));
    }
    if (ids_.Find(piece) >= 0) {
      return vocab.Error(StrCat("repeats the piece \"", piece, "\""));
    }
    GrowTo(id, &model_);
    TokenEntry& entry = model_.vocabulary.tokens[id];
    if (entry.kind != TokenKind::kUnused) {
      return vocab.Error(StrCat("gives id ", id, " to two pieces"));
    }
    entry.kind = TokenKind::kNormal;
    ids_.Add(piece, id);
    if (model_.merging.bytes_are_symbols) {
      const std::optional<std::string> bytes = FromByteAlphabet(piece);
      entry.bytes = bytes.value_or(piece);
      model_.pieces[id] = bytes.value_or("");
    } else if (const auto byte = ByteOfFallback(piece)) {
      entry = {std::string(1, *byte), TokenKind::kByte};
    } else {
      entry.bytes = piece;
      model_.pieces[id] = piece;
    }
    return absl::OkStatus();
  }

  // The byte that "<0x0A>" stands for, with byte fallback.
  std::optional<char> ByteOfFallback(std::string_view piece) const {
    const auto digit = [](char c) {
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    if (!model_.merging.byte_fallback || piece.size() != 6 ||
        piece.substr(0, 3) != "<0x" || piece[5] != '>' || digit(piece[3]) < 0 ||
        digit(piece[4]) < 0) {
      return std::nullopt;
    }
    return static_cast<char>(digit(piece[3]) * 16 + digit(piece[4]));
  }

  absl::Status ParseUnknown(const JsonReader& bpe) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string unknown,
                             bpe.StringOr("unk_token", ""));
    if (unknown.empty()) return absl::OkStatus();
    const TokenId id = ids_.Find(unknown);
    if (id < 0) {
      return bpe.Error(StrCat("unk_token \"", unknown, "\" is not in vocab"));
    }
    model_.merging.unknown_id = id;
    return absl::OkStatus();
  }

  absl::Status ParseMerges(const JsonReader& bpe) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader merges, bpe.Get("merges"));
    if (!merges.value().is_array()) return merges.Error("must be an array");
    model_.merging.pairs.reserve(parts_.merges.size());
    uint32_t rank = 0;
    for (const LargeParts::Merge& merge : parts_.merges) {
      CARAVAN_RETURN_IF_ERROR(AddMerge(merges, merge, rank));
      ++rank;
    }
    return absl::OkStatus();
  }

  absl::Status AddMerge(const JsonReader& merges,
                        const LargeParts::Merge& merge, uint32_t rank) {
    const auto where = [&] { return StrCat("[", rank, "]"); };
    const std::string_view text = merge.text;
    if (merge.left_size == std::string::npos || merge.left_size == 0 ||
        merge.left_size + 1 == text.size()) {
      return merges.Error(StrCat(where(), " must be a pair of pieces"));
    }
    const std::string_view left = text.substr(0, merge.left_size);
    const std::string_view right = text.substr(merge.left_size + 1);
    const TokenId l = ids_.Find(left);
    const TokenId r = ids_.Find(right);
    joined_.assign(left).append(right);
    const TokenId result = ids_.Find(joined_);
    if (l < 0 || r < 0 || result < 0) {
      return merges.Error(
          StrCat(where(), " names or makes a piece that is not in vocab"));
    }
    model_.merging.pairs.push_back({l, r, result, rank});
    return absl::OkStatus();
  }

  absl::Status ParseAddedTokens() {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader list, root_.Get("added_tokens"));
    if (list.is_null()) return absl::OkStatus();
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> entries,
                             list.Elements());
    if (entries.size() > kMaxAddedTokens) {
      return list.Error(StrCat("must have at most ", kMaxAddedTokens,
                               " entries; got ", entries.size()));
    }
    for (const JsonReader& entry : entries) {
      CARAVAN_RETURN_IF_ERROR(ParseAddedToken(entry));
    }
    return absl::OkStatus();
  }

  absl::Status ParseAddedToken(const JsonReader& entry) {
    AddedToken token;
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader id, entry.Get("id"));
    CARAVAN_ASSIGN_OR_RETURN(const int64_t number,
                             id.Integer(0, kMaxVocabularySize - 1));
    token.id = static_cast<TokenId>(number);
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader content, entry.Get("content"));
    CARAVAN_ASSIGN_OR_RETURN(token.name, content.String());
    if (token.name.empty() || token.name.size() > kMaxAddedTokenBytes) {
      return content.Error(StrCat("must have 1 to ", kMaxAddedTokenBytes,
                                  " bytes; got ", token.name.size()));
    }
    CARAVAN_ASSIGN_OR_RETURN(token.special, entry.BoolOr("special", false));
    CARAVAN_ASSIGN_OR_RETURN(token.normalized,
                             entry.BoolOr("normalized", !token.special));
    CARAVAN_ASSIGN_OR_RETURN(token.single_word,
                             entry.BoolOr("single_word", false));
    CARAVAN_ASSIGN_OR_RETURN(token.strip_left, entry.BoolOr("lstrip", false));
    CARAVAN_ASSIGN_OR_RETURN(token.strip_right, entry.BoolOr("rstrip", false));
    AddToken(std::move(token), &model_);
    return absl::OkStatus();
  }

  absl::Status ParseNormalizer() {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> steps,
                             Steps("normalizer", "normalizers"));
    if (steps.empty()) return CheckPrefix();
    TokenizerModel::Stages stages;
    stages.after_names = model_.normalization;
    Normalization& before = stages.before_names;
    for (const JsonReader& step : steps) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string type,
                               step.StringOr("type", ""));
      if (type == "Prepend") {
        CARAVAN_ASSIGN_OR_RETURN(const std::string prepend,
                                 step.StringOr("prepend", ""));
        if (prepend != kVisibleSpace) return step.Error("must prepend U+2581");
        before.prefix = PrefixScheme::kAlways;
        before.visible_prefix = true;
      } else if (type == "Replace") {
        CARAVAN_RETURN_IF_ERROR(ParseReplace(step, " ", kVisibleSpace));
        before.visible_spaces = true;
      } else {
        return Unsupported(step, type);
      }
    }
    Normalization& both = model_.normalization;
    both.visible_spaces |= before.visible_spaces;
    if (before.prefix != PrefixScheme::kNever) {
      if (both.prefix != PrefixScheme::kNever && !both.visible_spaces) {
        return root_.Error("normalizer and pre_tokenizer both have a prefix");
      }
      both.prefix = before.prefix;
      both.visible_prefix = true;
      both.prefix_unless_present = false;
    }
    model_.stages = stages;
    return CheckPrefix();
  }

  absl::Status CheckPrefix() const {
    const Normalization& n = model_.normalization;
    const bool plain_prefix = model_.merging.bytes_are_symbols;
    if (n.prefix != PrefixScheme::kNever && !n.visible_spaces &&
        !plain_prefix) {
      return root_.Error("normalizer prepends U+2581 but keeps spaces");
    }
    return absl::OkStatus();
  }

  // A Replace step, which must be this one.
  static absl::Status ParseReplace(const JsonReader& step,
                                   std::string_view from, std::string_view to) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader pattern, step.Get("pattern"));
    CARAVAN_ASSIGN_OR_RETURN(const std::string what,
                             pattern.StringOr("String", ""));
    CARAVAN_ASSIGN_OR_RETURN(const std::string content,
                             step.StringOr("content", ""));
    if (what == from && content == to) return absl::OkStatus();
    return step.Error(StrCat("must replace \"", from, "\" by \"", to,
                             "\"; other replacements are not supported"));
  }

  absl::Status ParseDecoder() {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> steps,
                             Steps("decoder", "decoders"));
    bool visible_spaces = false;
    for (const JsonReader& step : steps) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string type,
                               step.StringOr("type", ""));
      if (type == "Replace") {
        CARAVAN_RETURN_IF_ERROR(ParseReplace(step, kVisibleSpace, " "));
        visible_spaces = true;
      } else if (type == "Metaspace") {
        visible_spaces = true;
        model_.vocabulary.strip_leading_space =
            model_.normalization.prefix != PrefixScheme::kNever;
      } else if (type == "Strip") {
        CARAVAN_RETURN_IF_ERROR(ParseStrip(step));
      } else if (type != "ByteLevel" && type != "ByteFallback" &&
                 type != "Fuse") {
        return Unsupported(step, type);
      }
    }
    if (visible_spaces) DecodeVisibleSpaces();
    return absl::OkStatus();
  }

  absl::Status ParseStrip(const JsonReader& step) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string content,
                             step.StringOr("content", ""));
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader start, step.Get("start"));
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader stop, step.Get("stop"));
    if (content != " " || start.value() != 1 || stop.value() != 0) {
      return step.Error("must strip one space at the start");
    }
    model_.vocabulary.strip_leading_space = true;
    return absl::OkStatus();
  }

  void DecodeVisibleSpaces() {
    for (TokenEntry& token : model_.vocabulary.tokens) {
      if (token.kind != TokenKind::kNormal) continue;
      token.bytes = WithSpaces(token.bytes);
    }
  }

  absl::Status ParsePostProcessor() {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> steps,
                             Steps("post_processor", "processors"));
    for (const JsonReader& step : steps) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string type,
                               step.StringOr("type", ""));
      if (type == "ByteLevel") continue;  // moves offsets only
      if (type != "TemplateProcessing") return Unsupported(step, type);
      CARAVAN_RETURN_IF_ERROR(ParseTemplate(step));
    }
    return absl::OkStatus();
  }

  absl::Status ParseTemplate(const JsonReader& step) {
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader single, step.Get("single"));
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> parts,
                             single.Elements());
    bool before = true;
    for (const JsonReader& part : parts) {
      CARAVAN_ASSIGN_OR_RETURN(const JsonReader sequence, part.Get("Sequence"));
      if (!sequence.is_null()) {
        before = false;
        continue;
      }
      CARAVAN_ASSIGN_OR_RETURN(const JsonReader token,
                               part.Get("SpecialToken"));
      CARAVAN_ASSIGN_OR_RETURN(const std::string name,
                               token.StringOr("id", ""));
      CARAVAN_RETURN_IF_ERROR(AppendTemplateIds(
          step, name, before ? &model_.prefix_ids : &model_.suffix_ids));
    }
    if (before) return single.Error("must contain a Sequence");
    return absl::OkStatus();
  }

  absl::Status AppendTemplateIds(const JsonReader& step,
                                 const std::string& name,
                                 std::vector<TokenId>* ids) {
    constexpr size_t kMaxIds = 64;
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader tokens,
                             step.Get("special_tokens"));
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader entry, tokens.Get(name.c_str()));
    if (entry.is_null()) return entry.Error("is missing");
    CARAVAN_ASSIGN_OR_RETURN(const JsonReader list, entry.Get("ids"));
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<JsonReader> elements,
                             list.Elements());
    if (elements.size() + ids->size() > kMaxIds) {
      return list.Error(StrCat("must have at most ", kMaxIds, " entries"));
    }
    for (const JsonReader& element : elements) {
      CARAVAN_ASSIGN_OR_RETURN(
          const int64_t id, element.Integer(0, model_.vocabulary.size() - 1));
      ids->push_back(static_cast<TokenId>(id));
    }
    return absl::OkStatus();
  }

  JsonReader root_;
  TokenizerModel model_;
  LargeParts parts_;
  PieceTable ids_;      // of vocab
  std::string joined_;  // of a merge
};

}  // namespace

std::optional<std::string> FromByteAlphabet(std::string_view piece) {
  static const auto& kBytes = *[] {
    auto* const bytes = new absl::flat_hash_map<uint32_t, char>();
    for (int byte = 0; byte < 256; ++byte) {
      (*bytes)[AlphabetOf(byte)] = static_cast<char>(byte);
    }
    return bytes;
  }();
  std::string out;
  while (!piece.empty()) {
    const Utf8Char c = DecodeUtf8(piece);
    const auto byte = kBytes.find(c.code_point);
    if (c.kind != Utf8Char::Kind::kValid || byte == kBytes.end()) {
      return std::nullopt;
    }
    out.push_back(byte->second);
    piece.remove_prefix(c.size);
  }
  return out;
}

absl::StatusOr<TokenizerModel> ParseTokenizerJson(const std::string& content,
                                                  std::string_view file) {
  LargeParts parts;
  FileReader reader(&parts);
  if (!nlohmann::json::sax_parse(content, &reader)) {
    return FileError(file, reader.problem());
  }
  const nlohmann::json tree = reader.Take();
  return Parser(JsonReader(tree, file), std::move(parts)).Parse();
}

}  // namespace caravan::text
