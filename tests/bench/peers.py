#!/usr/bin/env python3
"""Our engine beside llama.cpp, on the same GGUF file, taking turns.

Both programs load the file once and then wait for their turns. A round is:
ours, the peer, ours. Both turns of ours probe how fast memory reads; where they
differ by more than 8 % the round is dropped and counted. The ratio of a round
is the mean of ours over the peer's, and the median over the rounds counts.
Measured: decoding one stream and a batch (tokens/s of steps that only decode,
after prompts of their own), and the prefill of one prompt.

The peer is llama-cpp-python, as pip has it, in a virtual environment of its own
(made at first use, which compiles for many minutes), driven through its
low-level C calls. Each figure has a context of its own size, with and without
flash attention, and the better of the two counts; one that is more than a tenth
behind in the first turn takes no more of them. Prompts are computed once: a
turn begins by forgetting what was decoded behind them.

Usage: peers.py --model FILE.gguf [--bin DIR] [--threads N] [--rounds N] [--json]
Not run by the tests: it wants a quiet machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_DIFFERENCE = 0.08
MOST_STEPS = 256  # of decoding in a turn


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--venv", type=pathlib.Path,
                        default=ROOT / "build/bench/peers-venv")
    parser.add_argument("--requirement", default="llama-cpp-python")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most-seconds", type=float, default=3600,
                        help="begin no round after so long")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--sample-seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", action="store_true",
                        help=argparse.SUPPRESS)  # the process that is the peer
    return parser.parse_args()


# What is measured ------------------------------------------------------------


def workload(options):
    """The points by name; a batch of 1 and a prefill of 0 add none."""
    points = {f"decode {streams}": {"streams": streams,
                                    "prompt": options.prompt_tokens}
              for streams in (1, options.batch)}
    if options.prefill_tokens > 0:
        points[f"prefill {options.prefill_tokens}"] = {
            "prefill": options.prefill_tokens}
    return points


def point_key(point):
    """The name in workload() of a point of our report."""
    if point["kind"] == "prefill":
        return f"prefill {point['prompt_tokens']}"
    return f"decode {point['streams']}"


def ours_of(report):
    """Our report as {"read": bytes/s, "rates": {name: tokens/s}}."""
    points = report["points"]
    if not points or any(p["samples"] == 0 for p in points):
        return None  # the machine changed its speed inside every sample
    return {
        "read": statistics.mean(p["read_ceiling"] for p in points),
        "rates": {point_key(p): p["tokens_per_second"] for p in points},
        "class": report["numerics_class"],
    }


def best_of(samples):
    """The greatest rate of each point over the peer's settings."""
    names = {name for sample in samples for name in sample["rates"]}
    return {name: max(sample["rates"].get(name, 0) for sample in samples)
            for name in sorted(names)}


def judge(before, peer, after):
    """Ratios of a round by point, or None where it is dropped."""
    if before is None or after is None:
        return None
    slower = min(before["read"], after["read"])
    if abs(before["read"] - after["read"]) > MOST_DIFFERENCE * slower:
        return None
    return {name: (before["rates"][name] + after["rates"][name]) / 2 / rate
            for name, rate in peer.items()}


def summarize(ours, peers, ratios):
    """Medians by point."""
    result = {}
    for name in ratios[0] if ratios else {}:
        values = sorted(ratio[name] for ratio in ratios)
        result[name] = {
            "ratio": statistics.median(values),
            "least": values[0],
            "most": values[-1],
            "ours": statistics.median(o["rates"][name] for o in ours if o),
            "peer": statistics.median(p[name] for p in peers),
        }
    return result


# Ours ------------------------------------------------------------------------


