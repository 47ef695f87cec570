"""A row of the failure table (DESIGN.md section 6): a request that was running
at two worker deaths or NaNs without a token in between ends by name, and takes
nobody with it."""

import asyncio
import json
import shutil

import pytest

from load import assert_all_equal, stream_all, stream_completion
from suite import DEMO_MODEL, MODEL, wait_for


def body_of(seed, **changes):
    return {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 200,
            "ignore_eos": True, "seed": seed, "temperature": 0.9,
            "return_token_ids": True, **changes}


def assert_suspect(outcome):
    assert outcome.ends() == 1 and outcome.token_ids == []
    assert outcome.errors[0]["code"] == "SUSPECT_REQUEST"
    assert outcome.errors[0]["retryable"] is False


def test_a_request_at_two_deaths_without_a_token_is_suspect(start_fleet,
                                                            small_model):
    """Its prompt takes long enough for two workers to die of it."""
    fleet = start_fleet(workers=3, model=small_model)
    poison = body_of(1, prompt=list(range(100, 2000)), max_tokens=8)
    innocent = body_of(2)
    expected = stream_all(fleet, [innocent])

    def queued(worker):
        return worker.alive() and worker.metrics().sum(
            "caravan_worker_queued_prefill_tokens") > 1000

    def kill_twice():
        for _ in range(2):
            wait_for(lambda: next(filter(queued, fleet.workers()), None), 30,
                     "the prefill").kill()

    async def run():
        killer = asyncio.create_task(asyncio.to_thread(kill_twice))
        outcome = await stream_completion(fleet.http, poison)
        await killer
        return outcome

    assert_suspect(asyncio.run(run()))
    # It took no third one with it.
    assert sum(worker.alive() for worker in fleet.workers()) == 1
    assert_all_equal(stream_all(fleet, [innocent]), expected)


# Padding: no text has it, and no stream here samples it.
NAN_TOKEN = 4095


def read_safetensors(path):
    """The header and the bytes of each tensor."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    return {name: (entry, data[begin + entry["data_offsets"][0]:
                               begin + entry["data_offsets"][1]])
            for name, entry in header.items()}


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (entry, data) in tensors.items():
        header[name] = {**entry, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text +
                     b"".join(data for _, data in tensors.values()))


@pytest.fixture
def nan_model(tmp_path):
    """The demo model with a head of its own, and NaNs for one token's
    embedding: who has that token in its prompt has no logits."""
    folder = shutil.copytree(DEMO_MODEL, tmp_path / "nan")
    tensors = read_safetensors(folder / "model.safetensors")
    entry, table = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = entry, table
    row = len(table) // entry["shape"][0]
    nans = row // 2 * b"\xc0\x7f"  # of bf16
    tensors["model.embed_tokens.weight"] = entry, (
        table[:NAN_TOKEN * row] + nans + table[(NAN_TOKEN + 1) * row:])
    write_safetensors(folder / "model.safetensors", tensors)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def numeric_faults(worker):
    return worker.metrics().sum("caravan_worker_errors_total",
                                reason="NUMERIC_FAULT")


def test_a_request_at_two_nans_without_a_token_is_suspect(start_fleet,
                                                          nan_model):
    fleet = start_fleet(workers=3, model=nan_model)
    pids = [worker.pid for worker in fleet.workers()]
    poison = body_of(1, prompt=[17, NAN_TOKEN, 99])
    innocent = [body_of(seed) for seed in range(2, 6)]
    expected = stream_all(fleet, innocent)
    suspect, *others = stream_all(fleet, [poison, *innocent])
    assert_suspect(suspect)
    # In company of NaNs nobody's tokens change.
    assert_all_equal(others, expected)
    assert sorted(map(numeric_faults, fleet.workers())) == [0, 1, 1]
    assert pids == [worker.pid for worker in fleet.workers()
                    if worker.alive()]
    assert_all_equal(stream_all(fleet, innocent), expected)
