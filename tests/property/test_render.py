"""Renderings of generated conversations equal those of transformers.

Where a template raises an exception of its own, the message is equal; where
Jinja fails in another way, ours fails too.
"""

import datetime
import json
import os

import pytest

import conversations
import oracle

SEED = 20261123
QUICK, LONG = 60, 2_000
SHOWN = 2


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 12, 34, 56, tzinfo=tz)


def renderer(source, tokens):
    """What transformers renders: ("text", T), ("raised", message) or
    ("failed", message)."""
    import jinja2
    from transformers.utils import chat_template_utils as utils
    utils.datetime = FixedClock
    raised = []
    compiled = utils._compile_jinja_template(source)

    def raise_exception(message):
        raised.append(message)
        raise jinja2.exceptions.TemplateError(message)

    def render(row):
        raised.clear()
        try:
            return "text", compiled.render(
                messages=row["messages"], tools=row["tools"], documents=None,
                add_generation_prompt=row["add_generation_prompt"],
                raise_exception=raise_exception, **{**tokens,
                                                    **row["variables"]})
        except Exception as error:  # whatever the template made Python do
            if raised:
                return "raised", str(raised[0])
            return "failed", f"{type(error).__name__}: {error}"

    return render


def ours_as_tuple(answer):
    if "text" in answer:
        return "text", answer["text"]
    return ("raised" if answer.get("raised") else "failed"), answer["error"]


def same(expected, ours):
    if expected[0] != ours[0]:
        return False
    return expected[0] == "failed" or expected[1] == ours[1]


def show(name, row, expected, ours):
    """Where the two begin to differ, and the row."""
    at = len(os.path.commonprefix([expected[1], ours[1]]))
    begin = max(0, at - 30)
    print(f"{name}: at {at}:\n"
          f"  expected {expected[0]} {expected[1][begin:at + 60]!a}\n"
          f"  got      {ours[0]} {ours[1][begin:at + 60]!a}\n"
          f"  {json.dumps(row)[:2000]}")


def compare(name, entry, folder, count):
    source = (folder / entry["file"]).read_text(encoding="utf-8")
    tokens = {key: entry[key] for key in ("bos_token", "eos_token")
              if entry.get(key) is not None}
    generator = conversations.Conversations(f"{SEED} {name}")
    rows = [generator.next() for _ in range(count)]
    ours = oracle.answers(
        [{"op": "template", "name": name, "source": source, "tokens": tokens}]
        + [{"op": "render", "template": name, **row} for row in rows])
    assert "error" not in ours[0], f"{name}: {ours[0]}"
    render = renderer(source, tokens)
    wrong, kinds = 0, {"text": 0, "raised": 0, "failed": 0}
    for row, answer in zip(rows, ours[1:]):
        expected = render(row)
        kinds[expected[0]] += 1
        if same(expected, ours_as_tuple(answer)):
            continue
        wrong += 1
        if wrong <= SHOWN:
            show(name, row, expected, ours_as_tuple(answer))
    print(f"{name}: {count} conversations, {kinds}, {wrong} differ")
    return wrong


def run(data, count):
    folder = data / "chat-templates"
    index = json.loads((folder / "templates.json").read_text())
    wrong = {name: compare(name, entry, folder, count)
             for name, entry in index.items()}
    wrong = {name: n for name, n in wrong.items() if n}
    assert not wrong, f"of {count} conversations each: {wrong}"
    print(f"{len(index)} templates, {count} conversations each")


def test_renderings_equal_those_of_transformers(data):
    run(data, QUICK)


@pytest.mark.long
def test_renderings_equal_those_of_transformers_at_length(data):
    run(data, LONG)
