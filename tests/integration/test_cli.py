"""The `caravan` command against a running suite, and on its own."""

import json
import math

import httpx
import pytest

from suite import DEMO_MODEL, MODEL, ROOT, run_cli, wait_for

LLAMA_2_13B = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 5120,
    "intermediate_size": 13824, "max_position_embeddings": 4096,
    "model_type": "llama", "num_attention_heads": 40, "num_hidden_layers": 40,
    "num_key_value_heads": 40, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False, "torch_dtype": "float16",
    "vocab_size": 32000}
LLAMA_3_70B = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 8192,
    "intermediate_size": 28672, "max_position_embeddings": 8192,
    "model_type": "llama", "num_attention_heads": 64, "num_hidden_layers": 80,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "vocab_size": 128256}


@pytest.mark.parametrize("config, parameters", [
    (LLAMA_2_13B, 13015864320), (LLAMA_3_70B, 70553706496)],
    ids=["llama-2-13b", "llama-3-70b"])
def test_plan_counts_parameters_from_the_config_alone(tmp_path, config,
                                                      parameters):
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = run_cli("plan", tmp_path).stdout
    assert f"{parameters} parameters" in out
    assert "GB" in out and "GiB" in out and "bytes per token" in out


def test_plan_is_what_the_worker_plans(suite):
    out = run_cli("plan", DEMO_MODEL).stdout.splitlines()
    row = {line.split()[0]: line.split() for line in out if line.split()}
    metrics = suite.services["worker-1"].metrics()
    planned = metrics.sum("caravan_worker_planned_bytes", part="weights")
    assert str(int(planned)) in row["weights"]


def test_plan_of_stages_and_ranks_is_of_each_stage():
    out = run_cli("plan", DEMO_MODEL, "--stages", 2, "--ranks", 4).stdout
    assert "stage 0/2: layers [0, 3)" in out
    assert "stage 1/2: layers [3, 5)" in out
    assert "Each of 4 ranks" in out
    assert [line.split()[:2] for line in out.splitlines()
            if line.startswith("rank ")] == 2 * [["rank", str(i)]
                                                 for i in range(4)]
    least = min(int(line.split("GiB: ")[1].split()[0])
                for line in out.splitlines() if line.startswith("In "))
    assert out.splitlines()[-1].endswith(f"the fewest: {least}")


@pytest.mark.parametrize("flags, limit", [
    (["--ranks", 3], "--ranks must be 1, 2, 4 or 8; got 3"),
    (["--ranks", 8], "a divisor of num_key_value_heads = 4; got 8"),
    (["--stages", 6], "--stage")])
def test_plan_names_the_split_that_it_refuses(flags, limit):
    done = run_cli("plan", DEMO_MODEL, *flags, check=False)
    assert done.returncode != 0 and limit in done.stderr


def test_plan_refuses_what_is_no_model(tmp_path):
    done = run_cli("plan", tmp_path, check=False)
    assert done.returncode != 0 and "config.json" in done.stderr


def test_generate_streams_the_same_text_for_the_same_seed(suite):
    arguments = ["generate", "--gateway", suite.grpc, "--prompt",
                 "Once upon a time", "--seed", 7, "--max-tokens", 48]
    one = run_cli(*arguments).stdout
    assert one == run_cli(*arguments).stdout and len(one) > 40
    assert one != run_cli(*arguments[:-3], 8, *arguments[-2:]).stdout
    echoed = run_cli(*arguments, "--echo").stdout
    assert echoed == "Once upon a time" + one


def test_generate_prints_choices_usage_and_receipt(suite, tmp_path):
    receipt = tmp_path / "receipt"
    done = run_cli("generate", "--gateway", suite.grpc, "--chat", "Hello",
                   "-n", 2, "--seed", 1, "--max-tokens", 8, "--usage",
                   "--receipt", receipt)
    assert "--- choice 0" in done.stdout and "--- choice 1" in done.stdout
    assert "seed 1" in done.stderr and len(receipt.read_text()) > 100


def test_generate_names_the_field_that_is_wrong(suite):
    done = run_cli("generate", "--gateway", suite.grpc, "--prompt", "x",
                   "--temperature", 9, check=False)
    assert done.returncode == 2 and "temperature" in done.stderr


def test_generate_says_that_nobody_is_there():
    done = run_cli("generate", "--gateway", "127.0.0.1:1", "--prompt", "x",
                   "--timeout", 5, check=False)
    assert done.returncode == 1 and "caravan: " in done.stderr


def test_chat_keeps_the_conversation(suite):
    done = run_cli("chat", "--gateway", suite.grpc, "--seed", 5,
                   "--max-tokens", 24,
                   input="Tell me a story.\nGo on.\n/undo\nGo on.\n/quit\n")
    turns = [line for line in done.stdout.splitlines() if line]
    assert len(turns) >= 3


def test_score_gives_the_goldens_perplexity(start_suite, tmp_path):
    suite = start_suite(
        worker_flags=["--activations", "fp32", "--kv", "fp32"])
    golden = json.loads((DEMO_MODEL / "goldens.json").read_text())[
        "story_logprobs"]
    file = tmp_path / "ids"
    file.write_text(json.dumps(golden["ids"]))
    out = run_cli("score", file, "--http", suite.http, "--ids", "--whole",
                  "--json").stdout
    score = json.loads(out)
    logprobs = golden["logprobs"][1:]  # BOS has none
    assert score["tokens"] == len(logprobs)
    assert score["mean_nll"] == pytest.approx(
        -sum(logprobs) / len(logprobs), abs=1e-4)
    assert score["perplexity"] == pytest.approx(math.exp(score["mean_nll"]))


