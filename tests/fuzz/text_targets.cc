// Tokenizer files, texts, ids and chat templates.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/gguf/gguf_file.h"
#include "common/gguf/gguf_writer.h"
#include "common/json.h"
#include "common/text/bpe_tokenizer.h"
#include "common/text/incremental_decoder.h"
#include "common/text/model_files.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"
#include "services/tokenizer/jinja/template.h"
#include "tests/common/text/small_models.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/property/text_by_definition.h"
#include "tests/support/reference_data.h"
#include "tests/support/temporary_directory.h"

namespace caravan::fuzz {
namespace {

using text::Tokenizer;

// --- Loaders ---------------------------------------------------------------

// A tokenizer that loads must also work.
void Exercise(const Tokenizer& tokenizer) {
  const auto ids =
      tokenizer.Encode("Hello  <s>w\xC3\xB6rld 123\n\xF0\x9F\x98\x80 l o lo",
                       {.allow_special_tokens = true});
  if (!ids.ok()) return;
  for (const text::TokenId id : *ids) {
    Require(id >= 0 && id < tokenizer.vocabulary().size(),
            "ids are in the vocabulary");
  }
  const std::string text =
      text::Decode(tokenizer.vocabulary(), *ids, /*skip_special_tokens=*/true);
  Require(!text::FirstInvalidUtf8(text), "decoded text is UTF-8");
}

void Exercise(absl::StatusOr<text::TokenizerModel> model) {
  if (!model.ok()) return;
  const auto tokenizer = text::BpeTokenizer::Create(*std::move(model));
  if (tokenizer.ok()) Exercise(**tokenizer);
}

void RunTokenizerJson(std::string_view bytes) {
  Exercise(text::ParseTokenizerJson(std::string(bytes), "fuzz"));
}

void RunSentencePiece(std::string_view bytes) {
  Exercise(text::ParseSentencePiece(bytes, "fuzz"));
}

void RunRanks(std::string_view bytes) {
  text::LooksLikeTiktokenRanks(bytes);
  Exercise(text::ParseTiktokenRanks(bytes, "fuzz", {}));
}

std::vector<std::string> TokenizerJsonSeeds() {
  nlohmann::json vocab;
  for (int c = 0x21; c < 0x144; ++c) {
    std::string piece;
    text::AppendUtf8(c, &piece);
    if (text::FromByteAlphabet(piece)) vocab[piece] = c;
  }
  vocab["lo"] = 400;
  const nlohmann::json byte_level = {
      {"added_tokens", {{{"id", 401}, {"content", "<s>"}, {"special", true}}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"l o"}}}}};
  return {DumpJson(byte_level),
          R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend",
          "prepend":"\u2581"},{"type":"Replace","pattern":{"String":" "},
          "content":"\u2581"}]},"decoder":{"type":"Strip","content":" ",
          "start":1,"stop":0},"model":{"type":"BPE","byte_fallback":true,
          "unk_token":"u","vocab":{"u":0,"\u2581":1,"l":2,"o":3,"lo":4,
          "<0x0A>":5},"merges":[["l","o"]]}})"};
}

std::vector<std::string> SentencePieceSeeds() {
  text::SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add("\xE2\x96\x81", -10);
  file.Add("l", -11);
  file.Add("o", -12);
  file.Add("lo", -1);
  file.Add("<x>", 0, /*type=*/4);
  text::SentencePieceFile small;
  small.Add("<unk>", 0, /*type=*/2);
  small.Add("lo", -1, /*type=*/5);
  return {file.Serialize(), small.Serialize()};
}

std::vector<std::string> RanksSeeds() {
  return {"IQ== 0\nIg== 1\nIw== 2\n", "YQ== 0\r\nYWE= 1\r\n"};
}

void RunGguf(std::string_view bytes) {
  const auto file =
      gguf::File::Parse(std::as_bytes(std::span(bytes)), "fuzz.gguf");
  if (!file.ok()) return;
  for (const gguf::Tensor& tensor : file->tensors()) {
    Require(tensor.offset <= bytes.size() &&
                tensor.bytes <= bytes.size() - tensor.offset,
            "tensors are inside of the file");
  }
  Exercise(text::ParseGgufVocabulary(*file));
}

