"""deploy/prometheus.yml and deploy/alerts.yml under the real Prometheus, over a real server."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections import Counter

import pytest
from deployed import ADDRESSES, DEPLOY, LONG, STREAM, begin, edited, question, running, until
from raw_http import asking, call
from served import free_port, serve
from setup_peers import find
from streams import check

pytestmark = pytest.mark.needs("promtool")

ALERTS = {
    "MillraceDown": (
        {'up{job="millrace",instance="a"}': "0x40"},
        {'up{job="millrace",instance="a"}': "1x40"},
    ),
    "MillraceStalled": (
        {"millrace_engine_seconds_since_step": "0+60x40", "millrace_requests_running": "2x40"},
        {"millrace_engine_seconds_since_step": "0+60x40", "millrace_requests_running": "0x40"},
    ),
    "MillraceRefusing": (
        {
            'millrace_requests_refused_total{reason="no_permit"}': "0+10x40",
            "millrace_requests_total": "0+100x40",
        },
        {
            'millrace_requests_refused_total{reason="no_permit"}': "0+1x40",
            'millrace_requests_refused_total{reason="draining"}': "0+10x40",
            "millrace_requests_total": "0+100x40",
        },
    ),
    "MillraceSlowFirstToken": (
        {
            'millrace_time_to_first_token_seconds_bucket{le="2.5"}': "0+80x40",
            "millrace_time_to_first_token_seconds_count": "0+100x40",
        },
        {
            'millrace_time_to_first_token_seconds_bucket{le="2.5"}': "0+95x40",
            "millrace_time_to_first_token_seconds_count": "0+100x40",
        },
    ),
    "MillraceStreamsBroken": (
        {
            'millrace_streams_ended_total{reason="error"}': "0+5x40",
            'millrace_streams_ended_total{reason="finished"}': "0+95x40",
        },
        {
            'millrace_streams_ended_total{reason="client_gone"}': "0+50x40",
            'millrace_streams_ended_total{reason="finished"}': "0+50x40",
        },
    ),
    "MillracePermitsLeak": (
        {"millrace_permits_held": "3x40", "millrace_requests_running": "0x40"},
        {"millrace_permits_held": "3x40", "millrace_requests_running": "2x40"},
    ),
}
"""For each alert what fires it and what comes near: series over 40 minutes, a minute apart."""


@pytest.fixture(scope="module")
def server():
    flags = ("--num-threads", "1", "--max-batch-total-tokens", "8192", "--max-batch-size", "2")
    with serve(*flags, "--max-concurrent-requests", "4", "--max-queue-size", "1") as served:
        yield served


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    return tmp_path


def test_promtool_takes_both_files_without_a_warning():
    for what in ("config", "rules"):
        name = {"config": "prometheus.yml", "rules": "alerts.yml"}[what]
        _promtool("check", what, "--lint=all", "--lint-fatal", str(DEPLOY / name))


def test_each_alert_fires_when_it_should_and_only_then(folder):
    cases = [
        _case(name, series, is_firing=is_firing)
        for name, both in ALERTS.items()
        for series, is_firing in zip(both, (True, False), strict=True)
    ]
    suite = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}
    (folder / "suite.yml").write_text(json.dumps(suite))
    _promtool("test", "rules", "suite.yml", cwd=folder)
    assert set(ALERTS) == set(re.findall(r"alert: (\w+)", (folder / "alerts.yml").read_text()))


def test_what_alerts_look_at_is_in_the_metrics(server):
    lines = server.get("/metrics").splitlines()
    pattern = r'(millrace_\w+)(?:\{(\w+)(?:=~|!=|=)"([^"]+)"\})?'
    found = re.findall(pattern, (DEPLOY / "alerts.yml").read_text())
    assert len(found) >= 10
    for name, label, values in found:
        samples = [line for line in lines if re.match(rf"{name}[ {{]", line)]
        assert samples, name
        for value in values.split("|") if label else ():
            assert any(f'{label}="{value}"' in sample for sample in samples), (name, label, value)


def test_promtool_finds_nothing_wrong_with_our_names(server):
    done = subprocess.run(
        [find("promtool"), "check", "metrics"],
        input=server.get("/metrics"),
        capture_output=True,
        text=True,
        check=False,
    )
    remarks = (done.stdout + done.stderr).splitlines()
    assert [remark for remark in remarks if not remark.startswith("tgi_")] == []


async def test_prometheus_shows_what_the_clients_counted(server, folder):
    asked = Counter()
    await _leave_and_be_refused(server, asked)
    num_before = server.metric("millrace_generated_tokens_total")
    num_tokens = await _finish(server, asked)
    with _prometheus([server.url.removeprefix("http://"), f"127.0.0.1:{free_port()}"], folder) as u:
        await until(lambda: _is_ready(u))
        await until(lambda: sorted(_query(u, "up", "instance").values()) == [0, 1])
        assert +Counter(_query(u, "millrace_requests_total", "route")) == asked
        assert _query(u, "millrace_requests_refused_total", "reason") == {
            "no_permit": 1,
            "queue_full": 1,
            "queue_expired": 0,
            "draining": 0,
        }
        ended = _query(u, "millrace_streams_ended_total", "reason")
        assert +Counter(ended) == {"finished": 3, "client_gone": 2}
        ended = _query(u, "millrace_requests_ended_total", "outcome")
        assert +Counter(ended) == {"finished": 5, "dropped": 3, "overloaded": 2}
        (total,) = _query(u, "millrace_generated_tokens_total", "job").values()
        assert total - num_before == num_tokens


async def _leave_and_be_refused(server, asked: Counter) -> None:
    """Hold both rows and the one place to wait, be refused for either reason, and leave."""
    url, four = server.url, {"model": "m", "prompt": ["A river runs"] * 4}
    async with begin(url, LONG), begin(url, LONG), asking(url, STREAM, LONG):
        await until(lambda: server.metric("millrace_queue_depth") == 1)
        full = await call(url, "POST", "/generate", question(2))
        many = await call(url, "POST", "/v1/completions", four)
    assert (full.status, many.status) == (429, 429)
    asked.update({STREAM: 3, "/generate": 1, "/v1/completions": 1})
    await until(lambda: server.metric("millrace_requests_ended_total", outcome="dropped") == 3)


async def _finish(server, asked: Counter) -> int:
    """Get three streams and two plain answers; give the number of tokens as the client saw it."""
    num_tokens = 0
    for size in (3, 5, 8):
        response = await call(server.url, "POST", STREAM, question(size))
        num_tokens += len(check(STREAM, response.body).token_ids)
    for size in (2, 13):
        response = await call(server.url, "POST", "/generate", question(size))
        num_tokens += len(response.json()["details"]["tokens"])
    asked.update({STREAM: 3, "/generate": 2})
    assert num_tokens == 31
    return num_tokens


def _prometheus(targets: list[str], folder):
    config = folder / "prometheus.yml"
    config.write_text(edited("prometheus.yml", dict(zip(ADDRESSES, targets, strict=True))))
    port = free_port()
    command = [
        find("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return running(command, port, folder)


async def _is_ready(url: str) -> bool:
    return (await call(url, "GET", "/-/ready")).status == 200


def _query(url: str, name: str, label: str) -> dict[str, float]:
    """Ask Prometheus for a metric; give its numbers by one label."""
    query = urllib.parse.urlencode({"query": name})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as response:
        samples = json.load(response)["data"]["result"]
    return {sample["metric"][label]: float(sample["value"][1]) for sample in samples}


def _case(name: str, series: dict[str, str], *, is_firing: bool) -> dict:
    """Write one case of promtool's: is the alert firing after 39 minutes?"""
    firing = {
        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
        "eval_time": "39m",
        "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
    }
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": inputs, "promql_expr_test": [firing]}


def _promtool(*arguments: str, **options) -> None:
    command = [find("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout.upper() + done.stderr.upper()
