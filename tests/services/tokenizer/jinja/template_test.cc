#include "services/tokenizer/jinja/template.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "tests/support/status_matchers.h"

namespace caravan::jinja {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

const absl::Time kNow = absl::FromCivil(
    absl::CivilSecond(2024, 7, 26, 12, 34, 56), absl::UTCTimeZone());

Dict Variables(std::string_view json) {
  auto value = ParseJson(json);
  EXPECT_OK(value);
  return value.ok() ? value->dict() : Dict();
}

absl::StatusOr<Text> RenderText(std::string_view source,
                                std::string_view variables = "{}",
                                const Limits& limits = {}) {
  auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(Variables(variables), kNow, absl::UTCTimeZone(),
                        limits);
}

// The rendering, or the error's message.
std::string Render(std::string_view source, std::string_view variables = "{}") {
  const auto text = RenderText(source, variables);
  return text.ok() ? text->bytes()
                   : "error: " + std::string(text.status().message());
}

TEST(TemplateTest, AppliesTheWhiteSpaceRulesOfHuggingFace) {
  EXPECT_EQ(Render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(Render("a {%- if true -%} b {%- endif -%} c"), "abc");
  EXPECT_EQ(Render("a\n{{- 'x' -}}\n b"), "axb");
  EXPECT_EQ(Render("a\n  {%+ if true %}b{% endif %}"), "a\n  b");
  EXPECT_EQ(Render("{# note #}\nx"), "x");
  EXPECT_EQ(Render("  {{ 1 }}\n\n"), "  1\n");
  EXPECT_EQ(Render("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
  EXPECT_EQ(Render("x\r\n{{ 1 }}"), "x\n1");
}

TEST(TemplateTest, EvaluatesExpressions) {
  EXPECT_EQ(Render("{{ 1 + 2 * 3 - 4 // 3 }}"), "6");
  EXPECT_EQ(Render("{{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}"),
            "3.5 -4 2 1024");
  EXPECT_EQ(Render("{{ 'a' ~ 1 ~ none }}"), "a1None");
  EXPECT_EQ(Render("{{ 'x' * 3 }}{{ [1] + [2] }}"), "xxx[1, 2]");
  EXPECT_EQ(Render("{{ 1 < 2 < 3 }} {{ not 1 == 2 }}"), "True True");
  EXPECT_EQ(Render("{{ 'a' if false else 'b' }}{{ 'c' if false }}"), "b");
  EXPECT_EQ(Render("{{ 'b' in 'abc' }} {{ 3 not in [1, 2] }}"), "True True");
  EXPECT_EQ(Render("{{ (1, 'a', 1.5, none, true) }}"),
            "(1, 'a', 1.5, None, True)");
  EXPECT_EQ(Render("{{ {'a': [1, {'b': 2}]} }}"), "{'a': [1, {'b': 2}]}");
  EXPECT_EQ(Render("{{ 'it\\'s' ~ \"\\u00e9\\n\" }}"), "it's\xC3\xA9\n");
  EXPECT_EQ(Render("{{ [1e16, 1.0, 0.0001, 1e-5] }}"),
            "[1e+16, 1.0, 0.0001, 1e-05]");
}

TEST(TemplateTest, SlicesAsPythonDoes) {
  EXPECT_EQ(Render("{{ 'h\xC3\xA9llo'[1:3] }}"), "\xC3\xA9l");
  EXPECT_EQ(Render("{{ 'hello'[::-1] }} {{ 'hello'[-3:] }}"), "olleh llo");
  EXPECT_EQ(Render("{{ [1,2,3,4][1:] }} {{ [1,2,3,4][:-1:2] }}"),
            "[2, 3, 4] [1, 3]");
  EXPECT_EQ(Render("{{ [1,2][5:] }}{{ 'ab'[9] }}"), "[]");
}

TEST(TemplateTest, LoopsHaveTheirVariablesAndScopes) {
  EXPECT_EQ(Render("{% for x in [1,2,3] %}{{ loop.index }}/{{ loop.length }}"
                   "{{ ',' if not loop.last }}{% endfor %}"),
            "1/3,2/3,3/3");
  EXPECT_EQ(Render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}"
                   "{% endfor %}{{ x }}"),
            "1");
  EXPECT_EQ(Render("{% set ns = namespace(x=1) %}{% for i in [1] %}"
                   "{% set ns.x = 2 %}{% endfor %}{{ ns.x }}"),
            "2");
  EXPECT_EQ(Render("{% for x in [] %}a{% else %}b{% endfor %}"), "b");
  EXPECT_EQ(Render("{% for x in [1,2,3,4] if x % 2 == 0 %}{{ x }}"
                   "{{ loop.last }}{% endfor %}"),
            "2False4True");
  EXPECT_EQ(Render("{% for x in range(9) %}{% if x == 2 %}{% continue %}"
                   "{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}"
                   "{% endfor %}"),
            "013");
  EXPECT_EQ(Render("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}"
                   "{% endfor %}"),
            "a1b2");
  EXPECT_EQ(Render("{% for x in tree recursive %}{{ x.n }}"
                   "{{ loop(x.c) if x.c }}{% endfor %}",
                   R"({"tree":[{"n":1,"c":[{"n":2},{"n":3}]}]})"),
            "123");
}

TEST(TemplateTest, MacrosFiltersAndBlocks) {
  EXPECT_EQ(Render("{% macro f(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}"
                   "{{ f(1) }}{{ f(2, b=3) }}"),
            "[1x][23]");
  EXPECT_EQ(Render("{% macro f() %}<{{ caller() }}>{% endmacro %}"
                   "{% call f() %}in{% endcall %}"),
            "<in>");
  EXPECT_EQ(Render("{% set x %}  a {% endset %}{{ x | trim | upper }}"), "A");
  EXPECT_EQ(Render("{% filter upper %}abc{% endfilter %}"), "ABC");
  EXPECT_EQ(Render("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}"), "3");
  EXPECT_EQ(Render("{% generation %}x{% endgeneration %}"), "x");
}

TEST(TemplateTest, FiltersWorkAsInJinja) {
  EXPECT_EQ(Render("{{ [3,1,2] | sort | join(',') }}"), "1,2,3");
  EXPECT_EQ(Render("{{ x | default('d') }}{{ '' | default('e', true) }}"),
            "de");
  EXPECT_EQ(Render("{{ [{'a':1},{'a':2}] | map(attribute='a') | list }}"),
            "[1, 2]");
  EXPECT_EQ(Render("{{ [1,2,3] | select('odd') | list }}"), "[1, 3]");
  EXPECT_EQ(Render("{{ [{'a':1},{'b':2}] | selectattr('a', 'defined') | "
                   "list | length }}"),
            "1");
  EXPECT_EQ(Render("{{ 'stra\xC3\x9F"
                   "e' | upper }}"),
            "STRASSE");
  EXPECT_EQ(Render("{{ 'hello world' | title }} {{ 'hELLO' | capitalize }}"),
            "Hello World Hello");
  EXPECT_EQ(Render("{{ '%s-%02d' | format('a', 7) }}"), "a-07");
  EXPECT_EQ(Render("{{ ('12' | int) + 1 }} {{ '1.5' | float }}"), "13 1.5");
  EXPECT_EQ(Render("{{ 'a\nb' | indent(2) }}"), "a\n  b");
  EXPECT_EQ(Render("{{ {'b':1,'a':2} | dictsort }}"), "[('a', 2), ('b', 1)]");
  EXPECT_EQ(Render("{{ [1,2,3,4,5] | batch(2) | list }}"),
            "[[1, 2], [3, 4], [5]]");
  EXPECT_EQ(Render("{{ 'a b'.split() }} {{ 'a,b,c'.rsplit(',', 1) }}"),
            "['a', 'b'] ['a,b', 'c']");
}

TEST(TemplateTest, WritesJsonAsPythonDoes) {
  constexpr std::string_view kValue =
      R"({"v":{"a":[1,2.5,"\u00e9<&"],"b":null,"c":{},"d":true}})";
  EXPECT_EQ(Render("{{ v | tojson }}", kValue),
            "{\"a\": [1, 2.5, \"\xC3\xA9<&\"], \"b\": null, \"c\": {}, "
            "\"d\": true}");
  EXPECT_EQ(Render("{{ v | tojson(indent=2) }}", kValue),
            "{\n  \"a\": [\n    1,\n    2.5,\n    \"\xC3\xA9<&\"\n  ],\n"
            "  \"b\": null,\n  \"c\": {},\n  \"d\": true\n}");
  EXPECT_EQ(Render("{{ '\xC3\xA9\xF0\x9F\x98\x80' | "
                   "tojson(ensure_ascii=true) }}"),
            "\"\\u00e9\\ud83d\\ude00\"");
}

TEST(TemplateTest, ReprEscapesWhatPythonDoesNotPrint) {
  EXPECT_EQ(Render("{{ v }}", R"({"v":["\u0085\u00a0\u2028\ud83d\ude00"]})"),
            "['\\x85\\xa0\\u2028\xF0\x9F\x98\x80']");
  EXPECT_EQ(Render("{{ v }}", R"({"v":["\ud800\udf20\udb40\udc01\u0000"]})"),
            "['\xF0\x90\x8C\xA0\\U000e0001\\x00']");
}

TEST(TemplateTest, MapAndSelectTakeNothingOutOfNone) {
  EXPECT_EQ(Render("[{{ none | selectattr('a') | map('trim') | join }}]"),
            "[]");
  EXPECT_THAT(Render("{{ 1 | map('trim') | join }}"), HasSubstr("iterable"));
}

// Found by tests/property/test_expressions.py.
TEST(TemplateTest, RareCornersAreThoseOfPython) {
  EXPECT_EQ(
      Render("{{ 7 | round }} {{ 2.675 | round(2) }} {{ -1 | round(-1) }}"),
      "7 2.67 0");
  EXPECT_EQ(Render("{{ '%s-x y'|title }} {{ 'a,b'|title }}"), "%s-X Y A,b");
  EXPECT_EQ(Render("{{ 'abc'.center(6) }}|{{ 'ab'.center(5) }}|"),
            " abc  |  ab |");
  EXPECT_EQ(Render("{{ '-7'.zfill(5) }} {{ '%05.1f' % -1 }} {{ '%x' % 255 }}"),
            "-0007 -01.0 ff");
  EXPECT_EQ(Render("{{ '%(a)s' % {'a': 1} }}{{ 'x' % [] }}"), "1x");
  EXPECT_EQ(Render("{{ 'abcabc'.find('c', 3) }}{{ 'abc'.startswith('b', 1) }}"
                   "{{ 'aXa'.count('a', 1, 9) }}"),
            "5True1");
  EXPECT_EQ(Render("{{ [{'a':2,'b':1},{'a':1,'b':3},{'a':1,'b':2}] | "
                   "sort(attribute='a,b') | map(attribute='b') | list }}"),
            "[2, 3, 1]");
  EXPECT_EQ(Render("{{ 'a\nb\n' | indent(2) }}|"), "a\n  b\n|");
  EXPECT_EQ(Render("{{ {'a b': '/'} | urlencode }}"), "a+b=%2F");
  EXPECT_THAT(Render("{{ x | int }}"), HasSubstr("undefined"));
}

TEST(TemplateTest, UndefinedPrintsNothingAndHasNoMembers) {
  EXPECT_EQ(Render("[{{ x }}{{ d.x }}]", R"({"d":{}})"), "[]");
  EXPECT_EQ(Render("{{ x is defined }}{{ x is not defined }}"), "FalseTrue");
  EXPECT_THAT(Render("\n{{ x.y }}"), HasSubstr("line 2: 'x' is undefined"));
  EXPECT_THAT(Render("{{ x + 'a' }}"), HasSubstr("'x' is undefined"));
}

TEST(TemplateTest, RaiseExceptionGivesItsMessageAsItIs) {
  EXPECT_THAT(RenderText("{{ raise_exception('no ' ~ 'way') }}"),
              HasReason(Reason::kTemplateError, ::testing::Eq("no way")));
}

TEST(TemplateTest, StrftimeNowUsesTheGivenClock) {
  EXPECT_EQ(Render("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
}

TEST(TemplateTest, EveryByteKnowsItsOrigin) {
  const auto text = RenderText("<s>{{ m | trim }}{{ m.upper()[1:] ~ '</s>' }}",
                               R"({"m":" ab "})");
  ASSERT_OK(text);
  EXPECT_EQ(text->bytes(), "<s>abAB </s>");
  const auto runs = text->Runs();
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[1].bytes, "abAB ");
  EXPECT_EQ(runs[1].origin, Origin::kValue);
  EXPECT_EQ(runs[2].bytes, "</s>");
  EXPECT_EQ(runs[2].origin, Origin::kTemplate);
}

TEST(TemplateTest, ValuesCannotBeChanged) {
  EXPECT_THAT(Render("{{ [1].append(2) }}"), HasSubstr("not allowed"));
  EXPECT_THAT(Render("{{ {}.update({}) }}"), HasSubstr("not allowed"));
}

TEST(TemplateTest, BrokenTemplatesAreRefusedWithTheirLine) {
  for (const char* const source :
       {"\n{{ 1 +", "\n{% if x %}", "\n{% nonsense %}", "\n{{ 'a }}",
        "\n{{ (1 }}", "\n{# x", "\n{{ a | }}", "\n{% for x %}{% endfor %}",
        "\n{% endif %}", "\n{{ f(a=1, 2) }}", "\n{% break %}", "\n{% raw %} x",
        "\n{{ 1 ! 2 }}"}) {
    EXPECT_THAT(Template::Parse(source),
                HasReason(Reason::kTemplateError, HasSubstr("line 2")))
        << source;
  }
  EXPECT_THAT(Render("{{ 1 | nofilter }}"), HasSubstr("nofilter"));
  EXPECT_THAT(Render("{{ 1 is notest }}"), HasSubstr("notest"));
}

TEST(TemplateTest, HostileTemplatesEndWithAnError) {
  Limits limits;
  limits.max_steps = 10'000;
  limits.max_allocated_bytes = 1 << 20;
  limits.max_output_bytes = 1 << 16;
  for (const char* const source :
       {"{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}"
        "{% endfor %}{% endfor %}",
        "{{ 'x' * 999999999 }}", "{{ [0] * 999999999 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(v=[]) %}{% for i in range(1000) %}"
        "{% set ns.v = [ns.v] %}{% endfor %}",
        "{% set ns = namespace(v='x') %}{% for i in range(100) %}"
        "{% set ns.v = ns.v ~ ns.v %}{% endfor %}",
        "{{ 'a'.ljust(999999999) }}", "{{ 'aaaa'.replace('', 'x' * 500000) }}",
        "{{ 9223372036854775807 + 1 }}", "{{ 1 // 0 }}", "{{ 10 ** 100 }}",
        "{{ range(0, 10, 0) }}"}) {
    EXPECT_THAT(RenderText(source, "{}", limits),
                HasReason(Reason::kTemplateError))
        << source;
  }
  EXPECT_THAT(Template::Parse("{{ " + std::string(5000, '(') + " }}"),
              HasReason(Reason::kTemplateError));
  std::string operators = "{{ 1";
  for (int i = 0; i < 5000; ++i) operators += " + 1";
  EXPECT_THAT(Template::Parse(operators + " }}"),
              HasReason(Reason::kTemplateError));
}

TEST(TemplateTest, ANamespaceThatHoldsItselfIsForgotten) {
  EXPECT_EQ(Render("{% set n = namespace() %}{% set n.me = n %}"
                   "{% macro m() %}x{% endmacro %}{% set n.m = m %}"
                   "{{ n.me.m() }}"),
            "x");
}

TEST(ParseJsonTest, RefusesBrokenAndDeepJson) {
  EXPECT_THAT(ParseJson("{\"a\":"), HasReason(Reason::kMalformedJson));
  EXPECT_THAT(ParseJson(std::string(1000, '[')),
              HasReason(Reason::kMalformedJson));
}

}  // namespace
}  // namespace caravan::jinja
