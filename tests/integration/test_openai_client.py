"""The openai package against the gateway's HTTP door."""

import math

import openai
import pytest

from suite import MODEL

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def client(suite):
    with openai.OpenAI(base_url=suite.url + "/v1", api_key="none",
                       max_retries=0, timeout=60) as value:
        yield value


def complete(client, **fields):
    arguments = dict(model=MODEL, prompt=PROMPT, max_tokens=24, seed=11)
    arguments.update(fields)
    return client.completions.create(**arguments)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_completion_has_text_usage_and_a_finish(client):
    reply = complete(client)
    assert reply.object == "text_completion"
    assert reply.choices[0].text
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.prompt_tokens == 5  # BOS and four words
    assert 0 < reply.usage.completion_tokens <= 24
    assert reply.usage.total_tokens == (reply.usage.prompt_tokens +
                                        reply.usage.completion_tokens)


def test_the_same_seed_gives_the_same_text_and_another_one_another(client):
    texts = {complete(client, seed=5, max_tokens=48).choices[0].text
             for _ in range(3)}
    assert len(texts) == 1
    assert complete(client, seed=6, max_tokens=48).choices[0].text not in texts


def test_a_stream_is_the_unary_text_in_pieces(client):
    whole = complete(client)
    pieces = list(complete(client, stream=True,
                           stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert text == whole.choices[0].text
    finishes = [piece.choices[0].finish_reason for piece in pieces
                if piece.choices and piece.choices[0].finish_reason]
    assert finishes == [whole.choices[0].finish_reason]
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len(pieces) > 5


def test_chat_answers(client):
    reply = client.chat.completions.create(
        model=MODEL, seed=3, max_tokens=40,
        messages=[{"role": "user", "content": "Tell me a story about a cat."}])
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.content
    assert reply.system_fingerprint


def test_chat_streams(client):
    arguments = dict(model=MODEL, seed=3, max_tokens=40, messages=[
        {"role": "system", "content": "You tell stories."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]}])
    whole = client.chat.completions.create(**arguments)
    pieces = list(client.chat.completions.create(stream=True, **arguments))
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces
                   if piece.choices)
    assert text == whole.choices[0].message.content


def test_two_choices_differ_and_each_is_reproducible(client):
    reply = complete(client, n=2, max_tokens=40, temperature=1)
    again = complete(client, n=2, max_tokens=40, temperature=1)
    assert sorted(choice.index for choice in reply.choices) == [0, 1]
    texts = {choice.index: choice.text for choice in reply.choices}
    assert texts == {choice.index: choice.text for choice in again.choices}
    assert texts[0] != texts[1]
    alone = complete(client, n=1, max_tokens=40, temperature=1)
    assert alone.choices[0].text == texts[0]


def test_a_stop_text_ends_the_output_and_is_left_out(client):
    whole = complete(client, temperature=0, max_tokens=48).choices[0].text
    stop = whole.split()[3]
    reply = complete(client, temperature=0, max_tokens=48, stop=[stop])
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].text == whole[:whole.index(stop)]


def test_completion_logprobs_match_the_tokens(client):
    reply = complete(client, logprobs=2, temperature=0, max_tokens=8)
    logprobs = reply.choices[0].logprobs
    assert "".join(logprobs.tokens) == reply.choices[0].text
    assert len(logprobs.token_logprobs) == reply.usage.completion_tokens
    for value, top in zip(logprobs.token_logprobs, logprobs.top_logprobs):
        assert value <= 0 and math.isfinite(value)
        assert value == max(top.values())  # greedy


def test_chat_logprobs_carry_bytes(client):
    reply = client.chat.completions.create(
        model=MODEL, seed=3, max_tokens=6, logprobs=True, top_logprobs=3,
        messages=[{"role": "user", "content": "Hi"}])
    content = reply.choices[0].logprobs.content
    assert content and all(len(token.top_logprobs) == 3 for token in content)
    text = b"".join(bytes(token.bytes) for token in content).decode()
    assert text.startswith(reply.choices[0].message.content)


def test_an_unknown_model_is_a_404_that_names_it(client):
    with pytest.raises(openai.NotFoundError) as error:
        complete(client, model="nobody")
    assert "nobody" in str(error.value)


def test_an_unsupported_parameter_is_named(client):
    with pytest.raises(openai.BadRequestError) as error:
        complete(client, suffix="the end.")
    assert error.value.body["param"] == "suffix"
