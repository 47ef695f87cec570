#!/usr/bin/env python3
"""Sums JUnit files and shows what failed in them.

Prints, for each failed case, its name and the end of what it said, so that
the end of a log is enough to know what happened; then one line of totals:
"P passed, F failed, S skipped". A missing or torn file counts as a failure.
Exits with 1 when anything failed.

Usage: tests/junit_report.py FILE.xml ...
"""

import sys
import xml.etree.ElementTree as tree

LINES_OF_A_FAILURE = 40


def cases(path):
    try:
        return list(tree.parse(path).getroot().iter("testcase"))
    except (OSError, tree.ParseError) as error:
        print(f"FAILED {path}: {error}")
        return None


def outcome(case):
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    if "skipped" in kinds or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def show(case):
    """The name of a failed case and the last lines of each of its texts."""
    print(f"FAILED {case.get('classname')} {case.get('name')}")
    for child in case:
        text = (child.get("message") or "") + "\n" + (child.text or "")
        for line in text.splitlines()[-LINES_OF_A_FAILURE:]:
            print(f"  {child.tag}: {line}")


def main(paths):
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for path in paths:
        found = cases(path)
        if found is None:
            count["failed"] += 1
            continue
        for case in found:
            count[outcome(case)] += 1
            if outcome(case) == "failed":
                show(case)
    print(", ".join(f"{number} {what}" for what, number in count.items()))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
