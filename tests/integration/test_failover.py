"""Exact failover, step by step and token by token, with real processes."""

import asyncio
import collections
import re
import threading

import pytest

from fleet import WORKER_FLAGS
from hits import until_hit
from load import assert_all_equal, stream_all, stream_completion
from suite import MODEL, wait_for
from trail import Trail, lives_of_process
from wire_proxy import WireProxy


def body_of(seed, **changes):
    return {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 200,
            "ignore_eos": True, "seed": seed, "temperature": 0.9,
            "return_token_ids": True, **changes}


# --- Work -------------------------------------------------------------------


def work_of(worker):
    metrics = worker.metrics()
    work = {kind: metrics.sum("caravan_worker_tokens_total", kind=kind)
            for kind in ("prefill", "decode", "cached")}
    work["generated"] = metrics.sum("caravan_worker_generated_tokens_total")
    return collections.Counter(work)


def resumed_outputs(fleet):
    """Output tokens that the gateway had, by request id, at the last resume."""
    found = re.findall(r"event=stream_resumes request_id=(\S+) output_tokens="
                       r"(\d+)", fleet.gateway.log())
    return {request_id: int(count) for request_id, count in found}


def emitted_by(victim):
    """Tokens by request id of what it runs, as far as its log says."""
    text, killed_at = victim.process_logs()[-1]
    return {life.request_id: life.end(0)
            for life in lives_of_process(victim.name, text, killed_at)
            if life.emitted and not life.works}


class Killer:
    """Kills the worker when a client has so many tokens of a stream, and each
    client all that the worker had emitted of its stream shortly before."""

    def __init__(self, victim, tokens):
        self.victim = victim
        self.tokens = tokens
        self.emitted = {}
        self._clients = {}
        self._thread = None

    def __call__(self, outcome):
        self._clients[outcome.request_id] = len(outcome.token_ids)
        if len(outcome.token_ids) >= self.tokens and self._thread is None:
            self._thread = threading.Thread(target=self._kill)
            self._thread.start()

    def wait(self):
        self._thread.join()

    def _kill(self):
        self.emitted = emitted_by(self.victim)
        wait_for(lambda: all(self._clients.get(request_id, 0) >= count for
                             request_id, count in self.emitted.items()), 30,
                 "the clients")
        self.victim.kill()


def test_after_a_kill_nothing_is_generated_twice(start_fleet):
    fleet = start_fleet(workers=2, worker_flags=(*WORKER_FLAGS, "--log-level",
                                                 "debug"))
    victim, survivor = fleet.workers()
    # Prompts that share no block, and are none to the last token: of a prompt
    # that is wholly cached the last token is computed again.
    bodies = [body_of(seed, prompt=[200 + 37 * seed + i for i in range(50)],
                      max_tokens=500) for seed in range(12)]
    expected = stream_all(fleet, bodies)

    def attempt():
        before = work_of(survivor)
        killer = Killer(victim, tokens=60)
        outcomes = stream_all(fleet, bodies, killer)
        killer.wait()
        assert_all_equal(outcomes, expected)
        had = resumed_outputs(fleet)
        resumed = {outcome.request_id for outcome in outcomes} & had.keys()
        # Those that ended there cannot go on elsewhere.
        if not killer.emitted.keys() <= resumed or len(resumed) < 2:
            return None
        work = work_of(survivor)
        work.subtract(before)
        return outcomes, killer.emitted, had, work

    def restore():
        victim.start()
        fleet.await_replicas(2)

    outcomes, emitted, had, work = until_hit(attempt, restore)
    assert emitted
    for request_id, count in emitted.items():
        assert had[request_id] >= count  # nothing that the client had is lost
    resumed = sum(had.get(outcome.request_id, 0) for outcome in outcomes)
    total = sum(len(outcome.token_ids) for outcome in outcomes)
    assert work["generated"] == total - resumed
    # Every stream's first token here comes from a prefill of all before it;
    # where all of that was cached its last token was computed again.
    known = 50 * len(bodies) + resumed
    assert known <= work["prefill"] + work["cached"] <= known + len(bodies)
    assert work["decode"] == total - resumed - len(bodies)
    trail = Trail(fleet)
    for outcome in outcomes:
        trail.add_arrivals(outcome.request_id,
                           {0: outcome.choices[0].times})
    print(trail.facts())
    assert not trail.problems, trail.problems[:5]
    assert trail.resumed >= len(emitted)


