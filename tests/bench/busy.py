#!/usr/bin/env python3
"""What decoding keeps of its speed beside a busy process on one core.

Takes turns: quiet, then with a process that computes bound to the first core.
Prints the median share over the rounds, and the range.

Usage: busy.py --model DIR [--bin DIR] [--rounds N] [--threads N]
Not run by the tests: it wants a quiet machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tokens_per_second(options):
    """Of whole runs, whose prompt is short: no probe drops one, as would those
    of samples that a busy process disturbs."""
    done = subprocess.run(
        [pathlib.Path(options.bin) / "caravan", "bench", "--engine", "--model",
         options.model, "--batches", "1", "--prefill-tokens", "0",
         "--prompt-tokens", "8", "--output-tokens", str(options.tokens),
         "--whole-runs", "3", "--threads", str(options.threads), "--samples",
         "1", "--sample-seconds", "0", "--probe-seconds", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        check=True)
    return json.loads(done.stdout)["whole"][0]["tokens_per_second"]


class BusyProcess:
    """Computes on the first core while it lives."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c",
                                         "while True: pass"])
        os.sched_setaffinity(self.process.pid,
                             {min(os.sched_getaffinity(0))})

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    shares = []
    for _ in range(options.rounds):
        quiet = tokens_per_second(options)
        with BusyProcess():
            busy = tokens_per_second(options)
        shares.append(100 * busy / quiet)
        print(f"quiet {quiet:.1f} tokens/s, busy {busy:.1f}: "
              f"{shares[-1]:.0f} %", flush=True)
    print(f"median {statistics.median(shares):.0f} % of the quiet speed "
          f"({min(shares):.0f} to {max(shares):.0f})")


if __name__ == "__main__":
    main()
