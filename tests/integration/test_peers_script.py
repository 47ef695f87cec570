"""The arithmetic of tests/bench/peers.py."""

import argparse
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))

import peers  # noqa: E402


def report(read, rate, samples=1):
    return {
        "numerics_class": "cpu-avx512/w:q4_0/a:int8/kv:bf16/v1",
        "points": [
            {"kind": "decode", "streams": 1, "prompt_tokens": 128,
             "samples": samples, "read_ceiling": read,
             "tokens_per_second": rate},
            {"kind": "prefill", "streams": 1, "prompt_tokens": 512,
             "samples": 1, "read_ceiling": read,
             "tokens_per_second": 10 * rate}]}


def test_points_have_the_names_of_the_workload():
    options = argparse.Namespace(prompt_tokens=128, batch=16,
                                 prefill_tokens=512)
    names = set(peers.workload(options))
    assert names == {"decode 1", "decode 16", "prefill 512"}
    assert set(peers.ours_of(report(30e9, 5))["rates"]) <= names


def test_a_round_is_judged_by_the_mean_of_both_runs():
    before, after = (peers.ours_of(report(30e9, rate)) for rate in (10, 14))
    ratio = peers.judge(before, {"decode 1": 6.0, "prefill 512": 60.0}, after)
    assert ratio == {"decode 1": 2.0, "prefill 512": 2.0}


def test_rounds_on_a_machine_that_changed_its_speed_are_dropped():
    slow, fast = (peers.ours_of(report(read, 10)) for read in (30e9, 33e9))
    assert peers.judge(slow, {"decode 1": 5.0}, fast) is None
    assert peers.judge(slow, {"decode 1": 5.0}, None) is None
    assert peers.ours_of(report(30e9, 10, samples=0)) is None


def test_the_better_setting_of_the_peer_counts():
    best = peers.best_of([
        {"flash_attention": False, "rates": {"decode 1": 5, "prefill 512": 9}},
        {"flash_attention": True, "rates": {"decode 1": 6, "prefill 512": 8}}])
    assert best == {"decode 1": 6, "prefill 512": 9}


def test_medians_are_over_rounds():
    ours = [peers.ours_of(report(30e9, 10)), None]
    ratios = [{"decode 1": r} for r in (1.0, 3.0, 2.0)]
    summary = peers.summarize(ours, [{"decode 1": 5.0}], ratios)
    assert summary["decode 1"] == {"ratio": 2.0, "least": 1.0, "most": 3.0,
                                   "ours": 10, "peer": 5.0}
    assert peers.summarize(ours, [], []) == {}


def test_prompts_differ_from_the_first_id_on():
    firsts = {peers.ids_of(text, 4, 32000)[0] for text in range(17)}
    assert len(firsts) == 17
    with pytest.raises(RuntimeError):
        peers.first_of(peers, "no_such_call")
