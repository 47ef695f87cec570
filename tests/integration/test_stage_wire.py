"""Faults on the wire between two stages of a replica."""

import asyncio

import pytest

from fleet import WORKER_FLAGS
from hits import ROUNDS
from load import stream_completion
from suite import MODEL, wait_for
from wire_proxy import LinkProxy

STREAMS = 8


def body_of(seed):
    return {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 300,
            "ignore_eos": True, "seed": seed, "temperature": 0.9,
            "logprobs": 1, "return_token_ids": True}


def submits(worker):
    return worker.metrics().sum("caravan_worker_submits_total")


def lost(worker):
    return worker.metrics().sum("caravan_worker_chains_lost_total")


def chains_formed(worker):
    return worker.log().count("event=chain_formed")


async def stream_all(fleet, on_tokens=None):
    return await asyncio.gather(*[
        stream_completion(fleet.http, body_of(seed), on_tokens=on_tokens)
        for seed in range(STREAMS)])


def facts_of(outcomes):
    for outcome in outcomes:
        assert outcome.errors == [] and outcome.ends() == 1
    return [outcome.facts() for outcome in outcomes]


async def start_with_proxy(start_fleet, proxy):
    """A whole worker, and a replica of two stages with a proxy between."""
    await proxy.start()

    def start():
        fleet = start_fleet(workers=1, worker_flags=(
            *WORKER_FLAGS, "--step-timeout", 600))
        fleet.add_chain(2, through=proxy)
        fleet.await_replicas(2)
        return fleet

    return await asyncio.to_thread(start)


async def fail_until_seen(fleet, proxy, fault, seen):
    """Meets running streams with `fault`, until `seen` says that it did what
    it should; no stream ever shows more than a pause."""
    expected = facts_of(await stream_all(fleet))
    for _ in range(ROUNDS):
        fired = []

        def on_tokens(outcome):
            if len(outcome.token_ids) >= 20 and not fired:
                fired.append(True)
                fault()

        assert facts_of(await stream_all(fleet, on_tokens)) == expected
        await asyncio.to_thread(fleet.await_replicas, 2)
        if await asyncio.to_thread(seen):
            break
    else:
        raise AssertionError(f"not seen in {ROUNDS} rounds")
    assert facts_of(await stream_all(fleet)) == expected


def run_fault(start_fleet, name, seen):
    async def run():
        proxy = LinkProxy()
        fleet = await start_with_proxy(start_fleet, proxy)
        try:
            await fail_until_seen(fleet, proxy, getattr(proxy, name),
                                  lambda: seen(fleet))
        finally:
            await proxy.stop()

    asyncio.run(run())


def test_changed_hidden_states_are_detected_and_never_decoded(start_fleet):
    def seen(fleet):
        return "CRC32C of the hidden states" in (
            fleet.members["worker-2"].log())

    run_fault(start_fleet, "change_next", seen)


@pytest.mark.parametrize("fault", ["truncate_next", "cut"])
def test_a_link_that_breaks_ends_the_epoch_and_no_stream(start_fleet, fault):
    def seen(fleet):
        return lost(fleet.members["worker-2"]) >= 1

    run_fault(start_fleet, fault, seen)


def test_a_stale_epoch_is_refused_and_no_stream_notices(start_fleet):
    """Another first stage takes the later one away, and is gone again."""
    fleet = start_fleet(workers=1, chains=[2])
    first = fleet.members["worker-2"]

    def told_of_another_epoch():
        return "the chain has a new epoch" in first.log()

    async def run():
        expected = facts_of(await stream_all(fleet))
        streams = asyncio.create_task(stream_all(fleet))
        rival = await asyncio.to_thread(fleet.add, "rival", first.binary,
                                        first.flags)
        await until(told_of_another_epoch)
        await asyncio.to_thread(rival.kill)
        assert facts_of(await streams) == expected
        await asyncio.to_thread(wait_for, lambda: chains_formed(first) >= 2)
        await asyncio.to_thread(fleet.await_replicas, 2)
        assert facts_of(await stream_all(fleet)) == expected

    asyncio.run(run())


async def until(condition):
    """Polls in a thread of its own."""
    await asyncio.to_thread(wait_for, condition, 60)


async def hold_the_link(fleet, proxy):
    """Facts of streams during which the link stood still until all streams of
    the other replica had ended; None where one replica had none."""
    replicas = [fleet.members["worker-1"], fleet.members["worker-2"]]
    before = [submits(replica) for replica in replicas]

    def placed():
        return [submits(replica) - count
                for replica, count in zip(replicas, before)]

    proxy.hold_after_plans(20)
    streams = [asyncio.create_task(stream_completion(fleet.http,
                                                     body_of(seed)))
               for seed in range(STREAMS)]
    await until(lambda: sum(placed()) == STREAMS)
    on_whole, on_chain = placed()
    if on_chain:
        await asyncio.wait_for(proxy.stands.wait(), 60)
    # They end at their clients too, while those of the chain stand still.
    await until(lambda: sum(map(asyncio.Task.done, streams)) == on_whole)
    proxy.release()
    facts = facts_of(await asyncio.gather(*streams))
    return facts if on_whole and on_chain else None


def test_a_slow_stage_slows_its_replica_and_nothing_else(start_fleet):
    async def run():
        proxy = LinkProxy()
        fleet = await start_with_proxy(start_fleet, proxy)
        expected = facts_of(await stream_all(fleet))
        for _ in range(ROUNDS):
            facts = await hold_the_link(fleet, proxy)
            if facts is not None:
                break
        assert facts == expected
        assert fleet.gateway.metrics().sum(
            "caravan_gateway_resumes_total") == 0
        assert lost(fleet.members["worker-2"]) == 0
        await proxy.stop()

    asyncio.run(run())
