"""A worker and a tokenizer service of different vocabularies, as real
processes: they start, and nothing that is asked of both is answered."""

import json
import shutil
import signal
import subprocess

import httpx
import pytest

from suite import BIN, DEMO_MODEL, ROOT, wait_for


class Processes:
    """Services started one by one, each once it is ready."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def start(self, name, *flags):
        log = open(self.folder / f"{name}.log", "w")
        process = subprocess.Popen(
            [str(BIN / f"caravan-{name}"), "--metrics-port", "0",
             *map(str, flags)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=log)
        self.started.append(process)
        line = process.stdout.readline()
        assert line.startswith("READY "), (self.folder /
                                           f"{name}.log").read_text()
        return dict(word.split("=", 1) for word in line.split()[1:])

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def other_model(tmp_path):
    """The demo model with one merge less: the same names, another tokenizer."""
    directory = tmp_path / "other"
    shutil.copytree(DEMO_MODEL, directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer))
    return directory


def start_fleet(processes, tokenizer_model):
    router = processes.start("router", "--port", 0)["grpc"]
    tokenizer = processes.start("tokenizer", "--port", 0, "--model",
                                f"demo={tokenizer_model}")["grpc"]
    processes.start("worker", "--port", 0, "--router", router, "--model",
                    DEMO_MODEL, "--served-model-name", "demo", "--null-model")
    gateway = processes.start("gateway", "--http-port", 0, "--grpc-port", 0,
                              "--router", router, "--tokenizer", tokenizer)
    url = f"http://{gateway['http']}"
    wait_for(lambda: httpx.get(f"{url}/v1/models").json()["data"],
             what="the worker's registration")
    return url


def complete(url):
    return httpx.post(f"{url}/v1/completions", timeout=60, json={
        "model": "demo", "prompt": "Once upon a time", "max_tokens": 2})


def test_another_tokenizer_than_the_workers_is_refused(processes, other_model):
    url = start_fleet(processes, other_model)
    reply = complete(url)
    assert reply.status_code >= 500, reply.text
    error = reply.json()["error"]
    assert error["code"] == "IDENTITY_MISMATCH"
    assert "demo" in error["message"]
    assert httpx.get(f"{url}/readyz").status_code == 503


def test_the_same_tokenizer_from_another_place_is_taken(processes, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(DEMO_MODEL, copy)
    url = start_fleet(processes, copy)
    assert complete(url).status_code == 200


def test_more_token_ids_than_embedding_rows_are_refused(tmp_path):
    directory = tmp_path / "small"
    shutil.copytree(DEMO_MODEL, directory)
    config = json.loads((directory / "config.json").read_text())
    config["vocab_size"] = 4095
    (directory / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [str(BIN / "caravan-worker"), "--model", directory, "--port", "0",
         "--metrics-port", "0", "--null-model"], cwd=ROOT, timeout=60,
        capture_output=True, text=True)
    assert done.returncode != 0
    assert "4095" in done.stderr and "4096" in done.stderr
