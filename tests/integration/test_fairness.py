"""A key that floods, beside others, through the real processes. What it does
to the others' times is measured by tests/bench/fairness.py."""

import concurrent.futures
import json
import urllib.request

import pytest
from suite import MODEL, Suite, wait_for

OTHERS = [f"key-{number}" for number in range(1, 4)]
FLOOD = "key-0"
FLOOD_STREAMS = 48


@pytest.fixture
def suite(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{key} tenant-of-{key}\n"
                            for key in [FLOOD, *OTHERS]))
    suite = Suite(tmp_path, "--api-keys", keys, "--threads", "1",
                  worker_flags=["--max-running", "8"])
    yield suite
    suite.stop()


def complete(suite, key, seed):
    """The text of a story."""
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 48,
            "temperature": 1, "seed": seed}
    request = urllib.request.Request(
        suite.url + "/v1/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + key})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)["choices"][0]["text"]


class Flood:
    """Streams of one key, renewed as they end."""

    def __init__(self, suite):
        self._suite = suite
        self._ended = False
        self._pool = concurrent.futures.ThreadPoolExecutor(FLOOD_STREAMS)
        self._runs = [self._pool.submit(self._run, number)
                      for number in range(FLOOD_STREAMS)]

    def _run(self, number):
        texts = {}
        for seed in range(number, 1_000_000, FLOOD_STREAMS):
            if self._ended:
                return texts
            texts[seed] = complete(self._suite, FLOOD, seed)

    def end(self):
        """The texts by seed."""
        self._ended = True
        texts = {}
        for run in self._runs:
            texts.update(run.result())
        self._pool.shutdown()
        return texts


def test_a_flood_waits_in_the_gateway_and_no_text_is_changed_by_it(suite):
    gateway = suite.services["gateway"]
    flood = Flood(suite)
    others = {}

    def is_over_its_share_and_waits():
        for key in OTHERS:
            seed = 10_000_000 + len(others)
            others[seed] = complete(suite, key, seed)
        metrics = gateway.metrics()
        return (metrics.sum("caravan_gateway_over_share_requests_total") > 0
                and metrics.sum("caravan_gateway_queued_requests") > 0)

    wait_for(is_over_its_share_and_waits, 120, "a flood that waits")
    flooded = flood.end()
    before = gateway.metrics().sum("caravan_gateway_over_share_requests_total")
    for seed in sorted(others)[-3:]:
        assert complete(suite, OTHERS[0], seed) == others[seed]
    for seed in sorted(flooded)[-5:]:
        assert complete(suite, FLOOD, seed) == flooded[seed]
    assert len(flooded) >= FLOOD_STREAMS
    # Nobody else was told to yield.
    assert before <= len(flooded)
