"""Reads ptxas -v: one line per kernel; exit code 1 for what must not be."""

import re
import sys

# Kernels that a step's time depends on: they must not spill.
HOT = ("MmaGemmKernel", "WgmmaGemmKernel", "MmaAttendKernel", "CombineKernel", "NormKernel",
       "LogitStatsKernel", "WeightBucketsKernel", "WeightSharesKernel",
       "PickTokenKernel", "RankKernel",
       "RoundRowsKernel", "FinishProductKernel", "PackFp8ActivationsKernel", "RopeStoreKernel", "PackActivationsKernel", "EmbedKernel",
       "ReadCeilingKernel", "MmaCeilingKernel")
FORBIDDEN = re.compile(
    r"wgmma.*serialized|setmaxnreg.*ignored|C75(08|09|10|12)", re.IGNORECASE)

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                   r"(\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
NAME = re.compile(r"EntryI\w*?\d+([A-Z][A-Za-z0-9]+Kernel)(?:ILi(\d+)E(?:Li(\d+)E)?)?")

# What else tells two kernels of one name apart.
KIND = re.compile(r"\d([A-Z][A-Za-z0-9]*(?:Source|Cache))E")


def kernels(lines):
    """(name, registers, static shared bytes, stack, spills) in their order."""
    current = None
    for line in lines:
        entry = ENTRY.search(line)
        if entry:
            found = NAME.search(entry[1])
            name = found[1] if found else entry[1]
            if found and found[2]:
                name += f"<{found[2]}{', ' + found[3] if found[3] else ''}>"
            kind = KIND.search(entry[1])
            if kind:
                name += f" {kind[1]}"
            current = {"name": name, "stack": 0, "spills": 0}
        frame = FRAME.search(line)
        if frame and current:
            current["stack"] = int(frame[1])
            current["spills"] = int(frame[2]) + int(frame[3])
        used = USED.search(line)
        if used and current:
            shared = SHARED.search(line)
            yield (current["name"], int(used[1]),
                   int(shared[1]) if shared else 0, current["stack"],
                   current["spills"])
            current = None


def main():
    architecture, path = sys.argv[1:3]
    with open(path, encoding="utf-8") as log:
        lines = log.read().splitlines()
    table = list(kernels(lines))
    failures = [f"ptxas: {line.strip()}" for line in lines
                if FORBIDDEN.search(line)]
    print(f"sm_{architecture}: kernel, registers, static shared bytes, stack "
          "bytes, spilled bytes")
    for name, registers, shared, stack, spills in sorted(table):
        print(f"  {name:32} {registers:4} {shared:6} {stack:5} {spills:5}")
        if spills and re.split("[< ]", name)[0] in HOT:
            failures.append(f"{name} spills {spills} bytes; it must not")
    missing = [name for name in HOT
               if not any(re.split("[< ]", row[0])[0] == name for row in table)]
    failures += [f"{name} is not in the report" for name in missing]
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
