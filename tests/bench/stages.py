#!/usr/bin/env python3
"""What a chain of stages, or ranks, on one machine reach of one stage's
throughput.

Both replicas run at once and get the load in turns, so that what else the
machine does meets both; each has the same threads in all. Prints tokens/s, the
ratio, bytes per token on the wire and seconds per hop.

Two stages on one machine read every weight once per micro-batch, and there are
as many micro-batches as stages: where a step is bound by the weights' bytes
(few streams) the roofline is one over the number of stages; where it is bound
by arithmetic (many streams) it is 1.

Usage: stages.py --model DIR [--bin DIR] [--stages 2] [--threads 2]
       stages.py --model DIR --stages 1 --chain-flag=--ranks=2
Not run by the tests: it wants a quiet machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each replica in all")
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker-flag", action="append", default=[],
                        help="for every worker, such as --activations=bf16")
    parser.add_argument("--chain-flag", action="append", default=[],
                        help="for the workers that are compared with one")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def throughput(suite, options, streams):
    from suite import run_cli
    done = run_cli("bench", "--gateway", suite.grpc, "--requests", streams,
                   "--concurrency", streams, "--prompt-tokens",
                   options.prompt_tokens, "--output-tokens",
                   options.output_tokens, "--json", timeout=3600)
    report = json.loads(done.stdout)
    assert report["failed"] == 0, report["failures"]
    return report["output_tokens_per_second"]


def compare(one, chain, options, streams):
    """One stage, the chain, and one stage with a micro-batch's streams: what
    the chain's stages reach when they are never idle."""
    triples = [(throughput(one, options, streams),
                throughput(chain, options, streams),
                throughput(one, options, max(1, streams // options.stages)))
               for _ in range(options.rounds)]
    pairs = [(a, b) for a, b, _ in triples]
    return {
        "streams": streams,
        "roofline": statistics.median(c / a for a, _, c in triples),
        "one_tokens_per_second": statistics.median(a for a, _ in pairs),
        "chain_tokens_per_second": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
    }


def compute_seconds(service):
    """Mean time that a stage computed on a plan."""
    metrics, name = service.metrics(), "caravan_worker_stage_compute_seconds"
    return metrics.sum(name + "_sum") / metrics.sum(name + "_count")


def wire(chain):
    metrics = chain.services["worker-1"].metrics()
    name = "caravan_worker_stage_"
    count = metrics.sum(name + "hop_seconds_count")
    if count == 0:
        return None  # one stage
    return {
        "bytes_per_token": metrics.sum(name + "sent_bytes_total") /
        metrics.sum(name + "sent_tokens_total"),
        "seconds_per_hop": metrics.sum(name + "hop_seconds_sum") / count,
        "plans": count,
        "compute_seconds": [compute_seconds(service) for name, service in
                            sorted(chain.services.items())
                            if name.startswith("worker-1")],
    }


def measure(options, folder):
    from suite import Suite
    suites = []
    try:
        for name, stages, flags in (
                ("one", 1, []), ("chain", options.stages, options.chain_flag)):
            log_dir = folder / name
            log_dir.mkdir()
            suites.append(Suite(
                log_dir, "--stages", str(stages), "--threads",
                str(max(1, options.threads // stages)), model=options.model,
                worker_flags=[*options.worker_flag, *flags]))
        for suite in suites:
            throughput(suite, options, options.streams[0])  # warm
        points = [compare(*suites, options, streams)
                  for streams in options.streams]
        return {"points": points, "wire": wire(suites[1])}
    finally:
        for suite in suites:
            suite.stop()


def main():
    options = parse_arguments()
    os.environ["CARAVAN_BIN_DIR"] = options.bin
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, pathlib.Path(folder))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for point in result["points"]:
        print(f"{point['streams']:4d} streams  one stage "
              f"{point['one_tokens_per_second']:8.1f} tokens/s  "
              f"{options.stages} stages {' '.join(options.chain_flag)} "
              f"{point['chain_tokens_per_second']:8.1f} tokens/s  "
              f"{100 * point['ratio']:5.1f} %  of micro-batches "
              f"{100 * point['roofline']:5.1f} %")
    if result["wire"]:
        print(f"{result['wire']['bytes_per_token']:.0f} bytes per token on "
              f"the wire, {1e3 * result['wire']['seconds_per_hop']:.3f} ms per "
              "hop and back")
        print("a plan's milliseconds in each stage:", ", ".join(
            f"{1e3 * t:.2f}" for t in result["wire"]["compute_seconds"]))


if __name__ == "__main__":
    main()