class Turns:
    """A process that answers each line with a line of JSON."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(
            arguments, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.process.args[0]} ended; its messages are above")
        return json.loads(line)

    def turn(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Ours(Turns):

    def __init__(self, options):
        batches = sorted({1, options.batch})
        super().__init__(
            [pathlib.Path(options.bin) / "caravan", "bench", "--engine",
             "--turns", "--model", options.model,
             "--threads", str(options.threads),
             "--batches", ",".join(map(str, batches)),
             "--prompt-tokens", str(options.prompt_tokens),
             "--prefill-tokens", str(options.prefill_tokens),
             "--output-tokens", str(MOST_STEPS + 1), "--samples", "1",
             "--sample-seconds", str(options.sample_seconds)])

    def turn(self):
        return ours_of(super().turn())


# The peer --------------------------------------------------------------------


class Peer(Turns):
    """The peer's own interpreter."""

    def __init__(self, options):
        arguments = [a for a in sys.argv[1:] if a != "--json"]
        super().__init__([make_environment(options), __file__, *arguments,
                          "--peer"])
        self.about = self.read()

    def turn(self):
        return best_of(super().turn())


def make_environment(options):
    python = options.venv / "bin/python"
    probe = [python, "-c", "import llama_cpp"]
    if python.exists() and subprocess.run(
            probe, stderr=subprocess.DEVNULL).returncode == 0:
        return python
    subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
    # Compiled here, so that it uses the instructions that this machine has.
    subprocess.run([python, "-m", "pip", "install", "--no-binary",
                    "llama-cpp-python", options.requirement], check=True,
                   stdout=sys.stderr,
                   env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    return python


def first_of(library, *names):
    """The first of the names that this version has."""
    for name in names:
        if hasattr(library, name):
            return getattr(library, name)
    raise RuntimeError(f"this version has none of {', '.join(names)}")


class PeerContext:
    """A context for one point in one setting."""

    def __init__(self, library, model, options, point, flash):
        self.library = library
        streams = point.get("streams", 1)
        prompt = point.get("prompt") or point["prefill"]
        params = library.llama_context_default_params()
        params.n_ctx = streams * (prompt + MOST_STEPS)
        params.n_batch = max(512, prompt, streams)
        params.n_ubatch = 512
        params.n_seq_max = streams
        params.n_threads = options.threads
        params.n_threads_batch = options.threads
        if hasattr(params, "kv_unified"):
            params.kv_unified = True
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 1 if flash else 0
        else:
            params.flash_attn = flash
        make = first_of(library, "llama_init_from_model",
                        "llama_new_context_with_model")
        self.context = make(model, params)
        if not self.context:
            raise RuntimeError("the peer made no context")
        self.most_rows = params.n_batch
        self.batch = library.llama_batch_init(params.n_batch, 0, 1)

    def forget(self, sequence, position):
        """Drops what a sequence has from a position on."""
        library = self.library
        if hasattr(library, "llama_memory_seq_rm"):
            library.llama_memory_seq_rm(
                library.llama_get_memory(self.context), sequence, position, -1)
        else:
            first_of(library, "llama_kv_self_seq_rm", "llama_kv_cache_seq_rm")(
                self.context, sequence, position, -1)

    def fill(self, rows):
        """Rows of (token, position, sequence, wants logits)."""
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        self.batch.n_tokens = len(rows)

    def decode(self):
        if self.library.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("the peer could not decode")
        self.library.llama_synchronize(self.context)

    def prompt(self, prompts):
        """Lists of ids by sequence, as many at once as make a batch."""
        rows = []
        for sequence, tokens in prompts.items():
            if len(rows) + len(tokens) > self.most_rows:
                self.fill(rows)
                self.decode()
                rows = []
            rows += [(t, i, sequence, i + 1 == len(tokens))
                     for i, t in enumerate(tokens)]
        self.fill(rows)
        self.decode()


class PeerPrefill(PeerContext):

    def __init__(self, library, model, options, point, flash, vocabulary):
        super().__init__(library, model, options, point, flash)
        self.tokens = ids_of(0, point["prefill"], vocabulary)
        self.measure(options)

    def measure(self, _):
        self.forget(0, 0)
        start = time.perf_counter()
        self.prompt({0: self.tokens})
        return len(self.tokens) / (time.perf_counter() - start)


class PeerDecode(PeerContext):

    def __init__(self, library, model, options, point, flash, vocabulary):
        super().__init__(library, model, options, point, flash)
        self.length = point["prompt"]
        self.streams = point["streams"]
        self.prompt({sequence: ids_of(sequence + 1, self.length, vocabulary)
                     for sequence in range(self.streams)})

    def measure(self, options):
        for sequence in range(self.streams):
            self.forget(sequence, self.length)
        self.fill([(sequence + 5, self.length, sequence, True)
                   for sequence in range(self.streams)])
        positions = self.batch.pos
        start = time.perf_counter()
        steps = 0
        # As little Python as can be between two steps.
        while steps < MOST_STEPS and (
                steps == 0 or
                time.perf_counter() - start < options.sample_seconds):
            self.decode()
            steps += 1
            for i in range(self.streams):
                positions[i] = self.length + steps
        return steps * self.streams / (time.perf_counter() - start)


def ids_of(text, count, vocabulary):
    """Ids of a prompt; different texts differ from the first id on."""
    return [(text * 7919 + i * 104729) % vocabulary for i in range(count)]


def serve_peer(options):
    import llama_cpp as library
    quiet = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(quiet, None)
    library.llama_backend_init()
    load = first_of(library, "llama_model_load_from_file",
                    "llama_load_model_from_file")
    model = load(str(options.model).encode(),
                 library.llama_model_default_params())
    if not model:
        raise RuntimeError("the peer could not load the model")
    if hasattr(library, "llama_model_get_vocab"):
        vocabulary = library.llama_vocab_n_tokens(
            library.llama_model_get_vocab(model))
    else:
        vocabulary = library.llama_n_vocab(model)
    settings = [
        {name: (PeerPrefill if "prefill" in point else PeerDecode)(
            library, model, options, point, flash, vocabulary)
         for name, point in workload(options).items()}
        for flash in (False, True)]
    print(json.dumps({"version": library.__version__}), flush=True)
    for _ in sys.stdin:
        samples = [{"rates": {name: context.measure(options)
                              for name, context in setting.items()}}
                   for setting in settings]
        best = best_of(samples)
        settings = [
            {name: context for name, context in setting.items()
             if sample["rates"][name] > 0.9 * best[name]}
            for setting, sample in zip(settings, samples)]
        print(json.dumps(samples), flush=True)


def main():
    options = parse_arguments()
    if options.peer:
        return serve_peer(options)
    start = time.monotonic()
    peer, engine = Peer(options), Ours(options)
    peer.turn()  # warm
    ours, peers, ratios = [engine.turn()], [], []
    for _ in range(3 * options.rounds):
        theirs = peer.turn()
        ours.append(engine.turn())
        peers.append(theirs)
        ratio = judge(ours[-2], theirs, ours[-1])
        print(f"{time.monotonic() - start:.0f} s:", ratio, file=sys.stderr)
        if ratio is not None:
            ratios.append(ratio)
        if (len(ratios) == options.rounds or
                time.monotonic() - start > options.most_seconds):
            break
    for program in (peer, engine):
        program.close()
    result = {
        "model": str(options.model), "peer": peer.about,
        "class": next((o["class"] for o in ours if o), None),
        "read": statistics.median([o["read"] for o in ours if o] or [0]),
        "rounds": len(ratios), "dropped": len(peers) - len(ratios),
        "points": summarize(ours, peers, ratios)}
    if options.json:
        print(json.dumps(result, indent=2))
        return None
    print(f"{result['model']}, {result['class']}, beside llama-cpp-python "
          f"{peer.about['version']}, {result['read'] / 1e9:.1f} GB/s: "
          f"{result['rounds']} rounds, {result['dropped']} dropped")
    for name, point in result["points"].items():
        print(f"{name:14s} {point['ours']:9.1f} tok/s, the peer "
              f"{point['peer']:9.1f}: {point['ratio']:.2f} x "
              f"({point['least']:.2f} to {point['most']:.2f})")
    return None


if __name__ == "__main__":
    sys.exit(main())
