"""All workers are restarted, one after the other, under streams that never
stop."""

import asyncio
import time

from load import stream_completion
from suite import MODEL

STREAMS = 12
# Streams are fast, so a worker may have none at the moment it is told to end:
# all are restarted again until so many have moved.
LEAST_MOVED = 3
MOST_ROUNDS = 10


def body_of(seed):
    return {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 300,
            "ignore_eos": True, "seed": seed, "temperature": 0.9,
            "return_token_ids": True}


async def restart_all(fleet):
    """Seconds from SIGTERM to the end, of each worker."""
    loop = asyncio.get_running_loop()
    seconds = []
    for worker in fleet.workers():
        begin = time.monotonic()
        assert await loop.run_in_executor(None, worker.end) == 0
        seconds.append(time.monotonic() - begin)
        await loop.run_in_executor(None, worker.start)
        await loop.run_in_executor(None, fleet.await_replicas, 3)
    return seconds


async def stream_until(fleet, over, seed, outcomes):
    while not over.is_set():
        outcomes.append((seed, await stream_completion(fleet.http,
                                                       body_of(seed))))


def moved_streams(fleet):
    return fleet.gateway.metrics().sum("caravan_gateway_resumes_total",
                                       cause="drained")


async def restart_until_streams_have_moved(fleet):
    seconds = []
    for _ in range(MOST_ROUNDS):
        seconds += await restart_all(fleet)
        if moved_streams(fleet) >= LEAST_MOVED:
            break
    return seconds


async def run(fleet):
    expected = await asyncio.gather(*[
        stream_completion(fleet.http, body_of(s)) for s in range(STREAMS)])
    over = asyncio.Event()
    outcomes = []
    streams = [asyncio.create_task(stream_until(fleet, over, s, outcomes))
               for s in range(STREAMS)]
    seconds = await restart_until_streams_have_moved(fleet)
    over.set()
    await asyncio.gather(*streams)
    return expected, outcomes, seconds


def test_a_rolling_restart_of_all_workers_fails_no_stream(start_fleet):
    fleet = start_fleet(workers=3)
    expected, outcomes, seconds = asyncio.run(run(fleet))
    for seed, outcome in outcomes:
        assert outcome.errors == [] and outcome.ends() == 1
        assert outcome.facts() == expected[seed].facts()
    moved = moved_streams(fleet)
    longest = max(outcome.longest_pause for _, outcome in outcomes)
    print(f"rolling restart: streams={len(outcomes)} moved={int(moved)} "
          f"longest_pause={longest:.3f}s "
          f"sigterm_to_exit={[round(s, 2) for s in seconds]}")
    # The goal is a pause below 0.3 s, on a machine that does nothing else.
    assert moved >= LEAST_MOVED