std::string GgufWithTensor(gguf::HeaderWriter writer) {
  const int64_t shape[] = {2, 4};
  const uint64_t size =
      writer.AddTensor("x", *gguf::FindTensorType("f16"), shape);
  return writer.Header() + std::string(size + writer.Padding(size), '\0');
}

std::string SentencePieceGguf() {
  text::SentencePieceFile pieces;
  pieces.AddStandardPieces();
  for (const char* const piece : {"\xE2\x96\x81", "l", "o", "lo", "a"}) {
    pieces.Add(piece, -1 - static_cast<float>(pieces.pieces.size()));
  }
  pieces.Add("<x>", 0, /*type=*/4);
  pieces.Add("[PAD265]", 0, /*type=*/5);
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> kinds;
  for (const auto& piece : pieces.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    kinds.push_back(piece.type);
  }
  gguf::HeaderWriter writer;
  writer.Add("tokenizer.ggml.model", "llama");
  writer.Add("tokenizer.ggml.tokens", tokens);
  writer.Add("tokenizer.ggml.scores", scores);
  writer.Add("tokenizer.ggml.token_type", kinds);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{1});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{2});
  writer.Add("tokenizer.ggml.eot_token_id", uint32_t{3});
  writer.Add("tokenizer.ggml.unknown_token_id", uint32_t{0});
  writer.Add("tokenizer.ggml.padding_token_id", uint32_t{0});
  writer.Add("tokenizer.ggml.add_bos_token", true);
  writer.Add("tokenizer.ggml.add_eos_token", true);
  writer.Add("tokenizer.ggml.add_space_prefix", true);
  writer.Add("tokenizer.ggml.remove_extra_whitespaces", true);
  writer.Add("tokenizer.chat_template", "{{ messages }}");
  writer.Add("tokenizer.chat_template.tool_use", "{{ tools }}");
  const std::vector<std::string> names = {"tool_use"};
  writer.Add("tokenizer.chat_templates", names);
  return GgufWithTensor(writer);
}

std::string ByteLevelGguf() {
  const auto json = ParseJson(TokenizerJsonSeeds()[0]);
  std::vector<std::string> tokens(402, "[PAD0]");
  std::vector<int32_t> kinds(402, 5);
  for (const auto& [piece, id] : json["model"]["vocab"].items()) {
    tokens[id.get<size_t>()] = piece;
    kinds[id.get<size_t>()] = 1;
  }
  tokens[401] = "<s>";
  kinds[401] = 3;
  gguf::HeaderWriter writer;
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", "llama-bpe");
  writer.Add("tokenizer.ggml.tokens", tokens);
  writer.Add("tokenizer.ggml.token_type", kinds);
  const std::vector<std::string> merges = {"l o"};
  writer.Add("tokenizer.ggml.merges", merges);
  writer.Add("tokenizer.ggml.bos_token_id", uint32_t{401});
  writer.Add("tokenizer.ggml.eos_token_id", uint32_t{401});
  return GgufWithTensor(writer);
}

std::vector<std::string> GgufSeeds() {
  return {SentencePieceGguf(), ByteLevelGguf()};
}

// --- A model directory ------------------------------------------------------

// What the bytes are cut into at each NUL, in this order; what is empty is
// absent.
constexpr const char* kDirectoryFiles[] = {
    "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",     "generation_config.json",
    "config.json",           "chat_template.jinja",
    "chat_template.json",    "additional_chat_templates/tool_use.jinja",
    "tokenizer.json",        "tokenizer.model"};