def test_score_cuts_text_into_windows(suite, tmp_path):
    text = tmp_path / "text"
    text.write_text("The little dog ran to the park and saw a big tree. " * 40)
    out = run_cli("score", text, "--http", suite.http, "--window", 64,
                  "--json").stdout
    score = json.loads(out)
    assert score["windows"] >= 4
    assert score["tokens"] == score["windows"] * 31


def test_workers_lists_the_fleet(suite):
    out = run_cli("workers", "--router", suite.services["router"].grpc).stdout
    assert MODEL in out and "READY" in out and "cpu" in out


def test_health_asks_every_process(suite):
    addresses = [s.grpc for s in suite.services.values()]
    out = run_cli("health", *addresses).stdout
    assert out.count(" SERVING\n") == len(addresses)
    assert run_cli("health", "127.0.0.1:1", check=False).returncode == 1


@pytest.mark.parametrize("door", [["--gateway", "grpc"], ["--http", "http"]])
def test_bench_reports_every_request(suite, door):
    done = run_cli("bench", door[0], getattr(suite, door[1]), "--requests", 12,
                   "--concurrency", 4, "--prompt-tokens", "8:24",
                   "--output-tokens", "16", "--seed", 3, "--model", MODEL,
                   "--json")
    report = json.loads(done.stdout)
    assert report["succeeded"] == 12 and report["failed"] == 0
    assert report["output_tokens"] == 12 * 16
    assert 0 < report["first_token_ms"]["p50"] <= (
        report["first_token_ms"]["p99"])
    assert report["output_tokens_per_second"] > 0


def test_bench_runs_an_open_loop(suite):
    done = run_cli("bench", "--gateway", suite.grpc, "--requests", 10,
                   "--rate", 50, "--prompt-tokens", 8, "--output-tokens", 4)
    assert "10 succeeded, 0 failed" in done.stdout


def test_up_says_why_a_worker_cannot_start(tmp_path):
    done = run_cli("up", "--model", ROOT / "deploy", "--http-port", 0,
                   "--grpc-port", 0, check=False)
    assert done.returncode != 0 and "before it was ready" in done.stderr


def test_make_model_writes_a_model_that_is_served(start_suite, tmp_path):
    folder = tmp_path / "random"
    run_cli("make-model", "--shape", "tiny", "--dtype", "bf16", "--seed", 3,
            folder)
    assert (folder / "config.json").exists()
    suite = start_suite(model=folder)
    out = run_cli("generate", "--gateway", suite.grpc, "--token-ids", "1,2,3",
                  "--max-tokens", 4, "--seed", 1, "--usage")
    assert "output" in out.stderr
    wait_for(lambda: suite.process.poll() is None, 1)


def test_keys_are_asked_for_at_both_doors(start_suite, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# key tenant weight\nopen-sesame alice 2\n")
    suite = start_suite("--api-keys", keys)
    arguments = ["generate", "--gateway", suite.grpc, "--prompt", "x",
                 "--max-tokens", 1]
    assert "UNAUTHENTICATED" in run_cli(*arguments, check=False).stderr
    run_cli(*arguments, "--api-key", "open-sesame")
    body = {"model": MODEL, "prompt": "x", "max_tokens": 1}
    for headers, status in (({}, 401), ({"authorization": "Bearer no"}, 401),
                            ({"authorization": "Bearer open-sesame"}, 200)):
        reply = httpx.post(suite.url + "/v1/completions", json=body,
                           headers=headers, timeout=60)
        assert reply.status_code == status
    assert httpx.get(suite.url + "/healthz").status_code == 200


def test_tokenize_is_the_same_on_files_and_through_a_tokenizer(suite):
    text = "Once upon a t\u00efme \u65e5\u672c <|eot_id|>"
    address = suite.services["tokenizer"].grpc
    offline = json.loads(run_cli("tokenize", "--model", DEMO_MODEL, "--json",
                                 text).stdout)
    served = json.loads(run_cli("tokenize", "--tokenizer", address, "--json",
                                text).stdout)
    assert offline == served
    assert offline[0] == {"id": 4090, "piece": "<|begin_of_text|>",
                          "special": True, "begin": 0, "end": 0}
    assert not any(token["special"] for token in offline[1:])
    ends = [token["end"] for token in offline]
    assert ends == sorted(ends) and ends[-1] == len(text.encode())
    ids = ",".join(str(token["id"]) for token in offline[1:])
    back = run_cli("tokenize", "--model", DEMO_MODEL, "--decode", ids).stdout
    assert back == text + "\n"


def test_render_is_what_the_gateway_prepares(suite, tmp_path):
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi <|eot_id|>"}]
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(messages))
    address = suite.services["tokenizer"].grpc
    rendered = [json.loads(run_cli("render", *source, "--messages", path,
                                   "--json").stdout)
                for source in (("--model", DEMO_MODEL),
                               ("--tokenizer", address))]
    assert rendered[0] == rendered[1]
    tokens = httpx.post(suite.url + "/tokenize", json={
        "model": MODEL, "messages": messages}).json()["tokens"]
    assert rendered[0]["token_ids"] == tokens


def test_render_knows_formats_by_name(tmp_path):
    out = run_cli("render", "--model", DEMO_MODEL, "--chat-template",
                  "vicuna-v0", "--user", "Hi", "--json").stdout
    rendered = json.loads(out)
    assert rendered["stop_texts"] == ["###"]
    assert rendered["rendered"].endswith("\n### Human: Hi\n### Assistant:")
    assert "koala" in run_cli("render", "--list").stdout.split()
    wrong = run_cli("render", "--model", DEMO_MODEL, "--chat-template",
                    "open-assistant", "--user", "Hi", check=False)
    assert wrong.returncode != 0 and "<|prompter|>" in wrong.stderr
