"""Processes die, drain and come back: what the client sees."""

import asyncio
import signal
import threading

import httpx
import pytest

from hits import until_hit
from load import stream_completion
from suite import MODEL, wait_for

BODY = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 400,
        "ignore_eos": True, "seed": 21, "temperature": 0.9,
        "return_token_ids": True}


def run_stream(suite, on_tokens=None, **changes):
    return asyncio.run(stream_completion(suite.http, {**BODY, **changes},
                                         on_tokens=on_tokens))


def once_after(count, action):
    """Calls `action` when a stream has `count` tokens."""
    fired = threading.Event()

    def check(outcome):
        if len(outcome.token_ids) >= count and not fired.is_set():
            fired.set()
            action()

    check.fired = fired
    return check


def end_busy_worker(suite, how):
    """Of those that run a sequence now; nothing where none does."""
    for worker in suite.workers():
        if worker.metrics().sum("caravan_worker_sequences",
                                state="running") > 0:
            return worker.kill(how)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_workers_stream_goes_on_token_for_token(start_suite, how):
    suite = start_suite("--workers", "2")
    expected = run_stream(suite)
    assert expected.finishes == ["length"]

    def attempt():
        hook = once_after(40, lambda: end_busy_worker(suite, how))
        outcome = run_stream(suite, hook)
        assert hook.fired.is_set()
        assert outcome.ends() == 1 and outcome.finishes == ["length"]
        assert outcome.token_ids == expected.token_ids
        gateway = suite.services["gateway"].metrics()
        return gateway.sum("caravan_gateway_resumes_total") >= 1

    def restarts():
        return (suite.generations["worker-1"] +
                suite.generations["worker-2"]) - 2

    def both_ready():
        return suite.services["router"].metrics().sum(
            "caravan_router_workers", state="ready") == 2

    until_hit(attempt, lambda: wait_for(both_ready, 60, "both workers"))
    wait_for(lambda: restarts() >= 1, 60, "the restarted worker")


def test_a_single_workers_stream_survives_its_restart(start_suite):
    suite = start_suite()
    expected = run_stream(suite)
    hook = once_after(40, lambda: suite.services["worker-1"].kill())
    outcome = run_stream(suite, hook)
    assert hook.fired.is_set() and outcome.ends() == 1
    if outcome.errors:  # no replica came back within the attempts
        assert outcome.errors[0]["retryable"] is True
        assert (outcome.token_ids ==
                expected.token_ids[:len(outcome.token_ids)])
    else:
        assert outcome.token_ids == expected.token_ids
    wait_for(lambda: suite.generations["worker-1"] >= 2, 30, "the restart")
    wait_for(lambda: run_stream(suite, max_tokens=4).finishes == ["length"],
             30, "service after the restart")


def test_running_streams_do_not_notice_a_dead_router_or_tokenizer(start_suite):
    suite = start_suite()
    expected = run_stream(suite)
    old = {name: service.grpc for name, service in suite.services.items()}

    def kill_both():
        suite.services["router"].kill()
        suite.services["tokenizer"].kill()

    outcome = run_stream(suite, once_after(40, kill_both))
    assert outcome.token_ids == expected.token_ids and outcome.ends() == 1
    wait_for(lambda: suite.generations["router"] == 2
             and suite.generations["tokenizer"] == 2, 30, "both restarts")
    for name in ("router", "tokenizer"):
        assert suite.services[name].grpc == old[name]
    wait_for(lambda: run_stream(suite, max_tokens=4).finishes == ["length"],
             30, "service after the restarts")


def test_sigterm_of_the_gateway_lets_running_streams_finish(start_suite):
    suite = start_suite()
    expected = run_stream(suite)
    refused = []

    def drain():
        suite.services["gateway"].kill(signal.SIGTERM)
        # New requests are refused, or find the door closed.
        def is_refused():
            try:
                reply = httpx.post(suite.url + "/v1/completions", timeout=10,
                                   json={**BODY, "max_tokens": 1})
            except httpx.TransportError:
                return True
            if reply.status_code == 200:
                return False
            refused.append(reply)
            return True
        wait_for(is_refused, 10, "the refusal of new requests")

    outcome = run_stream(suite, once_after(20, drain))
    assert outcome.token_ids == expected.token_ids and outcome.ends() == 1
    for reply in refused:
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "DRAINING"
        assert reply.json()["error"]["retryable"] is True


def test_sigterm_of_the_suite_lets_running_streams_finish(start_suite):
    suite = start_suite("--grace", "60")
    expected = run_stream(suite)
    outcome = run_stream(suite, once_after(
        20, lambda: suite.process.send_signal(signal.SIGTERM)))
    assert outcome.token_ids == expected.token_ids and outcome.ends() == 1
    assert suite.stop() == 0


@pytest.mark.parametrize("name", ["worker-1", "gateway", "router",
                                  "tokenizer"])
def test_each_process_ends_with_0_on_sigterm(start_suite, name):
    suite = start_suite()
    suite.services[name].kill(signal.SIGTERM)
    wait_for(lambda: suite.generations[name] >= 2, 60, f"the next {name}")
    log = (suite.log_dir / "up.log").read_text()
    assert f"service={name} how=\"exit code 0\"" in log


def test_up_leaves_no_process_behind(start_suite):
    suite = start_suite("--workers", "2")
    pids = [service.pid for service in suite.services.values()]
    assert suite.stop() == 0

    def gone(pid):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().split()[2] == "Z"
        except FileNotFoundError:
            return True

    assert all(gone(pid) for pid in pids)


def test_a_killed_up_takes_its_processes_with_it(start_suite):
    suite = start_suite()
    pids = [service.pid for service in suite.services.values()]
    suite.process.kill()
    suite.process.wait(30)

    def all_gone():
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    if stat.read().split()[2] != "Z":
                        return False
            except FileNotFoundError:
                pass
        return True

    wait_for(all_gone, 60, "the end of the orphans")
