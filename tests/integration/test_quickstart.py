"""deploy/quickstart.sh, as a newcomer runs it."""

import subprocess
import time

import pytest

from suite import ROOT

FIRST_SECONDS = 1200  # builds; seconds where the compiler cache is warm
NEXT_SECONDS = 10
TRIES = 5  # on a machine that may be busy with other things


def quickstart(*arguments, timeout):
    done = subprocess.run(
        [ROOT / "deploy/quickstart.sh", "--once", *arguments], cwd=ROOT,
        capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_again(story):
    started = time.monotonic()
    assert quickstart(timeout=60) == story
    return time.monotonic() - started


@pytest.mark.timeout(FIRST_SECONDS + 120)
def test_quickstart_streams_a_story_and_ends_with_0():
    story = quickstart(timeout=FIRST_SECONDS)
    assert story.startswith("Once upon a time")
    assert len(story.split()) > 60
    assert any(seconds_again(story) < NEXT_SECONDS for _ in range(TRIES))
    assert quickstart("--seed", "8", timeout=60) != story
    other = quickstart("--prompt", "The little bear", timeout=60)
    assert other.startswith("The little bear") and other != story
