"""The HTTP door beyond what the openai package sends."""

import base64
import json

import httpx
import pytest

from suite import MODEL


@pytest.fixture(scope="module")
def http(suite):
    with httpx.Client(base_url=suite.url, timeout=60) as client:
        yield client


def complete(http, **fields):
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 16,
            "seed": 4, "return_token_ids": True}
    body.update(fields)
    reply = http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def test_health_and_readiness(http):
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200


def test_tokenize_and_detokenize_are_inverse(http):
    text = "It's 3 cats; café 你好"
    reply = http.post("/tokenize", json={
        "model": MODEL, "prompt": text, "add_special_tokens": False}).json()
    assert reply["count"] == len(reply["tokens"]) > 5
    back = http.post("/detokenize", json={"model": MODEL,
                                          "tokens": reply["tokens"]}).json()
    assert back["prompt"] == text


def test_special_tokens_in_user_text_are_text(http):
    reply = http.post("/tokenize", json={
        "model": MODEL, "prompt": "<|eot_id|>",
        "add_special_tokens": False}).json()
    assert reply["count"] > 1 and 4094 not in reply["tokens"]


def test_a_prompt_of_ids_gives_the_texts_tokens(http):
    by_text = complete(http).json()["choices"][0]
    ids = by_text["prompt_token_ids"] if "prompt_token_ids" in by_text else (
        http.post("/tokenize", json={"model": MODEL,
                                     "prompt": "Once upon a time"})
        .json()["tokens"])
    by_ids = complete(http, prompt=ids).json()["choices"][0]
    assert by_ids["token_ids"] == by_text["token_ids"]


def test_several_prompts_have_their_choices_in_order(http):
    prompts = ["Once upon a time", "The cat"]
    reply = complete(http, prompt=prompts, n=2, temperature=1).json()
    assert [c["index"] for c in reply["choices"]] == [0, 1, 2, 3]
    for i, prompt in enumerate(prompts):
        alone = complete(http, prompt=prompt, n=2, temperature=1).json()
        assert ([c["text"] for c in alone["choices"]] ==
                [c["text"] for c in reply["choices"][2 * i:2 * i + 2]])


def test_echo_with_no_output_scores_the_prompt(http):
    reply = complete(http, max_tokens=0, echo=True, logprobs=0).json()
    choice = reply["choices"][0]
    assert choice["text"].endswith("Once upon a time")
    values = choice["logprobs"]["token_logprobs"]
    assert values[0] is None and all(v <= 0 for v in values[1:])
    assert reply["usage"]["completion_tokens"] == 0


def test_a_receipt_comes_with_every_answer(http):
    unary = complete(http)
    receipt = base64.b64decode(unary.headers["x-caravan-receipt"],
                               validate=True)
    assert 0 < len(receipt) < 2048
    with http.stream("POST", "/v1/completions", json={
            "model": MODEL, "prompt": "Hi", "max_tokens": 3, "seed": 1,
            "stream": True}) as reply:
        events = [line[6:] for line in reply.iter_lines()
                  if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert any("receipt" in json.loads(event) for event in events[:-1])


def test_the_same_prompt_again_hits_the_prefix_cache(suite, http):
    prompt = "There was a very old house near the lake. " * 12
    complete(http, prompt=prompt)
    before = suite.worker_sum("caravan_worker_prefix_hit_tokens_total")
    reply = complete(http, prompt=prompt)
    after = suite.worker_sum("caravan_worker_prefix_hit_tokens_total")
    assert after - before >= 16
    usage = reply.json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == after - before


def test_logprobs_are_equal_bit_for_bit_alone_and_in_company(http):
    fields = dict(logprobs=3, max_tokens=32, temperature=0.8)
    alone = complete(http, **fields).json()["choices"][0]
    company = complete(http, prompt=["Once upon a time"] * 8, **fields).json()
    for choice in company["choices"]:
        assert choice["token_ids"] == alone["token_ids"]
        assert choice["logprobs"]["token_logprobs"] == (
            alone["logprobs"]["token_logprobs"])
