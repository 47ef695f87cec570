"""caravan replay: a receipt and its request give the same tokens again."""

import base64
import json

import httpx
import pytest

from suite import MODEL, run_cli

COMPLETION = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 40,
              "temperature": 0.9, "n": 2, "stop": ["zebra"],
              "frequency_penalty": 0.4}
CHAT = {"model": MODEL, "max_tokens": 24,
        "messages": [{"role": "user", "content": "Tell me of the desert"}]}


def answer_of(suite, path, body):
    reply = httpx.post(suite.url + path, json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply


def replay(suite, receipt, body, folder):
    request = folder / "request.json"
    request.write_text(json.dumps(body))
    return run_cli("replay", receipt, "--request", request, "--gateway",
                   suite.http, check=False)


@pytest.mark.parametrize("path,body", [("/v1/completions", COMPLETION),
                                       ("/v1/chat/completions", CHAT)])
def test_a_receipt_regenerates_its_response(suite, tmp_path, path, body):
    reply = answer_of(suite, path, body)  # the seed was drawn: it is not here
    done = replay(suite, reply.headers["x-caravan-receipt"], body, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equal: ")
    assert f"{body.get('n', 1)} choices" in done.stdout


def test_the_receipt_may_be_a_file_and_that_of_a_stream(suite, tmp_path):
    events = httpx.post(suite.url + "/v1/completions", timeout=60,
                        json={**COMPLETION, "stream": True}).text
    last = json.loads([line for line in events.splitlines()
                       if line.startswith("data: {")][-1][6:])
    file = tmp_path / "receipt"
    file.write_text(last["receipt"] + "\n")
    done = replay(suite, file, COMPLETION, tmp_path)
    assert done.returncode == 0, done.stderr


def test_another_prompt_is_told(suite, tmp_path):
    reply = answer_of(suite, "/v1/completions", COMPLETION)
    done = replay(suite, reply.headers["x-caravan-receipt"],
                  {**COMPLETION, "prompt": "Twice upon a time"}, tmp_path)
    assert done.returncode != 0
    assert "IDENTITY_MISMATCH" in done.stderr and "prompt" in done.stderr


def test_another_output_is_told(suite, tmp_path):
    reply = answer_of(suite, "/v1/completions", COMPLETION)
    done = replay(suite, reply.headers["x-caravan-receipt"],
                  {**COMPLETION, "logit_bias": {"17": 100}}, tmp_path)
    assert done.returncode != 0 and "IDENTITY_MISMATCH" in done.stderr


def test_what_is_no_receipt_is_refused(suite, tmp_path):
    for text in ("nonsense!", base64.b64encode(b"\xff" * 40).decode()):
        done = replay(suite, text, COMPLETION, tmp_path)
        assert done.returncode != 0 and "INVALID" in done.stderr
