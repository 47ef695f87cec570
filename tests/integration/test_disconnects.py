"""256 streams, half of whose clients go away: nothing is left behind."""

import asyncio
import random

import pytest

from load import stream_completion
from suite import MODEL, wait_for

STREAMS = 256
OUTPUT_TOKENS = 96
KV_BLOCKS = 640
SLACK_BYTES = 64 << 20


@pytest.fixture
def small_kv_suite(start_suite):
    # 256 streams of 4 + 96 tokens need over 1,700 blocks: the cache is full
    # at the load's peak, and sequences are parked.
    return start_suite(worker_flags=["--kv-blocks", str(KV_BLOCKS),
                                     "--max-running", "256"])


class Peak:
    """Greatest use of the KV blocks that was seen while a load ran."""

    def __init__(self, suite):
        self.suite = suite
        self.leased = 0
        self.resident = 0

    def sample(self):
        metrics = self.suite.services["worker-1"].metrics()
        self.leased = max(self.leased, metrics.sum(
            "caravan_worker_kv_blocks", state="leased"))
        self.resident = max(self.resident, metrics.sum(
            "caravan_worker_resident_bytes"))

    async def watch(self, until):
        while not until.is_set():
            await asyncio.to_thread(self.sample)
            try:
                await asyncio.wait_for(until.wait(), 0.05)
            except asyncio.TimeoutError:
                pass


async def run_load(suite, seed, peak):
    dice = random.Random(seed)
    done = asyncio.Event()
    watcher = asyncio.create_task(peak.watch(done))
    streams = []
    for index in range(STREAMS):
        body = {"model": MODEL, "prompt": [4090, index + 1, 17, 99],
                "max_tokens": OUTPUT_TOKENS, "ignore_eos": True,
                "seed": index, "return_token_ids": True}
        leaves = dice.randrange(1, 60) if index % 2 else None
        streams.append(stream_completion(suite.http, body, leaves))
    outcomes = await asyncio.gather(*streams)
    done.set()
    await watcher
    return outcomes


def settled_counts(suite):
    """(descriptors, threads) of every process."""
    return {name: (service.fd_count(), service.thread_count())
            for name, service in suite.services.items()}


def assert_no_more_than(first, suite):
    """Libraries start threads under load, and end them when they idle."""
    def settled():
        return all(descriptors <= first[name][0] + 3 and
                   threads <= first[name][1] + 3
                   for name, (descriptors, threads)
                   in settled_counts(suite).items())

    wait_for(settled, 60, f"no more descriptors and threads than {first}")


@pytest.mark.timeout(600)
def test_streams_end_once_and_nothing_leaks(small_kv_suite):
    suite = small_kv_suite
    worker = suite.services["worker-1"]
    peak = Peak(suite)
    counts = []
    texts = []
    for round_index in range(3):
        print(f"seed {round_index}")
        outcomes = asyncio.run(run_load(suite, round_index, peak))
        stayed = [o for o in outcomes if not o.left]
        assert len(stayed) >= STREAMS // 2
        for outcome in stayed:
            assert outcome.status == 200 and not outcome.errors
            assert outcome.ends() == 1
            assert outcome.finishes == ["length"]
            assert len(outcome.token_ids) == OUTPUT_TOKENS
        texts.append([o.token_ids for o in outcomes[::2]])
        wait_for(lambda: worker.metrics().sum(
            "caravan_worker_kv_blocks", state="leased") == 0, 30,
            "leased blocks = 0")
        wait_for(lambda: suite.services["gateway"].metrics().sum(
            "caravan_gateway_in_flight_requests") == 0, 30, "no request")
        wait_for(lambda: suite.services["gateway"].metrics().sum(
            "caravan_gateway_http_connections") == 0, 30, "no connection")
        counts.append(settled_counts(suite))
        print(counts[-1])
    assert texts[0] == texts[1] == texts[2]
    assert_no_more_than(counts[0], suite)
    assert worker.metrics().sum("caravan_worker_parkings_total") > 0
    assert peak.leased >= 0.95 * KV_BLOCKS
    planned = worker.metrics().sum("caravan_worker_planned_bytes")
    assert peak.resident <= 1.03 * planned + SLACK_BYTES


def test_the_plan_of_the_cli_is_what_the_worker_allocates(suite):
    metrics = suite.services["worker-1"].metrics()
    for part in ("weights", "kv", "arena"):
        assert (metrics.sum("caravan_worker_planned_bytes", part=part) ==
                metrics.sum("caravan_worker_allocated_bytes", part=part) > 0)
