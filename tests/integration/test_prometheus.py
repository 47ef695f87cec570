"""A real Prometheus server scrapes the suite and answers the dashboard."""

import json
import shutil
import socket
import subprocess

import httpx
import pytest

from suite import MODEL, ROOT, run_cli, wait_for

PATIENCE = 60  # seconds, of a busy machine
REQUESTS = 20
PROMPT_TOKENS = 24
OUTPUT_TOKENS = 16


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """A server with a configuration of its own for one suite."""

    def __init__(self, folder, suite):
        jobs = "".join(
            f'      - targets: ["{service.metrics_address}"]\n'
            f"        labels: {{process: {name.split('-')[0]}}}\n"
            for name, service in suite.services.items())
        (folder / "prometheus.yml").write_text(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n"
            "scrape_configs:\n  - job_name: caravan\n    static_configs:\n" +
            jobs)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [shutil.which("prometheus"),
             f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={self.url[7:]}", "--log.level=warn"],
            stdout=subprocess.DEVNULL, stderr=open(folder / "log", "w"))

    def query(self, expression):
        reply = httpx.get(self.url + "/api/v1/query", timeout=10,
                          params={"query": expression})
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]["result"]

    def value(self, expression):
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def targets_up(self):
        """How many targets are up; None while the server starts."""
        try:
            if httpx.get(self.url + "/-/ready").status_code != 200:
                return None
            return self.value('sum(up{job="caravan"})')
        except httpx.TransportError:
            return None

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """(suite, prometheus) after a bench of known size."""
    from suite import Suite
    running = Suite(tmp_path_factory.mktemp("suite"))
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), running)
    try:
        wait_for(lambda: server.targets_up() == len(running.services), PATIENCE,
                 "all targets up")
        run_cli("bench", "--gateway", running.grpc, "--requests", REQUESTS,
                "--concurrency", 4, "--prompt-tokens", PROMPT_TOKENS,
                "--output-tokens", OUTPUT_TOKENS)
        yield running, server
    finally:
        server.stop()
        running.stop()


@pytest.mark.parametrize("expression, expected", [
    ('sum(caravan_gateway_requests_total{outcome="ok"})', REQUESTS),
    ("sum(caravan_gateway_requests_total)", REQUESTS),
    ("sum(caravan_gateway_prompt_tokens_total)", REQUESTS * PROMPT_TOKENS),
    ("sum(caravan_gateway_generated_tokens_total)", REQUESTS * OUTPUT_TOKENS),
    ("sum(caravan_gateway_first_token_seconds_count)", REQUESTS),
    ("sum(caravan_worker_generated_tokens_total)", REQUESTS * OUTPUT_TOKENS),
    ("sum(caravan_gateway_in_flight_requests)", 0),
    ('sum(caravan_worker_kv_blocks{state="leased"})', 0),
])
def test_counts_equal_the_clients(scraped, expression, expected):
    _, server = scraped
    wait_for(lambda: server.value(expression) == expected, PATIENCE,
             f"{expression} = {expected} (is {server.value(expression)})")


def dashboard_queries():
    dashboard = json.loads((ROOT / "deploy/grafana/caravan.json").read_text())
    return [(panel["title"], target["expr"])
            for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("title, expression", dashboard_queries())
def test_every_query_of_the_dashboard_returns_data(scraped, title,
                                                   expression):
    _, server = scraped
    expression = expression.replace("$__rate_interval", "1m")
    wait_for(lambda: server.query(expression), PATIENCE, f"data for {title}")


def test_promtool_finds_nothing_in_our_metrics(scraped):
    running, _ = scraped
    for name, service in running.services.items():
        done = subprocess.run(["promtool", "check", "metrics"], text=True,
                              input=service.metrics().text,
                              capture_output=True)
        said = [line for line in (done.stdout + done.stderr).splitlines()
                if line.startswith("caravan_")]
        assert not said, (name, said)


def test_promtool_accepts_the_rules():
    folder = ROOT / "deploy/prometheus"
    subprocess.run(["promtool", "check", "rules", folder / "alerts.yml"],
                   check=True, capture_output=True)
    subprocess.run(["promtool", "check", "config", folder / "scrape.yml"],
                   check=True, capture_output=True)


def test_rules_and_dashboard_use_only_metrics_that_exist():
    import re
    names = set(re.findall(
        r'"(caravan_\w+)"',
        (ROOT / "common/metrics/names.h").read_text()))
    for file in ("deploy/prometheus/alerts.yml", "deploy/grafana/caravan.json"):
        used = re.findall(r"\bcaravan_\w+", (ROOT / file).read_text())
        for name in used:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in names or base in names, (file, name)


def test_workers_expose_the_names_that_autoscalers_read(scraped):
    running, _ = scraped
    names = running.services["worker-1"].metrics().names()
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                 "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
                 "vllm:generation_tokens_total"):
        assert name in names
    assert MODEL in running.services["worker-1"].metrics().text
