#!/usr/bin/env python3
"""What one API key with ten times the load of nine others does to them.

Ten keys send requests as Poisson processes: first all ten alike, then the
first with ten times as much, in turns. A load of 1 is what the suite takes of
ten keys alike, found by a closed loop before each round; the flood comes on
top. Prints the 99th percentiles of the nine, to the first token and to the
end, and the flood's part of the tokens until the nine had ended. Both runs
have the same prompts, so workers keep none. What comes in the first seconds
of a run is not counted: a key is over its share by what it asked for in the
last two minutes, so a flood is a burst like another at first.

Usage: fairness.py [--model DIR] [--bin DIR] [--loads 0.5 0.7]
Not run by the tests: it wants a quiet machine.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))

KEYS = 10
FLOOD = 10  # times the load of another key


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path,
                        default=ROOT / "deploy/demo-model")
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--loads", type=float, nargs="+",
                        default=[0.5, 0.7])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1,
                        help="of a worker; the gateway wants a core as well")
    parser.add_argument("--prompt-tokens", default="64:384")
    parser.add_argument("--output-tokens", default="16:128")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--warm-seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker-flag", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def key(number):
    return f"key-{number}"


def bench(suite, options, number, *flags):
    """`caravan bench` with a key, running."""
    return subprocess.Popen(
        [pathlib.Path(options.bin) / "caravan", "bench", "--gateway",
         suite.grpc, "--api-key", key(number), "--prompt-tokens",
         options.prompt_tokens, "--output-tokens", options.output_tokens,
         "--json", "--each", *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def report_of(process):
    report = json.loads(process.communicate()[0])
    assert report["failed"] == 0, report["failures"]
    return report


def capacity(suite, options):
    """Requests per second that the suite takes, of keys alike."""
    reports = [report_of(process) for process in [
        bench(suite, options, number, "--concurrency", 4, "--requests", 60,
              "--seed", 1000 + number) for number in range(KEYS)]]
    return sum(report["requests_per_second"] for report in reports)


def worker_tokens(suite):
    return suite.worker_sum("caravan_worker_tokens_total")


def tokens_of(report):
    return report["prompt_tokens"] + report["output_tokens"]


def run(suite, options, rate, flood, seed):
    """The requests of the nine, and the flood's part of the work until these
    had ended."""
    warm = math.ceil(rate * options.warm_seconds)
    requests = warm + max(10, math.ceil(rate * options.seconds))
    before = worker_tokens(suite)
    first = bench(suite, options, 0, "--rate", flood * rate, "--requests",
                  flood * requests, "--seed", KEYS * seed)
    others = [bench(suite, options, number, "--rate", rate, "--requests",
                    requests, "--seed", KEYS * seed + number)
              for number in range(1, KEYS)]
    reports = [report_of(process) for process in others]
    worked = worker_tokens(suite) - before
    first.kill()
    first.communicate()
    counted = [r for report in reports for r in report["requests"][warm:]]
    return counted, 1 - sum(map(tokens_of, reports)) / worked


def p99(requests, field):
    values = sorted(request[field] for request in requests)
    return values[math.ceil(0.99 * len(values)) - 1]


def compare(suite, options, load):
    """All rounds of a load; ratios by round, and their median."""
    rounds = []
    for seed in range(1, options.rounds + 1):
        rate = load * capacity(suite, options) / KEYS
        alike, _ = run(suite, options, rate, 1, seed)
        flooded, share = run(suite, options, rate, FLOOD, seed)
        point = {"requests_per_second": KEYS * rate, "requests": len(alike),
                 "flood_share": share}
        for field in ("first_token_ms", "end_to_end_ms"):
            a, b = p99(alike, field), p99(flooded, field)
            point[field] = {"alike": a, "flooded": b, "ratio": b / a}
        rounds.append(point)
    return {"load": load, "rounds": rounds}


def measure(options, folder):
    from suite import Suite
    keys = folder / "keys"
    keys.write_text("".join(f"{key(n)} tenant-{n}\n" for n in range(KEYS)))
    suite = Suite(folder, "--workers", options.workers, "--threads",
                  options.threads, "--api-keys", keys, model=options.model,
                  worker_flags=["--no-prefix-cache", *options.worker_flag])
    try:
        capacity(suite, options)  # warm
        return [compare(suite, options, load) for load in options.loads]
    finally:
        suite.stop()


def median(rounds, *path):
    def value(point):
        for name in path:
            point = point[name]
        return point
    return statistics.median(map(value, rounds))


def print_point(point):
    rounds = point["rounds"]
    print(f"load {point['load']:.2f}, {median(rounds, 'requests'):.0f} "
          f"requests of nine keys at "
          f"{median(rounds, 'requests_per_second'):.1f}/s of ten:")
    for field in ("first_token_ms", "end_to_end_ms"):
        changes = " ".join(f"{100 * (r[field]['ratio'] - 1):+.0f}"
                           for r in rounds)
        print(f"  p99 {field:14s} alike {median(rounds, field, 'alike'):8.1f}"
              f"  flooded {median(rounds, field, 'flooded'):8.1f}  median of "
              f"changes {100 * (median(rounds, field, 'ratio') - 1):+.0f} % "
              f"({changes})")
    print(f"  the flood's part of the tokens "
          f"{100 * median(rounds, 'flood_share'):.0f} %", flush=True)


def main():
    options = parse_arguments()
    os.environ["CARAVAN_BIN_DIR"] = options.bin
    with tempfile.TemporaryDirectory() as folder:
        points = measure(options, pathlib.Path(folder))
    if options.json:
        print(json.dumps(points, indent=2))
        return
    for point in points:
        print_point(point)


if __name__ == "__main__":
    main()
