"""One test for each row of the failure table (DESIGN.md section 6), named
after it, with real processes. Each sees its failure happen under a running
stream. The row of suspect requests has test_suspect_request.py."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import threading

import httpx
import pytest

from fleet import WORKER_FLAGS
from hits import until_hit
from load import assert_all_equal, stream_all, stream_completion
from suite import BIN, DEMO_MODEL, MODEL, ROOT, run_cli, wait_for

TOKENS = 600


def body_of(seed, **changes):
    return {"model": MODEL, "prompt": "Once upon a time",
            "max_tokens": TOKENS, "ignore_eos": True, "seed": seed,
            "temperature": 0.9, "return_token_ids": True, **changes}


class Once:
    """Calls `action` in a thread of its own when a stream has so many
    tokens."""

    def __init__(self, action, tokens=20):
        self.tokens = tokens
        self.result = None
        self.error = None
        self._action = action
        self._thread = None

    def __call__(self, outcome):
        if self._thread is None and len(outcome.token_ids) >= self.tokens:
            self._thread = threading.Thread(target=self._run)
            self._thread.start()

    def _run(self):
        try:
            self.result = self._action()
        except BaseException as error:  # told by wait()
            self.error = error

    def wait(self):
        assert self._thread, "the failure did not happen"
        self._thread.join(60)
        if self.error:
            raise self.error
        return self.result


def running_on(worker):
    return worker.metrics().sum("caravan_worker_sequences", state="running")


def busiest(fleet):
    return max((w for w in fleet.workers() if w.alive()), key=running_on)


def resumes(fleet, **labels):
    return fleet.gateway.metrics().sum("caravan_gateway_resumes_total",
                                       **labels)


def fail_until_hit(fleet, bodies, expected, fail, replicas=2):
    """`fail` returns the member that is to start again. Whatever it meets, the
    streams are as expected; returns the member when one had to go on
    elsewhere."""
    before = resumes(fleet)

    def attempt():
        failure = Once(fail)
        outcomes = stream_all(fleet, bodies, failure)
        member = failure.wait()
        assert_all_equal(outcomes, expected)
        return member if resumes(fleet) > before else None

    def restore():
        for member in fleet.members.values():
            if not member.alive():
                member.start()
        fleet.await_replicas(replicas)

    return until_hit(attempt, restore)


def assert_retryable(outcome, *codes):
    assert outcome.ends() == 1 and outcome.done_count == 0
    assert outcome.errors[0]["code"] in codes, outcome.errors
    assert outcome.errors[0]["retryable"] is True


# --- Workers ----------------------------------------------------------------


def test_worker_killed(start_fleet):
    fleet = start_fleet(workers=2)
    bodies = [body_of(seed) for seed in range(6)]
    expected = stream_all(fleet, bodies)

    def kill():
        victim = busiest(fleet)
        victim.kill()
        return victim

    fail_until_hit(fleet, bodies, expected, kill)
    assert resumes(fleet, cause="lost") >= 1


def ready_workers(fleet):
    return fleet.members["router-1"].metrics().sum("caravan_router_workers",
                                                   state="ready")


def test_machine_lost(start_fleet):
    """Nothing closes the connections of a machine that is gone: a stopped
    process looks alike."""
    fleet = start_fleet(workers=2)
    bodies = [body_of(seed) for seed in range(6)]
    expected = stream_all(fleet, bodies)

    def stop():
        victim = busiest(fleet)
        victim.send(signal.SIGSTOP)
        # The router misses heartbeats and places nothing there.
        wait_for(lambda: ready_workers(fleet) == 1, 30, "the router's notice")
        return victim

    def attempt():
        hang = Once(stop)
        outcomes = stream_all(fleet, bodies, hang)
        hang.wait().send(signal.SIGCONT)
        assert_all_equal(outcomes, expected)
        return resumes(fleet, cause="lost") >= 1

    until_hit(attempt, lambda: fleet.await_replicas(2))
    assert "silent for" in fleet.gateway.log()
    fleet.await_replicas(2)
    for worker in fleet.workers():
        wait_for(lambda: running_on(worker) == 0, 30, "the end of what it ran")
    assert_all_equal(stream_all(fleet, bodies), expected)


@pytest.mark.parametrize("kind", ["first", "later"])
def test_a_stage_of_a_replica_killed(start_fleet, kind):
    fleet = start_fleet(workers=0, chains=[2, 2])
    bodies = [body_of(seed, logprobs=1) for seed in range(6)]
    expected = stream_all(fleet, bodies)

    def kill():
        replica = busiest(fleet)
        stage = next(m for m in fleet.group("stage") if m.replica is replica)
        victim = replica if kind == "first" else stage
        victim.kill()
        return victim

    victim = fail_until_hit(fleet, bodies, expected, kill)
    victim.start()
    fleet.await_replicas(2)
    assert_all_equal(stream_all(fleet, bodies), expected)


def test_worker_drained(start_fleet):
    fleet = start_fleet(workers=2)
    bodies = [body_of(seed) for seed in range(6)]
    expected = stream_all(fleet, bodies)

    def drain():
        victim = busiest(fleet)
        assert victim.end() == 0
        return victim

    fail_until_hit(fleet, bodies, expected, drain)
    assert resumes(fleet, cause="drained") >= 1


def test_worker_drained_without_a_peer_runs_on(start_fleet):
    fleet = start_fleet(workers=1)
    expected = stream_all(fleet, [body_of(1)])
    ended = Once(lambda: fleet.workers()[0].end())
    assert_all_equal(stream_all(fleet, [body_of(1)], ended), expected)
    assert ended.wait() == 0
    assert resumes(fleet) == 0


def test_worker_drained_without_a_peer_ends_after_the_grace(start_fleet,
                                                            small_model):
    fleet = start_fleet(workers=1, model=small_model,
                        worker_flags=("--threads", 1, "--kv-blocks", 1024,
                                      "--grace", 0.2),
                        gateway_flags=("--resume-patience", 1))
    ended = Once(lambda: fleet.workers()[0].end(), tokens=10)
    [outcome] = stream_all(fleet, [body_of(1, max_tokens=1500)], ended)
    assert ended.wait() == 0
    assert_retryable(outcome, "NO_REPLICA", "NO_REPLICA_OF_CLASS", "DRAINING")


def test_no_replica_of_the_class(start_fleet):
    fleet = start_fleet(workers=1,
                        worker_flags=(*WORKER_FLAGS, "--kv", "fp32"),
                        gateway_flags=("--resume-patience", 1))
    bodies = [body_of(1), body_of(2, allow_inexact_resume=True)]
    expected = stream_all(fleet, bodies)
    first = fleet.workers()[0]

    def replace():
        """By a worker that computes in another class."""
        first.send(signal.SIGSTOP)
        fleet.add("worker-2", "caravan-worker",
                  ["bf16" if flag == "fp32" else flag
                   for flag in first.flags])
        wait_for(lambda: ready_workers(fleet) == 1, 30, "the other class")
        first.kill()

    def attempt():
        replaced = Once(replace)
        told, marked = stream_all(fleet, bodies, replaced)
        replaced.wait()
        return (told, marked) if told.errors and marked.inexact_resumes else 0

    def restore():
        fleet.members.pop("worker-2").destroy()
        first.start()
        fleet.await_replicas(1)

    told, marked = until_hit(attempt, restore)
    assert_retryable(told, "NO_REPLICA_OF_CLASS")
    assert told.token_ids == expected[0].token_ids[:len(told.token_ids)]
    assert marked.errors == [] and marked.ends() == 1
    [resume] = marked.inexact_resumes
    position = resume["from_position"]
    assert "kv:bf16" in resume["numerics_class"]
    assert position >= 1 and len(marked.token_ids) == TOKENS
    assert marked.token_ids[:position] == expected[1].token_ids[:position]


# --- The other processes ----------------------------------------------------


def kill_under_streams(fleet, member, bodies, expected):
    """Ends `member` while workers run streams that do not notice."""
    def kill():
        member.kill()
        return sum(map(running_on, fleet.workers()))

    def attempt():
        killed = Once(kill)
        assert_all_equal(stream_all(fleet, bodies, killed), expected)
        return killed.wait()

    def restore():
        member.start()
        fleet.await_replicas(2)

    until_hit(attempt, restore)


def test_router_killed(start_fleet):
    fleet = start_fleet(workers=2)
    bodies = [body_of(seed) for seed in range(4)]
    expected = stream_all(fleet, bodies)
    kill_under_streams(fleet, fleet.members["router-1"], bodies, expected)
    # There is none, and new requests go by the last known placements.
    assert_all_equal(stream_all(fleet, bodies), expected)


def test_tokenizer_killed(start_fleet):
    fleet = start_fleet(workers=2)
    tokenizer = fleet.members["tokenizer-1"]
    bodies = [body_of(seed) for seed in range(4)]
    expected = stream_all(fleet, bodies)
    kill_under_streams(fleet, tokenizer, bodies, expected)

    async def run():
        waiting = asyncio.create_task(stream_completion(fleet.http,
                                                        bodies[0]))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done  # new requests wait
        await asyncio.to_thread(tokenizer.start)
        return await waiting

    assert_all_equal([asyncio.run(run())], expected[:1])


def sse_events(response):
    """(id, data) of each event, until the connection breaks."""
    event_id = None
    try:
        for line in response.iter_lines():
            if line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                yield event_id, line[6:]
    except httpx.TransportError:
        return


def tokens_of(data):
    if data == "[DONE]":
        return []
    return [token for choice in json.loads(data).get("choices", ())
            for token in choice.get("token_ids") or ()]


def stream_through(http, body, headers, on_tokens=lambda count: None):
    """Tokens of a stream until it ends or breaks, its last event id, and the
    data of its events."""
    tokens, last_id, data = [], None, []
    with httpx.stream("POST", f"http://{http}/v1/completions", json=body,
                      headers=headers, timeout=60) as response:
        for last_id, text in sse_events(response):
            data.append(text)
            tokens += tokens_of(text)
            on_tokens(len(tokens))
    return tokens, last_id, data


def test_gateway_killed(start_fleet, tmp_path):
    fleet = start_fleet(workers=2)
    other = fleet.add("gateway-2", "caravan-gateway",
                      fleet.gateway.flags)
    body = {**body_of(3), "stream": True}
    del body["seed"]  # drawn by the gateway; the ids of its events carry it
    keys = iter(range(100))

    def kill(count):
        if count >= 40 and fleet.gateway.alive():
            fleet.gateway.kill()

    def attempt():
        headers = {"Idempotency-Key": f"key-{next(keys)}"}
        tokens, last_id, _ = stream_through(fleet.gateway.ready["http"], body,
                                            headers, kill)
        return (tokens, last_id, headers) if len(tokens) < TOKENS else None

    tokens, last_id, headers = until_hit(attempt, fleet.gateway.start)
    assert len(tokens) >= 40
    rest, _, data = stream_through(other.ready["http"], body,
                                   {**headers, "Last-Event-ID": last_id})
    assert data[-1] == "[DONE]"
    tokens += rest
    receipt = json.loads(data[-2])["receipt"]
    request = tmp_path / "request.json"
    request.write_text(json.dumps(body))
    replayed = run_cli("replay", receipt, "--request", request, "--gateway",
                       other.ready["http"]).stdout
    seed = int(re.search(r"seed (\d+)", replayed)[1])
    url = f"http://{other.ready['http']}/v1/completions"
    whole = httpx.post(url, json=body_of(seed), timeout=60).json()
    assert tokens == whole["choices"][0]["token_ids"]


# --- Limits and input -------------------------------------------------------


def test_queue_full(start_fleet):
    fleet = start_fleet(workers=1, gateway_flags=("--max-queued", 2,
                                                  "--max-starting", 1))
    [expected] = stream_all(fleet, [body_of(1)])
    tokenizer = fleet.members["tokenizer-1"]
    refused = []

    def flood():
        # Nothing starts while the tokenizer is stopped: the queue fills.
        tokenizer.send(signal.SIGSTOP)
        with httpx.Client(timeout=60) as client:
            waiting = [threading.Thread(target=client.post, args=(
                fleet.url + "/v1/completions",), kwargs={
                    "json": body_of(5, max_tokens=1)}) for _ in range(3)]
            for thread in waiting:
                thread.start()
            wait_for(lambda: fleet.gateway.metrics().sum(
                "caravan_gateway_queued_requests") == 2, 10, "a full queue")
            # At once: nothing of the queue can end before it is answered.
            refused.append(client.post(fleet.url + "/v1/completions",
                                       json=body_of(5, max_tokens=1)))
            tokenizer.send(signal.SIGCONT)
            for thread in waiting:
                thread.join()

    full = Once(flood)
    assert_all_equal(stream_all(fleet, [body_of(1)], full), [expected])
    full.wait()
    [reply] = refused
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "QUEUE_FULL"
    assert float(reply.headers["retry-after"]) >= 1


def test_kv_full_for_good(start_fleet):
    fleet = start_fleet(workers=1, worker_flags=("--threads", 1,
                                                 "--kv-blocks", 48))
    [expected] = stream_all(fleet, [body_of(1)])
    refused = []
    too_long = Once(lambda: refused.append(httpx.post(
        fleet.url + "/v1/completions", timeout=60,
        json=body_of(2, prompt=list(range(900))))))
    assert_all_equal(stream_all(fleet, [body_of(1)], too_long), [expected])
    too_long.wait()
    # More than the whole cache holds is more than the model's context here,
    # which the worker told: waiting would not help.
    error = refused[0].json()["error"]
    assert refused[0].status_code == 400 and error["retryable"] is False
    assert error["code"] == "PROMPT_TOO_LONG" and "768" in error["message"]


def open_and_never_read(fleet, body):
    host, port = fleet.http.rsplit(":", 1)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    data = json.dumps({**body, "stream": True}).encode()
    client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Type: application/json\r\nContent-Length: " +
                   str(len(data)).encode() + b"\r\n\r\n" + data)
    return client


def test_slow_reader(start_fleet):
    fleet = start_fleet(workers=1, gateway_flags=(
        "--max-backlog-tokens", 64, "--write-timeout", 1))
    [expected] = stream_all(fleet, [body_of(1)])
    slow = open_and_never_read(fleet, body_of(2, n=16, logprobs=5,
                                              max_tokens=1000))

    def ended_by_name():
        metrics = fleet.gateway.metrics()
        return metrics.sum("caravan_gateway_requests_total",
                           outcome="SLOW_READER") == 1

    wait_for(lambda: running_on(fleet.workers()[0]) >= 16 or ended_by_name(),
             30, "its start")
    outcomes = stream_all(fleet, [body_of(1)])
    assert_all_equal(outcomes, [expected])
    wait_for(ended_by_name, 60, "the end of the slow reader's stream")
    wait_for(lambda: running_on(fleet.workers()[0]) == 0, 10, "its blocks")
    slow.close()


def test_bad_input(start_fleet):
    fleet = start_fleet(workers=1)
    [expected] = stream_all(fleet, [body_of(1)])
    replies = []
    bad = Once(lambda: replies.append(httpx.post(
        fleet.url + "/v1/completions", timeout=60,
        json=body_of(2, temperature=-3.5))))
    assert_all_equal(stream_all(fleet, [body_of(1)], bad), [expected])
    bad.wait()
    error = replies[0].json()["error"]
    assert replies[0].status_code == 400
    assert "temperature" in error["message"] and "-3.5" in error["message"]


def start_worker_of(model, *flags):
    return subprocess.run(
        [str(BIN / "caravan-worker"), "--model", model, "--port", "0",
         "--metrics-port", "0", *flags], cwd=ROOT, timeout=60,
        capture_output=True, text=True)


@pytest.fixture
def model_copy(tmp_path):
    return shutil.copytree(DEMO_MODEL, tmp_path / "model")


def test_torn_model_file(model_copy):
    file = model_copy / "model.safetensors"
    with open(file, "r+b") as weights:
        weights.truncate(file.stat().st_size - 1000)
    done = start_worker_of(model_copy)
    assert done.returncode == 1
    assert "model.safetensors" in done.stderr
    assert "tensor" in done.stderr and "offset" in done.stderr


def test_hostile_model_file(model_copy):
    file = model_copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    name = next(n for n in header if n != "__metadata__")
    begin, _ = header[name]["data_offsets"]
    header[name]["data_offsets"] = [begin, 1 << 62]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size:])
    done = start_worker_of(model_copy)
    assert done.returncode == 1
    assert name in done.stderr and str(1 << 62) in done.stderr
