"""Workers, stages, routers and tokenizers die all the time; no stream notices
more than a pause. One of three replicas is of two stages."""

import asyncio
import os
import random

import pytest

from chaos import SHARES, Chaos, Report, make_requests
from fleet import WORKER_FLAGS
from suite import DEMO_MODEL


def seed_of_run():
    """Printed, and taken from CARAVAN_CHAOS_SEED to repeat a run."""
    seed = int(os.environ.get("CARAVAN_CHAOS_SEED",
                              random.SystemRandom().getrandbits(32)))
    print(f"CARAVAN_CHAOS_SEED={seed}")
    return seed


def run_chaos(fleet, seed, width, kills, requests, max_tokens, interval=2.0):
    bodies = make_requests(random.Random(seed), requests, max_tokens)
    chaos = Chaos(fleet, seed, width, kills, interval, bodies)

    async def run():
        return await chaos.run()

    report = asyncio.run(run())
    print(f"{fleet.model.name}: {report}")
    return report


def run_both_models(start_fleet, small_model, width, kills, requests):
    """So many kills on each of them."""
    seed = seed_of_run()
    total = Report()
    for number, (model, max_tokens) in enumerate(((DEMO_MODEL, 400),
                                                  (small_model, 80))):
        fleet = start_fleet(workers=2, chains=[2], routers=2, tokenizers=2,
                            model=model, worker_flags=(*WORKER_FLAGS,
                                                       "--log-level", "debug"))
        total.add(run_chaos(fleet, seed + number, width, kills, requests,
                            max_tokens))
        fleet.destroy()
    print(f"chaos: {total}")
    assert not total.problems, "\n".join(total.problems[:10])
    assert total.interrupted >= 1 and total.resumes >= total.interrupted
    return total


def test_no_stream_is_lost_or_doubled_while_processes_are_killed(
        start_fleet, small_model):
    total = run_both_models(start_fleet, small_model, width=32, kills=5,
                            requests=24)
    assert sum(total.kills.values()) == 10


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_stream_is_lost_or_doubled_in_two_minutes_of_kills(start_fleet,
                                                              small_model):
    total = run_both_models(start_fleet, small_model, width=64, kills=30,
                            requests=48)
    assert sum(total.kills.values()) == 60
    for kind in SHARES:
        assert total.kills[kind] >= 2, kind
    assert total.hits >= 40
    for trail in total.trails:
        assert trail["of_these_while_clients_ran"] == 0
