"""Generated templates give what Jinja gives in transformers' environment."""

import pytest

import expressions
import oracle
import test_render

SEED = 20261123
QUICK, LONG = 2_000, 30_000
SHOWN = 20

# What only Python can show: objects, and numbers beyond 64 bits.
PYTHON_ONLY = ("<generator", " object at ", "<bound method", "<built-in",
               "<class", "<function", "<Macro", "dict_", "range(", "<Undefined",
               "<LoopContext", "<Namespace", "Markup(", "inf", "nan")


def comparable(expected):
    kind, text = expected
    if any(mark in text for mark in PYTHON_ONLY):
        return False
    return not (kind == "text" and any(
        len(word.strip("-()[],'")) > 18 and word.strip("-()[],'").isdigit()
        for word in text.split()))


def compare(count):
    generator = expressions.Expressions(SEED)
    sources = [generator.next() for _ in range(count)]
    rows = []
    for source in sources:
        rows += [{"op": "template", "name": "t", "source": source,
                  "tokens": {}},
                 {"op": "render", "template": "t", "messages": [],
                  "tools": None, "add_generation_prompt": False,
                  "variables": expressions.VARIABLES}]
    answers = oracle.answers(rows)
    wrong = compared = 0
    for source, parsed, rendered in zip(sources, answers[::2], answers[1::2]):
        try:
            render = test_render.renderer(source, {})
            expected = render({"messages": [], "tools": None,
                               "add_generation_prompt": False,
                               "variables": expressions.VARIABLES})
        except Exception as error:  # the template does not compile
            expected = "failed", f"{type(error).__name__}: {error}"
        ours = test_render.ours_as_tuple(
            parsed if "error" in parsed else rendered)
        if not comparable(expected):
            continue
        compared += 1
        if test_render.same(expected, ours):
            continue
        wrong += 1
        if wrong <= SHOWN:
            print(f"{source}\n  expected {expected!a}\n  got      {ours!a}")
    print(f"{count} templates, {compared} comparable, {wrong} differ")
    assert not wrong


def test_templates_give_what_jinja_gives():
    compare(QUICK)


@pytest.mark.long
def test_templates_give_what_jinja_gives_at_length():
    compare(LONG)
