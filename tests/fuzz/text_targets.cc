#include "tests/fuzz/text_targets.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/time.h"
#include "common/text/bpe_tokenizer.h"
#include "common/text/incremental_decoder.h"
#include "common/text/model_files.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"
#include "services/tokenizer/jinja/template.h"
#include "tests/common/text/small_models.h"
#include "tests/support/reference_data.h"

namespace caravan::fuzz {
namespace {

// Ends the process, as a fuzzer wants it, when a promise is broken.
void Require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

// A tokenizer that loads must also work.
void Exercise(absl::StatusOr<text::TokenizerModel> model) {
  if (!model.ok()) return;
  const auto tokenizer = text::BpeTokenizer::Create(*std::move(model));
  if (!tokenizer.ok()) return;
  const auto ids =
      (*tokenizer)->Encode("Hello  <s>w\xC3\xB6rld 123\n\xF0\x9F\x98\x80", {});
  if (!ids.ok()) return;
  const std::string text =
      text::Decode((*tokenizer)->vocabulary(), *ids, /*skip=*/true);
  Require(!text::FirstInvalidUtf8(text), "decoded text is UTF-8");
}

void RunTokenizerJson(std::string_view bytes) {
  Exercise(text::ParseTokenizerJson(std::string(bytes), "fuzz"));
}

void RunSentencePiece(std::string_view bytes) {
  Exercise(text::ParseSentencePiece(bytes, "fuzz"));
}

void RunRanks(std::string_view bytes) {
  Exercise(text::ParseTiktokenRanks(bytes, "fuzz", {}));
}

void RunEncode(std::string_view bytes) {
  static const auto& kTokenizer = *[] {
    auto loaded = text::Tokenizer::LoadDirectory(
        testing::RepositoryPath("deploy/demo-model"));
    Require(loaded.ok(), "the demo model loads");
    return new std::unique_ptr<text::Tokenizer>(*std::move(loaded));
  }();
  const auto ids = kTokenizer->Encode(bytes, {.add_special_tokens = false});
  Require(ids.ok() == !text::FirstInvalidUtf8(bytes).has_value(),
          "valid UTF-8, and only that, is encoded");
  if (!ids.ok()) return;
  Require(text::Decode(kTokenizer->vocabulary(), *ids, false) == bytes,
          "decoding gives the text again");
}

void RunJinja(std::string_view bytes) {
  const auto parsed = jinja::Template::Parse(bytes);
  if (!parsed.ok()) return;
  const auto variables = jinja::ParseJson(
      R"({"messages": [{"role": "user", "content": "Hi"}], "n": 3,
          "tools": null, "bos_token": "<s>"})");
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
  return {byte_level.dump(),
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

std::vector<std::string> EncodeSeeds() {
  return {"Hello, world!", "I'LL \xE4\xBD\xA0\n\n  x1234 <|eot_id|>",
          "\xF0\x9F\x98\x80\xC2\x85 \xCC\x81"};
}

std::vector<std::string> JinjaSeeds() {
  return {
      "{% for m in messages %}{{ m['role'] ~ loop.index }}{% endfor %}",
      "{%- set ns = namespace(x=[1,2]) -%}{% macro f(a, b=2) %}{{ a[::-1] }}"
      "{% endmacro %}{{ f('abc') | upper | tojson(indent=2) }}",
      "{# c #}{% if n is defined and n > 2 %}{{ '%s' | format(n) }}"
      "{% else %}{{ raise_exception('x') }}{% endif %}{% raw %}{{ {% endraw %}",
      "{% set x %}a{% endset %}{{ x.split('a') | map('length') | list | sum }}"
      "{{ {'a': 1}.items() | list }}{{ range(3) | join(',') }}"};
}

}  // namespace

const std::vector<TextTarget>& TextTargets() {
  static const auto& kTargets = *new std::vector<TextTarget>{
      {"tokenizer_json", RunTokenizerJson, TokenizerJsonSeeds},
      {"sentencepiece", RunSentencePiece, SentencePieceSeeds},
      {"ranks", RunRanks, RanksSeeds},
      {"encode", RunEncode, EncodeSeeds},
      {"jinja", RunJinja, JinjaSeeds},
  };
  return kTargets;
}

const TextTarget* FindTextTarget(std::string_view name) {
  for (const TextTarget& target : TextTargets()) {
    if (target.name == name) return &target;
  }
  return nullptr;
}

}  // namespace caravan::fuzz
