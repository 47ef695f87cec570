#!/usr/bin/env python3
"""What the suite adds to the engine, and what a gateway core carries.

Measures, on this machine and in one run:
  1. the engine alone (caravan bench --engine), at the flags given,
  2. the same load through client, gateway, router and worker,
  3. with a worker that computes nothing: streamed tokens/s per gateway core,
     and many concurrent streams,
  4. what all processes together take of a core while nobody asks (--idle
     alone: only this).

Usage: serving.py --model DIR [--bin DIR] [--streams N] [--idle] [--json]
Not run by the tests: it wants a quiet machine.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--skip-engine", action="store_true")
    parser.add_argument("--idle", action="store_true")
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def engine_alone(options):
    """One batch of streams, prefill included, as in `served`."""
    done = subprocess.run(
        [pathlib.Path(options.bin) / "caravan", "bench", "--engine", "--model",
         options.model, "--batches", str(options.concurrency),
         "--prefill-tokens", "0", "--prompt-tokens",
         str(options.prompt_tokens), "--output-tokens",
         str(options.output_tokens), "--threads", str(options.threads),
         "--samples", "1", "--whole-runs", "3", "--json"],
        stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    sample = report["points"][0]
    sample["output_tokens_per_second"] = report["whole"][0]["tokens_per_second"]
    return sample


def load(suite, options, concurrency, requests, *flags):
    from suite import run_cli
    gateway = suite.services["gateway"]
    before = cpu_seconds(gateway.pid)
    done = run_cli("bench", "--gateway", suite.grpc, "--requests", requests,
                   "--concurrency", concurrency, "--prompt-tokens",
                   options.prompt_tokens, "--output-tokens",
                   options.output_tokens, "--json", *flags, timeout=3600)
    report = json.loads(done.stdout)
    report["gateway_cpu_s"] = cpu_seconds(gateway.pid) - before
    report["tokens_per_gateway_core_second"] = (
        report["output_tokens"] / max(report["gateway_cpu_s"], 1e-9))
    return report


def idle(suite, options):
    """Percent of a core that each process takes while nothing happens."""
    load(suite, options, 2, 2)  # every thread has run
    time.sleep(1)
    start = {name: cpu_seconds(service.pid)
             for name, service in suite.services.items()}
    time.sleep(options.idle_seconds)
    share = {name: 100 * (cpu_seconds(suite.services[name].pid) - before) /
             options.idle_seconds for name, before in start.items()}
    share["all"] = sum(share.values())
    return share


def print_idle(share):
    print("idle, % of a core:    " + "  ".join(
        f"{name} {percent:.2f}" for name, percent in share.items()))


def with_suite(options, worker_flags, measure):
    from suite import Suite
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(pathlib.Path(folder), "--threads",
                      str(options.threads), model=options.model,
                      worker_flags=worker_flags)
        try:
            return measure(suite)
        finally:
            suite.stop()


def main():
    options = parse_arguments()
    os.environ["CARAVAN_BIN_DIR"] = options.bin
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = {}
    if options.idle:
        print_idle(with_suite(options, [], lambda s: idle(s, options)))
        return
    if not options.skip_engine:
        result["engine"] = engine_alone(options)
        result["served"], result["idle"] = with_suite(
            options, [], lambda suite: (
                load(suite, options, options.concurrency, options.concurrency),
                idle(suite, options)))
        result["served_percent_of_engine"] = (
            100 * result["served"]["output_tokens_per_second"] /
            result["engine"]["output_tokens_per_second"])
    null_flags = ["--null-model", "--max-running", "4096", "--max-waiting",
                  "4096", "--max-step-tokens", "4096"]

    def null_load(suite):
        few = load(suite, options, 64, 512)
        many = load(suite, options, options.streams, options.streams,
                    "--channels", "20")
        return few, many

    result["null"], result["null_many_streams"] = with_suite(
        options, null_flags, null_load)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, report in result.items():
        if name == "idle":
            print_idle(report)
        elif isinstance(report, dict):
            print(f"{name:20s} {report['output_tokens_per_second']:10.1f} "
                  f"tokens/s  failed {report.get('failed', 0)}  first token "
                  f"p50 {report.get('first_token_ms', {}).get('p50', 0):.2f} "
                  "ms  per gateway core "
                  f"{report.get('tokens_per_gateway_core_second', 0):.0f}")
        else:
            print(f"{name:20s} {report:10.1f}")


if __name__ == "__main__":
    main()
