// Templates that loop for ever, nest for ever or multiply what they hold. Each
// ends with an error when it has used up its steps, whatever a step does: the
// test counts steps, README.md says what time they take.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "services/tokenizer/jinja/template.h"
#include "tests/support/status_matchers.h"

namespace caravan::jinja {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

struct Hostile {
  const char* name;
  const char* source;
};

constexpr Hostile kHostile[] = {
    {"nested for",
     "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}"
     "{% endfor %}{% endfor %}"},
    {"empty nested for",
     "{% set r = range(99999) %}{% for a in r %}{% for b in r %}"
     "{% endfor %}{% endfor %}"},
    {"for if",
     "{% set r = range(9999) %}{% for a in r %}{% for b in r if b < 0 %}"
     "{% endfor %}{% endfor %}"},
    {"doubling list shown",
     "{% set ns = namespace(v=['a'], s='x') %}{% for i in range(60) %}"
     "{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v }}"},
    {"doubling list json",
     "{% set ns = namespace(v=['a'], s='x') %}{% for i in range(60) %}"
     "{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v | tojson }}"},
    {"doubling list equal",
     "{% set ns = namespace(v=['a'], s='x') %}"
     "{% set ms = namespace(v=['a']) %}{% for i in range(60) %}"
     "{% set ns.v = [ns.v, ns.v] %}{% set ms.v = [ms.v, ms.v] %}"
     "{% endfor %}{{ ns.v == ms.v }}"},
    {"doubling list less",
     "{% set ns = namespace(v=['a'], s='x') %}"
     "{% set ms = namespace(v=['a']) %}{% for i in range(60) %}"
     "{% set ns.v = [ns.v, ns.v] %}{% set ms.v = [ms.v, ms.v] %}"
     "{% endfor %}{{ ns.v < ms.v }}"},
    {"doubling dict shown",
     "{% set ns = namespace(v=['a'], s='x') %}{% for i in range(60) %}"
     "{% set ns.v = {'a': ns.v, 'b': ns.v} %}{% endfor %}{{ ns.v }}"},
    {"doubling text",
     "{% set ns = namespace(v=['a'], s='x') %}{% for i in range(100) %}"
     "{% set ns.s = ns.s ~ ns.s %}{% endfor %}"},
    {"json indent deep",
     "{% set ns = namespace(v=['a'], s='x') %}{% for i in range(150) %}"
     "{% set ns.v = [ns.v] %}{% endfor %}{% set w = [ns.v]*9999 %}"
     "{{ w | tojson(indent=64) }}"},
    {"list eq",
     "{% set a = range(99999) | list %}{% set b = range(99999) | list %}"
     "{% for i in a %}{% if a == b %}{% endif %}{% endfor %}"},
    {"str eq",
     "{% set a = 'x' * 999999 %}{% set b = 'x' * 999999 %}"
     "{% for i in range(99999) %}{% if a == b %}{% endif %}{% endfor %}"},
    {"quadratic find",
     "{% set a = 'a' * 499999 %}{% set b = 'a' * 999999 ~ 'b' %}"
     "{% for i in range(999) %}{% if b in a %}{% endif %}{% endfor %}"},
    {"quadratic rfind",
     "{% set a = 'a' * 999999 %}{% set b = 'b' ~ 'a' * 499999 %}"
     "{% for i in range(999) %}{{ a.rfind(b) }}{% endfor %}"},
    {"length",
     "{% set a = 'a' * 999999 %}{% for i in range(99999) %}"
     "{{ a | length }}{% endfor %}"},
    {"index",
     "{% set a = 'a' * 999999 %}{% for i in range(99999) %}{{ a[5] }}"
     "{% endfor %}"},
    {"slice",
     "{% set a = 'a' * 999999 %}{% for i in range(99999) %}{{ a[1:2] }}"
     "{% endfor %}"},
    {"reverse slice",
     "{% set a = 'a' * 999999 %}{% for i in range(99999) %}{{ a[::-1] }}"
     "{% endfor %}"},
    {"upper",
     "{% set a = '\xC3\xA9"
     "' * 999999 %}{% for i in range(99999) %}"
     "{% set b = a | upper %}{% endfor %}"},
    {"title",
     "{% set a = 'ab ' * 999999 %}{% for i in range(99999) %}"
     "{% set b = a | title %}{% endfor %}"},
    {"trim",
     "{% set a = ' ' * 999999 %}{% for i in range(99999) %}"
     "{% set b = a | trim %}{% endfor %}"},
    {"split newline",
     "{% set a = '\\n' * 999999 %}{{ a.split('\\n') | length }}"},
    {"split space", "{% set a = 'a ' * 999999 %}{{ a.split() | length }}"},
    {"splitlines", "{% set a = '\\n' * 999999 %}{{ a.splitlines() | length }}"},
    {"indent", "{% set a = '\\n' * 999999 %}{{ a | indent }}"},
    {"wordcount",
     "{% set a = 'a ' * 499999 %}{% for i in range(99) %}"
     "{{ a | wordcount }}{% endfor %}"},
    {"count",
     "{% set a = 'a' * 999999 %}{% for i in range(99) %}"
     "{{ a.count('a') }}{% endfor %}"},
    {"replace empty", "{{ ('a'*99999).replace('', 'x' * 50000) }}"},
    {"replace many",
     "{% set a = 'a' * 999999 %}{% for i in range(99) %}"
     "{% set b = a | replace('a', '') %}{% endfor %}"},
    {"format list", "{% set a = 'x' * 999999 %}{{ ('{0}' * 9999).format(a) }}"},
    {"chars",
     "{% set a = 'a' * 999999 %}{% for i in range(999) %}"
     "{% for c in a %}{% endfor %}{% endfor %}"},
    {"list",
     "{% set a = 'a' * 999999 %}{% for i in range(999) %}"
     "{% set x = a | list %}{% endfor %}"},
    {"sort",
     "{% set a = range(99999) | map('string') | list %}"
     "{% for i in range(999) %}{% set x = a | sort %}{% endfor %}"},
    {"unique",
     "{% set a = range(99999) | list %}{{ a | unique | list | length }}"},
    {"join",
     "{% set a = range(99999) | list %}{% for i in range(999) %}"
     "{% set x = a | join('x' * 100) %}{% endfor %}"},
    {"recursive macro", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"},
    {"macro tree",
     "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}"
     "{% endif %}{% endmacro %}{{ f(90) }}"},
    {"macro calls",
     "{% macro f(a, b=1, c=2) %}{% endmacro %}"
     "{% for i in range(99999) %}{{ f(1) }}{{ f(2, 3) }}{{ f(b=2) }}"
     "{{ f(1,2,3,4) }}{% endfor %}"},
    {"recursive loop",
     "{% for a in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}"},
    {"batch",
     "{% for i in range(99999) %}{% set x = [1] | batch(99999, 'x') %}"
     "{% endfor %}"},
    {"slice filter",
     "{% for i in range(99999) %}{% set x = [1] | slice(9999) %}"
     "{% endfor %}"},
    {"ljust", "{{ 'a'.ljust(99999999) }}"},
    {"center loop",
     "{% for i in range(99999) %}{% set x = 'a' | center(99999) %}"
     "{% endfor %}"},
    {"range",
     "{% for i in range(99999) %}{% set x = range(99999) %}{% endfor %}"},
    {"arith",
     "{% for a in range(99999) %}{% for b in range(99) %}"
     "{% set x = a * b + a - b // 3 %}{% endfor %}{% endfor %}"},
    {"strftime",
     "{% for i in range(99999) %}{% set x = strftime_now('%c' * 500) %}"
     "{% endfor %}"},
    {"methods",
     "{% for i in range(99999) %}"
     "{{ 'a'.strip().upper().lower().replace('a', 'b').split('b') }}"
     "{% endfor %}"},
    {"filters",
     "{% for i in range(99999) %}"
     "{{ 'a' | trim | upper | lower | replace('a', 'b') | default('x') | "
     "length }}"
     "{% endfor %}"},
    {"selectattr",
     "{% set l = [{'a': 1}] * 9999 %}{% for i in range(999) %}"
     "{% set x = l | selectattr('a', 'equalto', 1) | list %}{% endfor %}"},
    {"groupby",
     "{% set l = [{'a': 1}] * 9999 %}{% for i in range(999) %}"
     "{% set x = l | groupby('a') %}{% endfor %}"},
    {"sum lists", "{% set l = [[1]] * 99999 %}{{ l | sum(start=[]) }}"},
    {"sum texts", "{% set l = ['xxxx'] * 99999 %}{{ l | sum(start='') }}"},
    {"set block",
     "{% for i in range(99999) %}{% set x %}"
     "{% for c in 'aaaaaaaaaaaaaaaa' %}{{ c }}{% endfor %}{% endset %}"
     "{% endfor %}"},
    {"call block",
     "{% macro m() %}{{ caller() }}{% endmacro %}"
     "{% for i in range(99999) %}{% call m() %}a{% endcall %}"
     "{% endfor %}"},
    {"urlencode",
     "{% set a = '\xC3\xA9"
     "' * 999999 %}{% for i in range(99) %}"
     "{% set x = a | urlencode %}{% endfor %}"},
    {"escape",
     "{% set a = '<' * 999999 %}{% for i in range(99) %}"
     "{% set x = a | escape %}{% endfor %}"},
    {"truncate",
     "{% set a = 'a' * 999999 %}{% for i in range(999) %}"
     "{% set x = a | truncate(5) %}{% endfor %}"},
    {"isupper",
     "{% set a = '\xC3\xA9"
     "' * 999999 %}{% for i in range(99) %}"
     "{% if a is upper %}{% endif %}{{ a.isalpha() }}{% endfor %}"},
    {"json string",
     "{% set a = '\\n' * 999999 %}{% for i in range(99) %}"
     "{% set x = a | tojson %}{% endfor %}"},
    {"repr string",
     "{% set a = ['\\u0085' * 999999] %}{% for i in range(99) %}"
     "{% set x = a | string %}{% endfor %}"},
    {"changed",
     "{% set a = range(99999) | list %}{% for i in a %}"
     "{{ loop.changed(a) }}{% endfor %}"},
    {"namespace",
     "{% for i in range(99999) %}{% set x = namespace(a=1, b=2, c=3) %}"
     "{% set x.d = x %}{% endfor %}"},
    {"cycler",
     "{% set c = cycler('a', 'b') %}{% for i in range(99999) %}"
     "{{ c.next() }}{{ c.current }}{% endfor %}"},
    {"concat list",
     "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}"
     "{% set ns.l = ns.l + [i] %}{% endfor %}"},
    {"output", "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}"},
};

absl::Status Outcome(std::string_view source, const Limits& limits) {
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(Dict(), absl::UnixEpoch(), absl::UTCTimeZone(), limits)
      .status();
}

const auto kLimitReached =
    AnyOf(HasSubstr("steps"), HasSubstr("bytes"), HasSubstr(" deep"));

TEST(HostileTemplateTest, EndsWithTheLimitThatItReached) {
  // A tenth of the default, so that sanitizers are done in time, too.
  Limits limits;
  limits.max_steps /= 10;
  limits.max_allocated_bytes /= 4;
  for (const Hostile& hostile : kHostile) {
    EXPECT_THAT(Outcome(hostile.source, limits),
                testing::HasReason(Reason::kTemplateError, kLimitReached))
        << hostile.name;
  }
}

TEST(HostileTemplateTest, EndsWithTheDefaultLimits) {
  for (const Hostile& hostile : kHostile) {
    const std::string_view name = hostile.name;
    if (name != "nested for" && name != "doubling list shown") continue;
    EXPECT_THAT(
        Outcome(hostile.source, {}),
        testing::HasReason(Reason::kTemplateError, HasSubstr("1000000 steps")))
        << name;
  }
}

TEST(HostileTemplateTest, ManyScopesAreNotFree) {
  std::string source;
  for (int i = 0; i < 90; ++i) source += "{% with a = 1 %}";
  source += "{% for i in range(99999) %}{{ x }}{{ x }}{{ x }}{% endfor %}";
  for (int i = 0; i < 90; ++i) source += "{% endwith %}";
  EXPECT_THAT(Outcome(source, {}),
              testing::HasReason(Reason::kTemplateError, HasSubstr("steps")));
}

// A long conversation is not hostile.
TEST(HostileTemplateTest, StepsGrowWithTheVariables) {
  const auto parsed = Template::Parse(
      "{% for m in messages %}{{ '<' ~ m['role'] ~ '>' ~ m['content'] | trim "
      "}}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}");
  ASSERT_OK(parsed);
  List messages;
  for (int i = 0; i < 50'000; ++i) {
    Dict message;
    message.Set(Value::String("role"), Value::String("user"));
    message.Set(Value::String("content"), Value::String(" some words "));
    messages.push_back(Value(std::move(message)));
  }
  messages.push_back(messages.back());
  Dict variables;
  variables.Set(Value::String("messages"),
                Value::MakeList(std::move(messages)));
  EXPECT_OK(
      parsed->Render(variables, absl::UnixEpoch(), absl::UTCTimeZone(), {}));
}

}  // namespace
}  // namespace caravan::jinja