void RunDirectory(std::string_view bytes) {
  namespace fs = std::filesystem;
  const testing::TemporaryDirectory scratch;
  const fs::path folder(scratch.path());
  std::error_code ignored;
  fs::create_directory(folder / "additional_chat_templates", ignored);
  for (const std::string_view name : kDirectoryFiles) {
    // SentencePiece files have NULs: what is left is the last file.
    const bool last = name == "tokenizer.model";
    const size_t end =
        last ? bytes.size() : std::min(bytes.find('\0'), bytes.size());
    if (end > 0) {
      std::ofstream(folder / name, std::ios::binary) << bytes.substr(0, end);
    }
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
  const auto tokenizer = Tokenizer::LoadDirectory(folder.string());
  if (!tokenizer.ok()) return;
  Exercise(**tokenizer);
  const std::string_view source = (*tokenizer)->chat_template();
  Require(!text::FirstInvalidUtf8(source), "templates are UTF-8");
}

std::vector<std::string> DirectorySeeds() {
  const std::string tokenizer = TokenizerJsonSeeds()[1];
  const auto cut = [&](std::vector<std::string> files) {
    files.resize(8);
    std::string joined;
    for (const std::string& file : files) joined += file + '\0';
    return joined + tokenizer;
  };
  return {cut({R"({"added_tokens_decoder":{"6":{"content":"<x>","special":true,
               "lstrip":true,"rstrip":false,"single_word":true}},
               "bos_token":"<x>","eos_token":{"content":"lo"},
               "add_bos_token":true,"add_eos_token":true,"legacy":false,
               "tokenizer_class":"LlamaTokenizer",
               "chat_template":[{"name":"default","template":"a"},
                                {"name":"tool_use","template":"b"}]})"}),
          cut({R"({"chat_template":"{{ x }}"})", R"({"bos_token":"lo"})",
               R"({"<y>":7,"<PRE>":8})", R"({"eos_token_id":[4,5,-1]})",
               R"({"bos_token_id":1,"eos_token_id":2})", "{{ messages }}",
               R"({"chat_template":"c"})", "{{ tools }}"}),
          cut({"", "", "", "", R"({"eos_token_id":3})", "", R"({"chat_template":
           [{"name":"default","template":"d"}]})"})};
}

// --- Texts and ids -----------------------------------------------------------

std::unique_ptr<Tokenizer> Made(absl::StatusOr<text::TokenizerModel> model) {
  Require(model.ok(), "the target's own model parses");
  auto tokenizer = text::BpeTokenizer::Create(*std::move(model));
  Require(tokenizer.ok(), "the target's own model loads");
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> DemoModel() {
  auto loaded =
      Tokenizer::LoadDirectory(testing::RepositoryPath("deploy/demo-model"));
  Require(loaded.ok(), "the demo model loads");
  return *std::move(loaded);
}

text::SentencePieceFile WithPieces() {
  text::SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  float score = 0;
  for (const char* const piece :
       {"\xE2\x96\x81", "l", "o", "lo", "a", "b", "ab",
        "\xE2\x96\x81"
        "a",
        "\xE2\x96\x81\xE2\x96\x81", "\xC3\xA9", "loab"}) {
    file.Add(piece, score -= 1);
  }
  file.Add("<x>", 0, /*type=*/4);
  file.Add("lol", 0, /*type=*/5);
  return file;
}

std::string JsonWithAddedTokens() {
  nlohmann::json json = ParseJson(TokenizerJsonSeeds()[0]);
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "(?:a|b)+|\\p{N}{1,2}|x(?=y)"}}},
         {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  json["added_tokens"] = {
      {{"id", 401}, {"content", "<s>"}, {"special", true}},
      {{"id", 402}, {"content", "<l>"}, {"lstrip", true}},
      {{"id", 403}, {"content", "<r>"}, {"rstrip", true}, {"special", true}},
      {{"id", 404}, {"content", "ab"}, {"single_word", true}},
      {{"id", 405}, {"content", "<s>b"}, {"special", false}}};
  return DumpJson(json);
}

struct TestModel {
  std::unique_ptr<Tokenizer> tokenizer;
  bool lossless;  // but for special tokens and visible spaces
};

const std::vector<TestModel>& TestModels() {
  static const auto& kModels = *[] {
    auto* const models = new std::vector<TestModel>();
    models->push_back({DemoModel(), true});
    models->push_back(
        {Made(text::ParseSentencePiece(WithPieces().Serialize(), "fuzz")),
         true});
    text::SentencePieceFile lossy = WithPieces();
    lossy.remove_extra_whitespaces = true;
    lossy.byte_fallback = false;
    models->push_back(
        {Made(text::ParseSentencePiece(lossy.Serialize(), "fuzz")), false});
    models->push_back(
        {Made(text::ParseTokenizerJson(JsonWithAddedTokens(), "fuzz")), false});
    models->push_back(
        {Made(text::ParseTokenizerJson(TokenizerJsonSeeds()[0], "fuzz")),
         false});
    return models;
  }();
  return kModels;
}

