#!/usr/bin/env python3
"""Our engine beside llama.cpp, on the same GGUF file, taking turns.

A round is: ours, the peer, ours. Both runs of ours probe how fast memory reads;
where they differ by more than 8 % the round is dropped and counted. The ratio
of a round is the mean of ours over the peer's, and the median over the rounds
counts. Measured: decoding one stream and a batch (tokens/s of steps that only
decode, after prompts of their own), and the prefill of one prompt.

The peer is llama-cpp-python, as pip has it, in a virtual environment of its own
(made at first use, which compiles for many minutes), driven through its
low-level C calls. It is measured with and without flash attention, and the
better of the two counts, for each figure alone.

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


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--venv", type=pathlib.Path,
                        default=ROOT / "build/bench/peers-venv")
    parser.add_argument("--requirement", default="llama-cpp-python")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
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
    """The points by name."""
    return {
        "decode 1": {"streams": 1, "prompt": options.prompt_tokens},
        f"decode {options.batch}": {"streams": options.batch,
                                    "prompt": options.prompt_tokens},
        f"prefill {options.prefill_tokens}": {
            "prefill": options.prefill_tokens},
    }


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
    return {name: max(sample["rates"][name] for sample in samples)
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


def run_ours(options):
    done = subprocess.run(
        [pathlib.Path(options.bin) / "caravan", "bench", "--engine",
         "--model", options.model, "--threads", str(options.threads),
         "--batches", f"1,{options.batch}",
         "--prompt-tokens", str(options.prompt_tokens),
         "--prefill-tokens", str(options.prefill_tokens),
         "--output-tokens", "256", "--samples", "1",
         "--sample-seconds", str(options.sample_seconds), "--json"],
        stdout=subprocess.PIPE, text=True, check=True)
    return ours_of(json.loads(done.stdout))


# The peer --------------------------------------------------------------------


class Peer:
    """A process of the peer's own interpreter, one JSON line per turn."""

    def __init__(self, options):
        python = make_environment(options)
        arguments = [a for a in sys.argv[1:] if a != "--json"]
        self.process = subprocess.Popen(
            [python, __file__, *arguments, "--peer"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = json.loads(self.process.stdout.readline())

    def turn(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peer ended; its messages are above")
        return best_of(json.loads(line))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


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
    """A context of one setting."""

    def __init__(self, library, model, options, flash):
        self.library = library
        self.flash = flash
        points = workload(options).values()
        tokens = max([options.prefill_tokens] +
                     [p["streams"] * (p["prompt"] + 512)
                      for p in points if "streams" in p])
        params = library.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = max(2048, options.prefill_tokens)
        params.n_ubatch = 512
        params.n_seq_max = options.batch
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
        self.batch = library.llama_batch_init(params.n_batch, 0, 1)

    def clear(self):
        library = self.library
        if hasattr(library, "llama_memory_clear"):
            library.llama_memory_clear(
                library.llama_get_memory(self.context), True)
        else:
            first_of(library, "llama_kv_self_clear",
                     "llama_kv_cache_clear")(self.context)

    def decode(self, rows):
        """Rows of (token, position, sequence, wants logits)."""
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        self.batch.n_tokens = len(rows)
        if self.library.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("the peer could not decode")
        self.library.llama_synchronize(self.context)

    def prefill(self, tokens):
        self.clear()
        rows = [(t, i, 0, i + 1 == len(tokens)) for i, t in enumerate(tokens)]
        start = time.perf_counter()
        self.decode(rows)
        return len(tokens) / (time.perf_counter() - start)

    def decode_rate(self, prompts, seconds):
        self.clear()
        for sequence, prompt in enumerate(prompts):
            self.decode([(t, i, sequence, i + 1 == len(prompt))
                         for i, t in enumerate(prompt)])
        position = len(prompts[0])
        start = time.perf_counter()
        steps = 0
        while steps == 0 or (time.perf_counter() - start < seconds and
                             steps < 500):
            self.decode([(prompt[steps % len(prompt)], position + steps,
                          sequence, True)
                         for sequence, prompt in enumerate(prompts)])
            steps += 1
        return steps * len(prompts) / (time.perf_counter() - start)

    def measure(self, options, vocabulary):
        rates = {}
        for name, point in workload(options).items():
            if "prefill" in point:
                rates[name] = self.prefill(
                    ids_of(0, point["prefill"], vocabulary))
            else:
                prompts = [ids_of(s + 1, point["prompt"], vocabulary)
                           for s in range(point["streams"])]
                rates[name] = self.decode_rate(prompts, options.sample_seconds)
        return {"flash_attention": self.flash, "rates": rates}


def ids_of(text, count, vocabulary):
    """Ids of a prompt; different texts differ from the first id on."""
    return [(text * 7919 + i * 104729) % vocabulary for i in range(count)]


def serve_peer(options):
    import llama_cpp as library
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
    contexts = [PeerContext(library, model, options, flash)
                for flash in (False, True)]
    print(json.dumps({"version": library.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps([c.measure(options, vocabulary) for c in contexts]),
              flush=True)


def main():
    options = parse_arguments()
    if options.peer:
        return serve_peer(options)
    peer = Peer(options)
    peer.turn()  # warm
    ours, peers, ratios = [run_ours(options)], [], []
    for _ in range(3 * options.rounds):
        theirs = peer.turn()
        ours.append(run_ours(options))
        peers.append(theirs)
        ratio = judge(ours[-2], theirs, ours[-1])
        if ratio is not None:
            ratios.append(ratio)
        if len(ratios) == options.rounds:
            break
    peer.close()
    result = {
        "model": str(options.model), "peer": peer.about,
        "class": next((o["class"] for o in ours if o), None),
        "rounds": len(ratios), "dropped": len(peers) - len(ratios),
        "points": summarize(ours, peers, ratios)}
    if options.json:
        print(json.dumps(result, indent=2))
        return None
    print(f"{result['model']}, {result['class']}, beside llama-cpp-python "
          f"{peer.about['version']}: {result['rounds']} rounds, "
          f"{result['dropped']} dropped")
    for name, point in result["points"].items():
        print(f"{name:14s} {point['ours']:9.1f} tok/s, the peer "
              f"{point['peer']:9.1f}: {point['ratio']:.2f} x "
              f"({point['least']:.2f} to {point['most']:.2f})")
    return None


if __name__ == "__main__":
    sys.exit(main())
