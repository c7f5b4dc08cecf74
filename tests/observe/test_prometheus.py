"""The Prometheus of this suite asks and is asked as said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tests.observe.prometheus import Prometheus, promtool

CONFIG = """
global: {{scrape_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: one
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
RULES = """
groups:
  - name: all
    interval: 1s
    rules:
      - {alert: Warm, expr: warmth > 20, labels: {severity: page}}
"""


@pytest.fixture(scope="module")
def warmth() -> Iterator[tuple[Gauge, int]]:
    """A series that the test moves, and the port on which it is shown."""
    registry = CollectorRegistry()
    gauge = Gauge("warmth", "How warm it is.", ["room"], registry=registry)
    gauge.labels("kitchen").set(18)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield gauge, server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def prometheus(warmth: tuple[Gauge, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that looks at it each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yml").write_text(RULES)
    with Prometheus(folder, CONFIG.format(port=warmth[1])) as program:
        yield program


def test_a_series_is_scraped_asked_for_and_waited_for(prometheus: Prometheus, warmth: tuple[Gauge, int]) -> None:
    prometheus.until_scraped(2)
    assert [(each.labels["room"], each.value) for each in prometheus.query("warmth")] == [("kitchen", 18)]
    assert prometheus.query("count(warmth) > 1") == []
    assert prometheus.query("scalar(sum(warmth))")[0].value == 18

    warmth[0].labels("kitchen").set(25)

    prometheus.until("warmth", lambda samples: samples[0].value == 25)
    now = prometheus.query("time()")[0].value
    assert prometheus.query_range("warmth", now - 10, now, 1)[0].points[-1][1] == 25
    assert "warmth" in prometheus.names()


def test_an_alert_fires(prometheus: Prometheus, warmth: tuple[Gauge, int]) -> None:
    warmth[0].labels("kitchen").set(30)

    prometheus.until('ALERTS{alertstate="firing"}')

    assert [(each["labels"]["alertname"], each["state"]) for each in prometheus.alerts()] == [("Warm", "firing")]


def test_a_query_that_is_none_fails_with_prometheus_own_words(prometheus: Prometheus) -> None:
    with pytest.raises(AssertionError, match="parse error"):
        prometheus.query("sum(")


def test_a_series_that_never_comes_ends_the_wait(prometheus: Prometheus) -> None:
    with pytest.raises(AssertionError, match=r"absence stays \[\]; targets: all up"):
        prometheus.until("absence", patience_s=0.1)


def test_a_configuration_that_is_none_fails_with_prometheus_own_words(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="did not find expected"):
        Prometheus(tmp_path, "global: [")


def test_promtool_says_what_it_does_not_like(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    assert "1 rules found" in promtool("check", "rules", tmp_path / "rules.yml")

    with pytest.raises(AssertionError, match=r"ended with 3:\n.*no help text"):
        promtool("check", "metrics", given="warmth 1\n")