// The model that the first byte chooses; takes the byte.
const TestModel& TakeModel(std::string_view* bytes) {
  const auto first = static_cast<unsigned char>(bytes->front());
  bytes->remove_prefix(1);
  return TestModels()[first % TestModels().size()];
}

// After the byte of the model, \x01 and \x02 begin stretches in which special
// tokens are recognised and are not.
std::vector<text::TextSpan> Spans(std::string_view bytes) {
  std::vector<text::TextSpan> spans;
  bool allow = false;
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find_first_of("\x01\x02"), bytes.size());
    spans.push_back({bytes.substr(0, end), allow});
    if (end == bytes.size()) break;
    allow = bytes[end] == '\x01';
    bytes.remove_prefix(end + 1);
  }
  return spans;
}

void RunEncode(std::string_view bytes) {
  if (bytes.empty()) return;
  const TestModel& model = TakeModel(&bytes);
  const std::vector<text::TextSpan> spans = Spans(bytes);
  std::string text;
  bool any_allowed = false;
  for (const text::TextSpan& span : spans) {
    text += span.text;
    any_allowed = any_allowed || span.allow_special_tokens;
  }
  const auto ids = model.tokenizer->EncodeSpans(spans);
  Require(ids.ok() == !text::FirstInvalidUtf8(text).has_value(),
          "valid UTF-8, and only that, is encoded");
  if (!ids.ok() || any_allowed || !model.lossless) return;
  if (text.find(text::kVisibleSpace) != std::string::npos) return;
  Require(text::Decode(model.tokenizer->vocabulary(), *ids, false) == text,
          "decoding gives the text again");
  const auto alone =
      model.tokenizer->Encode(text, {.add_special_tokens = false});
  Require(alone.ok() && *alone == *ids, "spans of one kind are one text");
}

std::string ForModel(int model, std::string_view bytes) {
  return std::string(1, static_cast<char>(model)) + std::string(bytes);
}

std::vector<std::string> EncodeSeeds() {
  return {ForModel(0, "Hello, world!"),
          ForModel(0, "I'LL \xE4\xBD\xA0\n\n  x1234 <|eot_id|>\x01<|eot_id|>"),
          ForModel(0, "\xF0\x9F\x98\x80\xC2\x85 \xCC\x81 \r\n don't 12345"),
          ForModel(1, " lol <x>lo  a\xC3\xA9 b loab"),
          ForModel(2, "  a   <x> b \xE2\x96\x81 "),
          ForModel(3, " ab 123 \x01<s>b <l> <r>  x\x02<s> xy abab"),
          ForModel(4, " it's 12 \xD0\xBF\xD1\x80!! \n\t lo")};
}

// The byte of the model, then ids of two bytes each.
void RunDecode(std::string_view bytes) {
  if (bytes.empty()) return;
  const TestModel& model = TakeModel(&bytes);
  const text::Vocabulary& vocabulary = model.tokenizer->vocabulary();
  std::vector<text::TokenId> ids;
  for (; bytes.size() >= 2; bytes.remove_prefix(2)) {
    const int number = static_cast<unsigned char>(bytes[0]) +
                       256 * static_cast<unsigned char>(bytes[1]);
    ids.push_back(number % (vocabulary.size() + 2) - 1);
  }
  for (const bool skip : {false, true}) {
    const std::string whole = text::TextByDefinition(vocabulary, ids, skip);
    Require(text::Decode(vocabulary, ids, skip) == whole,
            "decoding is what the vocabulary defines");
    Require(!text::FirstInvalidUtf8(whole), "decoded text is UTF-8");
    text::IncrementalDecoder decoder(vocabulary, skip);
    std::string pieces;
    for (const text::TokenId id : ids) {
      pieces += decoder.Append(id);
      Require(whole.starts_with(pieces), "what was given stays");
    }
    Require(pieces + decoder.Finish() == whole, "pieces are the whole");
  }
}

