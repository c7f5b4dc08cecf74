"""The dashboards in docker/grafana: current, sound as files, and about series that there are."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard
from ruamel.yaml import YAML

from tests import ROOT
from tests.observe import pages
from tests.observe.dashboards import write
from tests.observe.dashboards.panels import TAG

PAGES = pages.dashboards()
PROVISIONING = ROOT / "docker/grafana/provisioning"
SERIES = re.compile(r"\b((?:modelport|gen_ai|vllm|llamacpp|scrape|job_model)[_:][a-z0-9_:]+|ALERTS)(?=[\{\[])")
OF_RULES = re.compile(r"ALERTS|job_model:")  # of all gateways together
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def named(expression: str) -> set[str]:
    """The series of an expression, as they are called in pages of metrics; of histograms the whole."""
    return set(SERIES.findall(expression))


def documented() -> set[str]:
    text = (ROOT / "docs/metrics.md").read_text()
    headings = re.findall(r"^### `((?:modelport|gen_ai)_\w+)`", text, re.MULTILINE)
    return {*headings, *re.findall(r"^\| `(modelport_engine_scrape_\w+)` \|", text, re.MULTILINE)}


def recorded(name: str) -> set[str]:
    """The samples of a recorded page."""
    text = (ROOT / "tests/recorded" / name).read_text()
    return set(re.findall(r"^([\w:]+)[ {]", text, re.MULTILINE))


def test_they_are_what_their_source_says() -> None:
    """`python -m tests.observe.dashboards.write` writes them."""
    assert {path.name: path.read_text() for path in pages.FOLDER.iterdir()} == write.texts()


def test_each_can_be_told_by_its_name_and_leads_to_the_others() -> None:
    assert {page["uid"] for page in PAGES.values()} == {f"modelport-{name}" for name in PAGES}
    assert len({page["title"] for page in PAGES.values()}) == len(PAGES) == 5
    for page in PAGES.values():
        assert page["tags"] == [TAG]
        assert [(link["type"], link["tags"], link["includeVars"], link["keepTime"]) for link in page["links"]] == [
            ("dashboards", [TAG], True, True)
        ]
        assert page["time"] == {"from": "now-1h", "to": "now"}


@pytest.mark.parametrize("name", PAGES)
def test_grafanas_own_types_read_it_back(name: str) -> None:
    page = PAGES[name]

    read: Any = Dashboard.from_json(page).to_json()

    assert {key: read[key] for key in ("uid", "title", "tags")} == {key: page[key] for key in ("uid", "title", "tags")}
    assert len(read["panels"]) == len(page["panels"])


@pytest.mark.parametrize("name", PAGES)
def test_every_panel_says_what_it_is_about_and_in_what_it_counts(name: str) -> None:
    for panel in pages.panels(PAGES[name]):
        assert panel["title"], panel
        assert len(panel["description"]) > 8, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0] == {"color": "green", "value": None}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("name", PAGES)
def test_no_panel_lies_over_another_or_beyond_the_edge(name: str) -> None:
    places = [panel["gridPos"] for panel in PAGES[name]["panels"]]

    for one, other in itertools.combinations(places, 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert is_beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in PAGES[name]["panels"]}) == len(places)


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_variables_are_those_that_its_queries_use(name: str) -> None:
    offered = {variable["name"] for variable in PAGES[name]["templating"]["list"]}
    asked = [query for query in pages.queries() if query.page == name]

    used = {word for query in asked for word in re.findall(r"\$(\w+)", query.expression) if not word.startswith("__")}
    assert used | {"datasource"} == offered
    asked_of_all = [query for query in asked if 'instance=~"$instance"' not in query.expression]
    assert [str(query) for query in asked_of_all if OF_RULES.search(query.expression) is None] == []


def test_every_series_that_is_asked_for_is_documented_or_was_recorded() -> None:
    known = documented() | recorded("vllm/metrics.prom") | recorded("llama_cpp/metrics.prom")
    rules = (ROOT / "docker/prometheus/rules.yml").read_text()
    known |= {"scrape_duration_seconds", "ALERTS", *re.findall(r"record: (\S+)", rules)}

    unknown = {
        series
        for query in pages.queries()
        for series in named(query.expression)
        if series not in known and HISTOGRAM.sub("", series) not in known
    }
    assert unknown == set()


def test_every_documented_series_is_on_a_dashboard() -> None:
    shown = {HISTOGRAM.sub("", series) for query in pages.queries() for series in named(query.expression)}
    offered = {series for page in PAGES.values() for choice in pages.choices(page) for series in [choice.series]}

    assert documented() - shown - offered == set()


def test_what_is_provisioned_fits_the_dashboards() -> None:
    yaml = YAML(typ="safe")
    sources = yaml.load((PROVISIONING / "datasources/modelport.yaml").read_text())
    providers = yaml.load((PROVISIONING / "dashboards/modelport.yaml").read_text())
    compose = yaml.load((ROOT / "docker-compose.yml").read_text())

    (source,), (provider,) = sources["datasources"], providers["providers"]
    volumes = dict(str(each).split(":")[:2] for each in compose["services"]["grafana"]["volumes"])
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
    assert provider["options"]["path"] == volumes["./docker/grafana/dashboards"]
    assert volumes["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/overview.json"
    assert (pages.FOLDER / "overview.json").exists()


def test_grafana_makes_its_rates_of_the_interval_at_which_prometheus_scrapes() -> None:
    yaml = YAML(typ="safe")
    source = yaml.load((PROVISIONING / "datasources/modelport.yaml").read_text())["datasources"][0]
    prometheus = yaml.load((ROOT / "docker/prometheus/prometheus.yml").read_text())

    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
