"""Services of the suite as single processes, to be killed, stopped and started
again on the ports that they had."""

import os
import signal
import subprocess
import threading
import time

from suite import BIN, DEMO_MODEL, MODEL, ROOT, Service, wait_for

import httpx

# What a worker of a busy test machine gets.
WORKER_FLAGS = ("--threads", 1, "--kv-blocks", 4096)


class Member:
    """One process and its later lives; each has the first one's port."""

    def __init__(self, fleet, name, binary, flags):
        self.fleet = fleet
        self.name = name
        self.binary = binary
        self.flags = [str(flag) for flag in flags]
        self.service = None
        self.up = False  # has said that it is ready, and was not killed
        self.replica = self  # where a stage's requests come in
        self._process = None
        self._log_begins = []  # of each process, in the log of all
        self._killed_at = {}   # by number of the process

    def start(self):
        """Starts the process and waits until it is ready."""
        port = self.service.grpc.rsplit(":", 1)[1] if self.service else "0"
        is_gateway = self.binary == "caravan-gateway"
        flag = "--grpc-port" if is_gateway else "--port"
        log = open(self.fleet.folder / f"{self.name}.log", "a")
        self._log_begins.append(log.tell())
        self._process = subprocess.Popen(
            [str(BIN / self.binary), "--metrics-port", "0", flag, port,
             *self.flags], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=log)
        log.close()
        line = self._process.stdout.readline()
        if not line.startswith("READY "):
            raise AssertionError(f"{self.name}: {line!r}\n{self.log()[-3000:]}")
        fields = dict(word.split("=", 1) for word in line.split()[1:])
        self.ready = fields
        self.service = Service(self.name, {**fields, "pid": self.pid})
        self.up = True

    def log(self):
        return (self.fleet.folder / f"{self.name}.log").read_text(
            errors="replace")

    def process_logs(self):
        """The log of each of its processes, and when it was killed, if so."""
        data = (self.fleet.folder / f"{self.name}.log").read_bytes()
        ends = [*self._log_begins[1:], len(data)]
        return [(data[begin:end].decode(errors="replace"),
                 self._killed_at.get(number))
                for number, (begin, end) in enumerate(
                    zip(self._log_begins, ends))]

    @property
    def pid(self):
        return self._process.pid

    def alive(self):
        return self._process.poll() is None

    def send(self, signal_number):
        os.kill(self.pid, signal_number)

    def kill(self):
        """SIGKILL; returns when the process is gone."""
        self.up = False
        self._killed_at[len(self._log_begins) - 1] = time.time()
        self.send(signal.SIGKILL)
        self._process.wait(30)

    def end(self, seconds=60):
        """SIGTERM; returns the exit code."""
        self.up = False
        if self.alive():
            self.send(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def destroy(self):
        if self._process and self.alive():
            self.send(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def metrics(self):
        return self.service.metrics()


class Fleet:
    """Routers, tokenizers and workers behind one gateway."""

    def __init__(self, folder, workers=2, routers=1, tokenizers=1, chains=(),
                 model=DEMO_MODEL, worker_flags=WORKER_FLAGS, gateway_flags=(),
                 tls_flags=()):
        self.folder = folder
        self.members = {}
        self.worker_flags = list(worker_flags)
        self.tls_flags = list(tls_flags)
        self.model = model
        try:
            self._start(workers, routers, tokenizers, chains, gateway_flags)
        except BaseException:
            self.destroy()
            raise

    def _start(self, workers, routers, tokenizers, chains, gateway_flags):
        for i in range(routers):
            self.add(f"router-{i + 1}", "caravan-router", [])
        for i in range(tokenizers):
            self.add(f"tokenizer-{i + 1}", "caravan-tokenizer",
                     ["--model", f"{MODEL}={self.model}"])
        self.add_workers(workers)
        for stages in chains:
            self.add_chain(stages)
        self.gateway = self.add(
            "gateway", "caravan-gateway",
            ["--http-port", 0, "--router", self.addresses("router"),
             "--tokenizer", self.addresses("tokenizer"), *gateway_flags])
        self.http = self.gateway.ready["http"]
        self.url = f"http://{self.http}"
        if workers or chains:
            self.await_replicas(workers + len(chains))

    def add(self, name, binary, flags):
        member = Member(self, name, binary, [*flags, *self.tls_flags])
        self.members[name] = member
        member.start()
        return member

    def add_workers(self, count):
        """More workers, loading at the same time."""
        first = len(self.workers()) + 1
        flags = [*self._model_flags(), "--router", self.addresses("router")]
        self.parallel([
            lambda name=f"worker-{i}": self.add(name, "caravan-worker", flags)
            for i in range(first, first + count)])

    def add_chain(self, stages, through=None):
        """A replica of several stages: worker-N and the stage-M behind it,
        each of which knows its `replica`. The first reaches the second
        `through` a proxy, if given."""
        behind = []
        for i in range(stages - 1, 0, -1):
            flags = [*self._model_flags(), "--stage", f"{i}/{stages}"]
            if behind:
                flags += ["--next", behind[-1].service.grpc]
            behind.append(self.add(f"stage-{len(self.group('stage')) + 1}",
                                   "caravan-worker", flags))
        next_address = behind[-1].service.grpc
        if through:
            through.upstream, next_address = next_address, through.address
        replica = self.add(
            f"worker-{len(self.workers()) + 1}", "caravan-worker",
            [*self._model_flags(), "--stage", f"0/{stages}", "--next",
             next_address, "--router", self.addresses("router")])
        for member in behind:
            member.replica = replica
        return replica

    def _model_flags(self):
        return ["--model", self.model, "--served-model-name", MODEL,
                *self.worker_flags]

    @staticmethod
    def parallel(actions):
        threads = [threading.Thread(target=action) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def group(self, kind):
        return [member for name, member in sorted(self.members.items())
                if name.startswith(kind + "-")]

    def workers(self):
        return self.group("worker")

    def addresses(self, kind):
        return ",".join(m.service.grpc for m in self.group(kind))

    def await_replicas(self, count, seconds=60):
        """Until every router knows `count` replicas that take requests."""
        def known():
            return all(
                router.metrics().sum("caravan_router_workers", state="ready")
                >= count for router in self.group("router"))
        wait_for(known, seconds, f"{count} replicas")
        wait_for(lambda: httpx.get(f"{self.url}/readyz",
                                   timeout=60).status_code == 200,
                 seconds, "the gateway")

    def logs(self):
        parts = []
        for name, member in sorted(self.members.items()):
            tail = member.log().splitlines()[-25:]
            parts.append(f"--- {name}\n" + "\n".join(tail))
        return "\n".join(parts)

    def destroy(self):
        for member in self.members.values():
            member.destroy()