std::string IdsForModel(int model, std::initializer_list<int> ids) {
  std::string bytes = ForModel(model, "");
  for (const int id : ids) {
    bytes += static_cast<char>((id + 1) % 256);
    bytes += static_cast<char>((id + 1) / 256);
  }
  return bytes;
}

std::vector<std::string> DecodeSeeds() {
  // An emoji in bytes; the same broken; a leading space; ids out of range.
  return {IdsForModel(0, {300, 4090, 17, 2000}),
          IdsForModel(1, {3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 0x80, 1}),
          IdsForModel(1, {3 + 0xF0, 3 + 0x9F, 259, 3 + 0xC3}),
          IdsForModel(1, {259, 260, 259}),
          IdsForModel(2, {-1, 0, 1, 9999}),
          IdsForModel(3, {0x41, 401, 0x142})};
}

// --- Templates ---------------------------------------------------------------

constexpr std::string_view kVariables =
    R"({"messages": [{"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [{"function":
         {"name": "f", "arguments": {"a": [1, 2.5, true]}}}]}],
        "n": 3, "tools": null, "bos_token": "<s>", "s": " a\u00e9\nB "})";

// A template; after a NUL, its variables as JSON.
void RunJinja(std::string_view bytes) {
  const size_t end = std::min(bytes.find('\0'), bytes.size());
  const auto parsed = jinja::Template::Parse(bytes.substr(0, end));
  const bool own = end < bytes.size();
  const auto variables =
      jinja::ParseJson(own ? bytes.substr(end + 1) : kVariables);
  if (!parsed.ok() || !variables.ok() || !variables->is_dict()) return;
  jinja::Limits limits;
  limits.max_steps = 20'000;
  limits.max_allocated_bytes = 4 << 20;
  limits.max_output_bytes = 1 << 20;
  const auto text = parsed->Render(variables->dict(), absl::UnixEpoch(),
                                   absl::UTCTimeZone(), limits);
  if (!text.ok()) return;
  size_t size = 0;
  for (const auto& run : text->Runs()) size += run.bytes.size();
  Require(size == text->size(), "runs cover the text");
}

