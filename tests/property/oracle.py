"""Our side of a comparison: tests/property/text_oracle over many rows."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def reference_data():
    """The folder of the reference data, or None."""
    folder = pathlib.Path(os.environ.get("CARAVAN_REFERENCE_DATA",
                                         ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


def answers(rows):
    """What text_oracle answers to each row."""
    binaries = pathlib.Path(os.environ.get("CARAVAN_BIN_DIR",
                                           ROOT / "build" / "dev" / "bin"))
    done = subprocess.run(
        [binaries / "text_oracle"], timeout=1800, check=True,
        input="".join(json.dumps(row) + "\n" for row in rows),
        stdout=subprocess.PIPE, encoding="utf-8")
    lines = done.stdout.split("\n")
    assert len(lines) == len(rows) + 1, "one answer a row"
    return [json.loads(line) for line in lines[:-1]]
