#include "worker/model/random_tokenizer.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, kRandomTokenizerSpecials> kSpecials = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>",      "<|finetune_right_pad_id|>"};

constexpr std::string_view kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::string_view kChatTemplate =
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + "
    "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

// A byte in the alphabet of byte-level BPE: printable Latin-1 stands for
// itself, the other 68 bytes for U+0100 and up, in order.
std::string ByteSymbol(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)),
          static_cast<char>(0x80 | (code & 0x3f))};
}

using Merge = std::pair<std::string, std::string>;

// Collects merges of two known pieces until there are enough.
class MergeList {
 public:
  explicit MergeList(size_t count) : count_(count) {}

  // Joins each of `left` with each of `right`; the new pieces.
  std::vector<std::string> Cross(const std::vector<std::string>& left,
                                 const std::vector<std::string>& right) {
    std::vector<std::string> made;
    for (const std::string& a : left) {
      for (const std::string& b : right) {
        if (merges_.size() == count_) return made;
        merges_.emplace_back(a, b);
        made.push_back(a + b);
      }
    }
    return made;
  }

  const std::vector<Merge>& merges() const { return merges_; }

 private:
  const size_t count_;
  std::vector<Merge> merges_;
};

// Words of one to four letters: a space before a letter, two letters, three
// letters, the same after a space, four letters.
std::vector<Merge> MakeMerges(int32_t count) {
  std::vector<std::string> letters;
  for (char c = 'a'; c <= 'z'; ++c) letters.emplace_back(1, c);
  MergeList list(count);
  const auto spaced = list.Cross({ByteSymbol(' ')}, letters);
  const auto pairs = list.Cross(letters, letters);
  const auto triples = list.Cross(pairs, letters);
  list.Cross(spaced, pairs);
  list.Cross(triples, letters);
  return list.merges();
}

json Model(int32_t vocab_size) {
  const std::vector<Merge> merges =
      MakeMerges(vocab_size - 256 - kRandomTokenizerSpecials);
  json vocab = json::object();
  for (int32_t byte = 0; byte < 256; ++byte) vocab[ByteSymbol(byte)] = byte;
  json lines = json::array();
  int32_t next = 256;
  for (const auto& [a, b] : merges) {
    vocab[a + b] = next++;
    lines.push_back(StrCat(a, " ", b));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(lines)}};
}

json AddedTokens(int32_t vocab_size) {
  json added = json::array();
  for (int32_t i = 0; i < kRandomTokenizerSpecials; ++i) {
    added.push_back({{"id", vocab_size - kRandomTokenizerSpecials + i},
                     {"content", std::string(kSpecials[i])},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return added;
}

json PreTokenizer() {
  json split = {{"type", "Split"},
                {"pattern", {{"Regex", std::string(kPattern)}}},
                {"behavior", "Isolated"},
                {"invert", false}};
  json bytes = {{"type", "ByteLevel"},
                {"add_prefix_space", false},
                {"trim_offsets", true},
                {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", json::array({split, bytes})}};
}

// One BOS before a text.
json PostProcessor(int32_t vocab_size) {
  const std::string bos(kSpecials[0]);
  const json begin = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const json token = {{"id", bos},
                      {"ids", json::array({RandomBosId(vocab_size)})},
                      {"tokens", json::array({bos})}};
  return {{"type", "TemplateProcessing"},
          {"single", json::array({begin, text})},
          {"pair", json::array({begin, text, begin, second})},
          {"special_tokens", json::object({{bos, token}})}};
}

}  // namespace

std::string RandomTokenizerJson(int32_t vocab_size) {
  const json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  const json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedTokens(vocab_size)},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", PreTokenizer()},
                     {"post_processor", PostProcessor(vocab_size)},
                     {"decoder", decoder},
                     {"model", Model(vocab_size)}};
  return DumpJson(root);
}

std::string RandomTokenizerConfigJson() {
  const json root = {{"bos_token", std::string(kSpecials[0])},
                     {"eos_token", std::string(kSpecials[4])},
                     {"pad_token", std::string(kSpecials[5])},
                     {"chat_template", std::string(kChatTemplate)},
                     {"tokenizer_class", "PreTrainedTokenizerFast"}};
  return DumpJson(root, 2) + "\n";
}

}  // namespace caravan::worker