// One template a row of the kinds of things that a template can say.
std::vector<std::string> JinjaSeeds() {
  return {
      "{% for m in messages %}{{ m['role'] ~ loop.index }}"
      "{% endfor %}",
      "{%- set ns = namespace(x=[1,2]) -%}{% macro f(a, b=2) %}"
      "{{ a[::-1] }}{% endmacro %}"
      "{{ f('abc') | upper | tojson(indent=2) }}",
      "{# c #}{% if n is defined and n > 2 %}{{ '%s' | format(n) }}"
      "{% else %}{{ raise_exception('x') }}{% endif %}{% raw %}"
      "{{ {% endraw %}",
      "{% set x %}a{% endset %}"
      "{{ x.split('a') | map('length') | list | sum }}"
      "{{ {'a': 1}.items() | list }}{{ range(3) | join(',') }}",
      "{% for m in messages if m.content is string recursive %}"
      "{{ loop.first }}{{ loop.last }}{{ loop.revindex }}"
      "{{ loop.depth }}{{ loop.cycle('a', 'b') }}"
      "{{ loop.changed(m) }}{{ loop.previtem }}{{ loop.nextitem }}"
      "{{ loop([]) }}{% if loop.index0 == 1 %}{% break %}{% else %}"
      "{% continue %}{% endif %}{% else %}none{% endfor %}",
      "{% call(x) f() %}{{ x }}{% endcall %}{% macro f() %}"
      "{{ caller(1) }}{{ varargs }}{{ kwargs }}{% endmacro %}"
      "{% call(x) f(1, z=2) %}{{ x }}{% endcall %}",
      "{% filter upper | trim %} a {% endfilter %}"
      "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}"
      "{% generation %}g{% endgeneration %}{% autoescape false %}"
      "{% endautoescape %}",
      "{{ 1 + 2 * 3 - 4 / 5 // 6 % 7 ** 2 }}{{ -n }}{{ +n }}"
      "{{ not n }}{{ n < 1 < 2 <= 3 >= 2 > 1 != 0 == 0 }}"
      "{{ 1 in [1] }}{{ 1 not in (1,) }}{{ 'a' if n else 'b' }}"
      "{{ n and 0 or 1 }}{{ 1.5e3 }}{{ 0x1f }}{{ 1_000 }}",
      "{{ 'a\\n\\t\\x41\\u00e9\\'\"' ~ \"b\" }}{{ s[1:] }}{{ s[:-1] }}"
      "{{ s[::2] }}{{ s[-1] }}{{ [1,2,3][1:2] }}{{ (1,2)[::-1] }}"
      "{{ {'a': 1, 2: 3}['a'] }}{{ messages[0].role }}{{ n.x }}"
      "{{ zz }}",
      "{{ s | trim }}{{ s | upper }}{{ s | lower }}{{ s | title }}"
      "{{ s | capitalize }}{{ s | replace('a', 'b', 1) }}"
      "{{ zz | default('d') }}{{ '' | d('e', true) }}"
      "{{ s | length }}{{ s | count }}",
      "{{ messages | tojson(indent=1, sort_keys=true, separators=('"
      ",', ':'), ensure_ascii=true) }}{{ n | string }}"
      "{{ -1 | abs }}{{ '3' | int(1) }}{{ '2.5' | float }}"
      "{{ 2.567 | round(1, 'floor') }}"
      "{{ 'x' | indent(2, true, true) }}"
      "{{ 'a b c' | truncate(5, true, '', 0) }}",
      "{{ '<a>' | e }}{{ 'a b' | urlencode }}"
      "{{ 'a b' | wordcount }}{{ s | safe }}"
      "{{ messages[0] | attr('keys') }}{{ 'a' | center(9) }}"
      "{{ [3,1,2] | first }}{{ [3,1,2] | last }}{{ 'ab' | list }}"
      "{{ {'a': 1} | items | list }}",
      "{{ ['a','b'] | join('-', attribute=0) }}"
      "{{ [1,2] | reverse | list }}{{ 'ab' | reverse }}"
      "{{ ['b','A'] | sort(true, false) }}"
      "{{ {'b':1,'a':2} | dictsort(false, 'value', true) }}"
      "{{ [1,1,'a','A'] | unique | list }}{{ [1,2] | min }}"
      "{{ [1,2] | max }}",
      "{{ [1,2] | sum(start=1) }}{{ [1,2,3] | batch(2, 0) | list }}"
      "{{ [1,2,3] | slice(2, 0) | list }}"
      "{% for k, v in [{'a':1}] | groupby('a') %}{{ k }}{{ v }}"
      "{% endfor %}"
      "{{ messages | map(attribute='role', default='x') | list }}",
      "{{ messages | map('length') | list }}"
      "{{ [1,2] | select('odd') | list }}"
      "{{ [1,0] | reject | list }}"
      "{{ messages | selectattr('role', 'equalto', 'user') | list }"
      "}{{ messages | rejectattr('content') | list }}",
      "{{ n is odd }}{{ n is even }}{{ n is divisibleby 3 }}"
      "{{ n is number }}{{ n is integer }}{{ n is float }}"
      "{{ s is string }}{{ n is mapping }}{{ n is sequence }}"
      "{{ n is iterable }}{{ n is callable }}{{ s is lower }}"
      "{{ s is upper }}{{ n is none }}{{ n is boolean }}"
      "{{ n is true }}{{ n is false }}{{ n is escaped }}",
      "{{ n is eq 3 }}{{ n is ne 3 }}{{ n is lt 4 }}{{ n is gt 4 }}"
      "{{ n is le 4 }}{{ n is ge 4 }}{{ n is sameas n }}"
      "{{ 'a' is in s }}{{ 'trim' is filter }}{{ 'odd' is test }}"
      "{{ zz is undefined }}{{ zz is not defined }}",
      "{{ s.strip() }}{{ s.lstrip('a ') }}{{ s.rstrip() }}"
      "{{ s.split() }}{{ s.rsplit('a', 1) }}"
      "{{ s.splitlines(true) }}{{ s.startswith(' ') }}"
      "{{ s.endswith(('x', ' ')) }}{{ s.removeprefix(' ') }}"
      "{{ s.removesuffix(' ') }}{{ s.find('a') }}{{ s.rfind('a') }}"
      "{{ s.index('a') }}{{ s.count('a') }}{{ s.replace('', '-') }}",
      "{{ ','.join(['a']) }}{{ '{} {0} {x} {{'.format(1, x=2) }}"
      "{{ '{} {}'.format(1, 2) }}{{ s.partition('a') }}"
      "{{ s.rpartition('z') }}{{ s.casefold() }}{{ s.isdigit() }}"
      "{{ s.isalpha() }}{{ s.isalnum() }}{{ s.isspace() }}"
      "{{ s.isupper() }}{{ s.islower() }}{{ s.ljust(9, '.') }}"
      "{{ s.rjust(9) }}{{ s.zfill(9) }}{{ s.center(9) }}",
      "{% set d = messages[0] %}{{ d.get('x', 1) }}"
      "{{ d.keys() | list }}{{ d.values() | list }}"
      "{{ d.items() | list }}{{ d.copy() }}{{ [1,2].index(2) }}"
      "{{ [1,1].count(1) }}{{ d.pop('x') }}",
      "{{ [1].append(2) }}",
      "{{ dict(a=1, **{}) }}",
      "{{ dict({'a': 1}, b=2) }}{% set j = joiner('|') %}{{ j() }}"
      "{{ j() }}{% set c = cycler(1, 2) %}{{ c.next() }}"
      "{{ c.current }}{{ c.reset() }}"
      "{{ strftime_now('%Y-%m-%d %H:%M') }}"
      "{{ range(1, 9, 2) | list }}",
      "{{ '%05.2f|%-5s|%d|%x|%r|%%|%e|%g|%i' % (1.5, 'a', 7, 255, s"
      ", 2.0, 3.5, 4) }}{{ '%s' % n }}{{ 'ab' * 2 }}{{ 2 * [1] }}"
      "{{ (1,) + (2,) }}{{ [1] == [1.0] }}{{ {'a':1} == {'a':1} }}"
      "{{ 'a' < 'b' }}{{ [1] < [2] }}",
      "{% set a, b = 1, 2 %}{% set ns = namespace(a=1) %}"
      "{% set ns.b = ns %}{{ ns.b.a }}"
      "{% for (k, v) in {'a': 1}.items() %}{{ k }}{% endfor %}"
      "{% set x | upper %}y{% endset %}{{ x }}",
      "{%- if n == 1 -%} a {%- elif n == 3 +%} b {% elif false %}"
      "{% else -%} c {% endif -%}  {{- 'x' -}} ",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 1 // 0 }}",
      "{{ 10 ** -2 }}{{ 2.5 // 1 }}{{ -7 % 3 }}{{ 7.5 % 2 }}"
      "{{ 1e300 * 1e300 }}{{ -1e400 }}{{ 0.1 }}{{ 1e16 }}{{ 1e-5 }}",
      "{{ [[[1, (2,)], {'k': none}], '\xC3\xA9"
      "', \"'\", '\"'] }}"
      "{{ {'a': [1.0, true]} }}{{ (1,) }}{{ () }}{{ [] }}{{ {} }}",
      "{% for k, v in a.items() %}{{ k }}={{ v }}{% endfor %}" +
          std::string(1, '\0') +
          R"({"a": {"x": [1, -2, 3.5e10, null, true, "\ud83d\ude00\u0000"]}})",
  };
}

}  // namespace

const std::vector<FuzzTarget>& FuzzTargets() {
  static const auto& kTargets = *new std::vector<FuzzTarget>{
      {"tokenizer_json", RunTokenizerJson, TokenizerJsonSeeds},
      {"sentencepiece", RunSentencePiece, SentencePieceSeeds},
      {"ranks", RunRanks, RanksSeeds},
      {"gguf_vocabulary", RunGguf, GgufSeeds},
      {"directory", RunDirectory, DirectorySeeds},
      {"encode", RunEncode, EncodeSeeds},
      {"decode", RunDecode, DecodeSeeds},
      {"jinja", RunJinja, JinjaSeeds},
  };
  return kTargets;
}

}  // namespace caravan::fuzz
