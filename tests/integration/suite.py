"""Runs the real processes for tests: `caravan up` on free ports."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CARAVAN_BIN_DIR", ROOT / "build/dev/bin"))
DEMO_MODEL = ROOT / "deploy/demo-model"
MODEL = "demo-model"

START_SECONDS = 120
POLL_SECONDS = 0.02


def wait_for(condition, seconds=30, what="the condition"):
    """Polls until `condition()` is truthy and returns that value."""
    tick = threading.Event()
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        tick.wait(POLL_SECONDS)


def run_cli(*arguments, check=True, input=None, timeout=120):
    """Runs `caravan ARGUMENTS` and returns the finished process."""
    done = subprocess.run([BIN / "caravan", *map(str, arguments)],
                          capture_output=True, text=True, input=input,
                          timeout=timeout, cwd=ROOT)
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """Samples of one scrape."""

    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            match = _SAMPLE.match(line)
            if match:
                self.samples.append((match[1], dict(
                    _LABEL.findall(match[2] or "")), float(match[3])))

    def sum(self, name, **labels):
        """Sum of the samples of `name` that carry these labels."""
        return sum(value for sample, have, value in self.samples
                   if sample == name
                   and all(have.get(k) == v for k, v in labels.items()))

    def names(self):
        return {name for name, _, _ in self.samples}


def scrape(address):
    with urllib.request.urlopen(f"http://{address}/metrics",
                                timeout=10) as reply:
        return Metrics(reply.read().decode())


class Service:
    """One process of the suite, as its last SERVICE line said."""

    def __init__(self, name, fields):
        self.name = name
        self.pid = int(fields["pid"])
        self.grpc = fields.get("grpc", "")
        self.metrics_address = fields.get("metrics", "")

    def metrics(self):
        return scrape(self.metrics_address)

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def thread_count(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def kill(self, signal_number=signal.SIGKILL):
        os.kill(self.pid, signal_number)


class Suite:
    """`caravan up`, started and ready."""

    def __init__(self, log_dir, *flags, worker_flags=(), model=DEMO_MODEL):
        self.log_dir = log_dir
        command = [BIN / "caravan", "up", "--model", model, "--http-port", "0",
                   "--grpc-port", "0", "--log-dir", log_dir, *flags]
        if worker_flags:
            command += ["--", *worker_flags]
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=open(log_dir / "up.log", "w"))
        self.services = {}
        self.generations = {}  # starts of each service
        self.ready = {}
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._is_ready.wait(START_SECONDS) or not self.ready:
            self.process.kill()
            raise AssertionError("caravan up is not ready:\n" + self.logs())
        self.http = self.ready["http"]
        self.grpc = self.ready["grpc"]
        self.url = f"http://{self.http}"

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            if line.startswith("SERVICE "):
                fields = dict(word.split("=", 1) for word in words[2:])
                self.services[words[1]] = Service(words[1], fields)
                self.generations[words[1]] = 1 + self.generations.get(
                    words[1], 0)
            elif line.startswith("READY "):
                self.ready = dict(word.split("=", 1) for word in words[1:])
                self._is_ready.set()
        self._is_ready.set()

    def logs(self):
        parts = []
        for path in sorted(pathlib.Path(self.log_dir).glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-30:]
            parts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(parts)

    def workers(self):
        return [service for name, service in sorted(self.services.items())
                if name.startswith("worker-")]

    def worker_sum(self, metric, **labels):
        return sum(worker.metrics().sum(metric, **labels)
                   for worker in self.workers())

    def stop(self, seconds=60):
        """Sends SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
