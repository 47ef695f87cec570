"""A model of 7 billion parameters in 4 bits, on the machine that runs this."""

import json

import pytest

from suite import run_cli

GIB = 1 << 30


@pytest.mark.long
def test_seven_billion_parameters_load_and_decode_within_their_plan(tmp_path):
    model = tmp_path / "llama-2-7b"
    run_cli("make-model", model, "--shape", "llama-2-7b", "--type", "q4_0",
            "--threads", 2, timeout=900)
    out = run_cli("bench", "--engine", "--model", model, "--json",
                  "--threads", 2, "--batches", "1", "--prefill-tokens", 0,
                  "--prompt-tokens", 32, "--output-tokens", 16,
                  "--samples", 1, "--whole-runs", 1, timeout=900).stdout
    report = json.loads(out)
    load = report["load"]
    print(f"packed {load['packed_bytes'] / GIB:.2f} GiB, planned without KV "
          f"{load['planned_bytes'] / GIB:.2f}, resident at most "
          f"{load['peak_bytes'] / GIB:.2f}")
    assert load["packed_bytes"] == load["planned_weight_bytes"]
    assert load["packed_bytes"] < 3.9 * GIB
    assert load["peak_bytes"] < 1.1 * load["planned_bytes"]
    # Whole runs count whatever else the machine does meanwhile.
    assert report["whole"][0]["tokens_per_second"] > 0
