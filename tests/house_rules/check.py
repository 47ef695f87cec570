#!/usr/bin/env python3
"""House rules: what a machine can check about the shape of the source tree.

Prints each violation as FILE:LINE: RULE: what to do instead, and ends with 1
when there is any. Function lengths are reported, never failed.

Usage: check.py [ROOT]
"""

import collections
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import functions  # noqa: E402
import rules  # noqa: E402

CODE = (".cc", ".h", ".cu", ".cuh", ".inc")
TEXT = CODE + (".py", ".sh", ".md", ".txt", ".json", ".yml", ".yaml",
               ".proto", ".cmake", ".in", ".jinja")


def tree_files(root):
    """Files that are, or could be, committed: relative POSIX paths."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root,
        capture_output=True, text=True, check=True).stdout
    return sorted(path for path in set(listing.splitlines())
                  if (root / path).is_file())


def load(root, paths):
    """Path -> text of the files that the rules read."""
    sources = {}
    for path in paths:
        name = pathlib.PurePosixPath(path).name
        if path.endswith(TEXT) or name == "run" or name == "CMakeLists.txt":
            sources[path] = (root / path).read_text(errors="replace")
    return sources


def report_functions(sources):
    """Prints the ten longest functions, and what is long where it matters."""
    found = []
    for path, text in sources.items():
        if path.endswith((".cc", ".h", ".cu")) and not path.startswith(
                "tests/"):
            found += [(lines, path, name)
                      for name, lines in functions.lengths(text)]
    found.sort(reverse=True)
    print("The ten longest functions (lines, file, name):")
    for lines, path, name in found[:10]:
        print(f"  {lines:4d}  {path}  {name}")
    watched = [f for f in found
               if f[0] > rules.LONG_FUNCTION and rules.is_watched_room(f[1])]
    print(f"Over {rules.LONG_FUNCTION} lines in scheduler, engine, server "
          f"start-up and streaming: {len(watched)}")
    for lines, path, name in watched:
        print(f"  {lines:4d}  {path}  {name}")
    if found:
        print(f"Functions: {len(found)}, median "
              f"{found[len(found) // 2][0]} lines")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                        pathlib.Path(__file__).parents[2]).resolve()
    sources = load(root, tree_files(root))
    violations = []
    for rule in rules.ALL:
        violations += rule(sources)
    for path, line, name, advice in sorted(violations):
        print(f"{path}:{line}: {name}: {advice}")
    report_functions(sources)
    count = collections.Counter(name for _, _, name, _ in violations)
    print(f"House rules: {len(violations)} violations "
          f"{dict(count) if count else ''}".rstrip())
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