# --- Every step -------------------------------------------------------------

STEPS = 64
STEP_BODIES = {
    "penalties_and_logprobs": body_of(
        5, max_tokens=STEPS, repetition_penalty=1.2, presence_penalty=0.3,
        frequency_penalty=0.4, min_tokens=STEPS, logprobs=3),
    "two_choices_and_a_stop_text": body_of(
        6, max_tokens=STEPS, n=2, logprobs=1, top_p=0.95),
}


async def start_proxied_fleet(start_fleet):
    """Two workers, each reached by the gateway through a proxy."""
    proxies = [WireProxy(), WireProxy()]
    for proxy in proxies:
        await proxy.start()
    loop = asyncio.get_running_loop()
    fleet = await loop.run_in_executor(None, lambda: start_fleet(workers=0))

    def add(index, proxy):
        member = fleet.add(
            f"worker-{index}", "caravan-worker",
            ["--model", fleet.model, "--served-model-name", MODEL,
             "--router", fleet.addresses("router"), "--advertise",
             proxy.address, *WORKER_FLAGS])
        proxy.upstream = member.service.grpc

    for index, proxy in enumerate(proxies):
        await loop.run_in_executor(None, add, index + 1, proxy)
    await loop.run_in_executor(None, fleet.await_replicas, 2)
    return fleet, proxies


async def stream_cut_after(fleet, proxies, body, steps, want):
    """Whichever worker runs the stream, its connection breaks after so many
    steps, when the client has all their tokens. Returns what the client saw
    and how many tokens it had."""
    seen = []
    grown = asyncio.Event()

    def note(outcome):
        seen.append(len(outcome.token_ids))
        grown.set()

    for proxy in proxies:
        proxy.hold_after(steps)
    stream = asyncio.create_task(
        stream_completion(fleet.http, body, on_tokens=note))
    holder = await first_that_holds(proxies)
    had = sum(min(count, len(want.choices[choice].token_ids))
              for choice, count in holder.passed.items())
    while not seen or seen[-1] < had:
        grown.clear()
        await asyncio.wait_for(grown.wait(), 30)
    for proxy in proxies:
        if proxy is not holder:
            proxy.let_all_pass()
    holder.cut()
    return await asyncio.wait_for(stream, 30), had


async def first_that_holds(proxies):
    held = {asyncio.create_task(proxy.held.wait()): proxy
            for proxy in proxies}
    done, pending = await asyncio.wait(held, timeout=30,
                                       return_when=asyncio.FIRST_COMPLETED)
    for waiting in pending:
        waiting.cancel()
    assert len(done) == 1
    return held[done.pop()]


async def interrupt_every_step(start_fleet, body):
    fleet, proxies = await start_proxied_fleet(start_fleet)
    want = await stream_completion(fleet.http, body)
    if body.get("n", 1) > 1:
        # Ends one choice in the midst of the other.
        body = {**body, "stop": [want.choices[1].text[90:96]]}
        want = await stream_completion(fleet.http, body)
    unequal = []
    outputs = []  # that the client had when its stream was cut
    for steps in range(1, STEPS):
        outcome, had = await stream_cut_after(fleet, proxies, body, steps,
                                              want)
        outputs.append(had)
        if outcome.ends() != 1 or outcome.facts() != want.facts():
            unequal.append((steps, outcome.errors, outcome.token_ids))
    for proxy in proxies:
        await proxy.stop()
    return fleet, want, outputs, unequal


@pytest.mark.parametrize("kind", STEP_BODIES)
def test_a_stream_that_is_cut_after_any_step_continues_equal(start_fleet,
                                                             kind):
    body = STEP_BODIES[kind]
    fleet, want, outputs, unequal = asyncio.run(
        interrupt_every_step(start_fleet, body))
    assert not unequal, unequal[:3]
    longest = max(len(c.token_ids) for c in want.choices.values())
    assert longest == STEPS
    # Each cut happened, and what was resumed was what the client had.
    assert (collections.Counter(resumed_outputs(fleet).values()) ==
            collections.Counter(outputs))
    assert len(set(outputs)) >= STEPS - 2
