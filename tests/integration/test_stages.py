"""A replica in several stages: the tokens and logprobs of one, whatever dies."""

import asyncio
import shutil
import signal
import subprocess

import httpx
import pytest

from hits import until_hit
from load import stream_completion
from suite import BIN, DEMO_MODEL, MODEL, wait_for

PROMPT = ("Once upon a time there was a little girl who lived near a forest "
          "and every morning she went to the river to look for ")

REQUESTS = [
    {"temperature": 0, "max_tokens": 24, "logprobs": 5},
    {"temperature": 0.9, "seed": 5, "max_tokens": 24, "logprobs": 2,
     "presence_penalty": 0.5, "repetition_penalty": 1.2},
    {"temperature": 1.1, "seed": 6, "n": 2, "max_tokens": 16, "logprobs": 0,
     "min_p": 0.02},
    {"temperature": 0, "max_tokens": 0, "echo": True, "logprobs": 1},
    {"temperature": 0.8, "seed": 9, "max_tokens": 40, "stop": [" the"]},
]


def answer(suite, **changes):
    body = {"model": MODEL, "prompt": PROMPT, "return_token_ids": True,
            **changes}
    reply = httpx.post(f"{suite.url}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return [(choice["token_ids"], choice["logprobs"], choice["finish_reason"])
            for choice in reply.json()["choices"]]


def answers(suite):
    return [answer(suite, **request) for request in REQUESTS]


def run_stream(suite, on_tokens=None, **changes):
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 400,
            "ignore_eos": True, "seed": 21, "temperature": 0.9, "logprobs": 1,
            "return_token_ids": True, **changes}
    return asyncio.run(stream_completion(suite.http, body,
                                         on_tokens=on_tokens))


def once_after(count, action):
    """Calls `action` when a stream has `count` tokens."""
    def check(outcome):
        if len(outcome.token_ids) >= count and not check.fired:
            check.fired = True
            action()

    check.fired = False
    return check


def first_stages(suite):
    return [service for name, service in sorted(suite.services.items())
            if name.startswith("worker-") and "stage" not in name]


def chains(service):
    return service.metrics().sum("caravan_worker_chains_formed_total")


def test_stages_one_two_and_four_give_equal_tokens_and_logprobs(start_suite):
    whole = start_suite("--threads", "1")
    expected = answers(whole)
    assert len(expected[0][0][0]) > 0
    whole.stop()
    for stages in (2, 4):
        suite = start_suite("--stages", stages, "--threads", "1")
        assert answers(suite) == expected, f"{stages} stages"
        metrics = suite.services["worker-1"].metrics()
        tokens = metrics.sum("caravan_worker_stage_sent_tokens_total")
        sent = metrics.sum("caravan_worker_stage_sent_bytes_total")
        assert tokens > 0 and sent / tokens < 4 * 256 + 200  # fp32 of 256
        assert metrics.sum("caravan_worker_stage_hop_seconds_count") > 0
        assert suite.stop() == 0


def test_ranks_one_two_and_four_give_equal_tokens_and_logprobs(start_suite):
    suite = start_suite("--threads", "1")
    expected = answers(suite)
    suite.stop()
    # Ranks in stages: each of two stages in four ranks, and one in two.
    for stages, ranks in ((1, 2), (2, 4)):
        suite = start_suite("--stages", stages, "--threads", ranks,
                            worker_flags=["--ranks", str(ranks)])
        assert answers(suite) == expected, f"{ranks} ranks"
        metrics = suite.services["worker-1"].metrics()
        assert metrics.sum("caravan_worker_ranks") == ranks
        for part in ("weights", "arena", "kv"):
            planned, taken = (
                metrics.sum(f"caravan_worker_{what}_bytes", part=part)
                for what in ("planned", "allocated"))
            assert planned == taken > 0, part
        for rank in range(ranks):
            for part in ("weights", "kv", "scratch"):
                planned, taken = (
                    metrics.sum(f"caravan_worker_rank_{what}_bytes",
                                part=part, rank=str(rank))
                    for what in ("planned", "allocated"))
                assert planned == taken > 0, (rank, part)
        assert suite.stop() == 0


def test_a_killed_stage_is_a_pause_for_the_client(start_suite):
    suite = start_suite("--workers", "2", "--stages", "2", "--threads", "1")
    expected = run_stream(suite)
    assert expected.finishes == ["length"]

    def kill_the_stage_behind():
        for service in first_stages(suite):
            if service.metrics().sum("caravan_worker_sequences",
                                     state="running") > 0:
                killed.append(service.name)
                suite.services[f"{service.name}-stage-1"].kill(signal.SIGKILL)
                return

    killed = []

    def attempt():
        hook = once_after(40, kill_the_stage_behind)
        outcome = run_stream(suite, hook)
        assert outcome.ends() == 1 and outcome.finishes == ["length"]
        assert outcome.facts() == expected.facts()
        return killed

    until_hit(attempt, lambda: None)
    # The chain forms again, and the replica serves what it served before.
    wait_for(lambda: chains(suite.services[killed[0]]) >= 2, 30,
             "another chain")
    assert run_stream(suite).facts() == expected.facts()


@pytest.mark.parametrize("count", [2])
def test_a_restarted_stage_gives_no_token_from_an_old_prefix(start_suite,
                                                             count):
    suite = start_suite("--stages", "2", "--threads", "1")
    request = {"temperature": 0.7, "seed": 3, "max_tokens": 32, "logprobs": 1}
    expected = answer(suite, **request)
    assert answer(suite, **request) == expected
    first = suite.services["worker-1"]
    hits = first.metrics().sum("caravan_worker_prefix_hit_tokens_total")
    assert hits > 0  # the replica had a prefix index
    pid = first.pid
    for life in range(count):
        suite.services["worker-1-stage-1"].kill(signal.SIGKILL)
        wait_for(lambda: chains(first) >= life + 2, 30, "another chain")
        wait_for(lambda: httpx.get(f"{suite.url}/readyz").status_code == 200,
                 30, "a placement")
        before = first.metrics().sum("caravan_worker_prefix_hit_tokens_total")
        assert answer(suite, **request) == expected
        after = first.metrics().sum("caravan_worker_prefix_hit_tokens_total")
        assert after == before  # nothing was found of the epoch before
    assert suite.services["worker-1"].pid == pid  # its weights stayed loaded


def make_certificate(folder):
    """Flags of a certificate for this machine that is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj",
         "/CN=caravan test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", cert], check=True, capture_output=True)
    return ["--tls-cert", cert, "--tls-key", key, "--tls-ca", cert]


def test_stages_talk_over_tls_and_refuse_who_shows_no_certificate(
        suite, start_fleet, tmp_path):
    flags = make_certificate(tmp_path)
    fleet = start_fleet(workers=0, chains=[2], tls_flags=flags)
    assert run_stream(fleet).facts() == run_stream(suite).facts()
    [stage] = fleet.group("stage")
    refused = subprocess.Popen(
        [BIN / "caravan-worker", "--model", DEMO_MODEL, "--port", "0",
         "--metrics-port", "0", "--stage", "0/2", "--next",
         stage.service.grpc], text=True, stderr=subprocess.PIPE)
    try:
        assert any("event=chain_not_formed" in line
                   for line in refused.stderr)
    finally:
        refused.kill()
        refused.wait()
    assert chains(stage) == 1  # and the one that stood still does
    assert run_stream(fleet).ends() == 1
