"""The alerts: each tells what it means and is told about, and its rules ask for what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from ruamel.yaml import YAML

from app.certificate.certificate import Outcome
from app.errors import TABLE
from app.metrics import FAMILIES, LIMITS
from app.relay.planning.plan import COUNT, FORMS, LOAD, OPERATIONS, RENDER, TOKENIZER_INFO
from app.supervisor.replicas.adapters import Verdict
from backends.endpoint import State
from tests import ROOT
from tests.rigs.pages import page
from tests.unit.house.test_docs import codes

FOLDER: Final = ROOT / "docker/prometheus"
TESTS: Final = sorted(FOLDER.glob("rules*.test.yml"))
SEVERITIES: Final = {"critical", "warning"}
# Suffixes that Prometheus gives the series of a histogram.
PARTS: Final = re.compile(r"_(bucket|count|sum)$")
WINDOW: Final = re.compile(r"(?<=increase)\d+[mhd]$|(?<=ratio_rate)\d+[mhd]$|(?<=\[)\d+[mhd](?=\])")
OTHERS: Final = {"up"}  # Prometheus's own


def parsed(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule, in order."""
    return [rule for group in parsed(FOLDER / "rules.yml")["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> dict[str, str]:
    """What each recording rule records."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def series_in(expression: str) -> set[str]:
    """The names of series in an expression, recorded ones too."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)', " ", expression)
    bare = re.sub(r"\{[^}]*\}", " ", bare)
    return set(re.findall(r"\b(?:gen_ai|modelport|job_model|up)\b[\w:]*|\b(?:gen_ai|modelport)_\w+", bare))


@cache
def expectations() -> list[tuple[str, list[dict[str, str]]]]:
    """Each look at the alerts in the tests of promtool: the expression, and the labels that are expected."""
    looks = []
    for path in TESTS:
        for group in parsed(path)["tests"]:
            for look in group["promql_expr_test"]:
                samples = [each["labels"] for each in look["exp_samples"]]
                looks.append((look["expr"], [dict(re.findall(r'(\w+)="([^"]*)"', labels)) for labels in samples]))
    return looks


def test_each_alert_has_its_heading_and_each_heading_its_alert() -> None:
    assert len(alerts()) > 20
    assert page("docs/alerts.md").coded == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_it_is_how_bad_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    path, _, anchor = alert["annotations"]["runbook"].partition("#")

    assert set(alert["labels"]) == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert (path, anchor) == ("docs/alerts.md", name.lower())
    assert len(alert["annotations"]["summary"]) < 130
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("name", alerts())
def test_a_runbook_says_what_it_means_how_to_see_more_and_what_to_do(name: str) -> None:
    told = page("docs/alerts.md").sections[name]

    assert re.findall(r"^\*\*(.+?):\*\*", told, re.MULTILINE) == ["Means", "See more", "Do"]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_seen_to_fire_and_not_to_fire(name: str) -> None:
    looks = [expected for expression, expected in expectations() if f'"{name}"' in expression]
    fired = [labels for _, expected in expectations() for labels in expected if labels.get("alertname") == name]

    assert [] in looks
    assert fired


@pytest.mark.parametrize("name", alerts())
def test_the_words_of_an_alert_use_labels_that_it_has(name: str) -> None:
    texts = " ".join(alerts()[name]["annotations"].values())
    wanted = set(re.findall(r"\$labels\.(\w+)", texts))
    fired = [labels for _, expected in expectations() for labels in expected if labels.get("alertname") == name]

    assert all(wanted <= set(labels) for labels in fired)


def test_each_series_that_a_rule_asks_for_is_exported_or_recorded() -> None:
    told = set(re.findall(r"`((?:gen_ai|modelport)_\w+)", page("docs/metrics.md").prose))
    known = told | set(records()) | OTHERS
    asked = {name for rule in rules() for name in series_in(rule["expr"])}

    assert len(asked) > 40
    assert {name for name in asked if name not in known and PARTS.sub("", name) not in known} == set()


def test_each_series_in_the_tests_is_one_that_a_rule_asks_for() -> None:
    asked = {name for rule in rules() for name in series_in(rule["expr"])}
    given = {
        re.split(r"[{ ]", each["series"])[0]
        for path in TESTS
        for group in parsed(path)["tests"]
        for each in group["input_series"]
    }

    assert given <= asked


def test_what_is_recorded_is_named_by_level_metric_and_operations() -> None:
    assert [name for name in records() if not re.fullmatch(r"(job_model|modelport):[a-z_]+:[a-z0-9_]+", name)] == []


def test_each_window_is_asked_the_same() -> None:
    """Of one objective: the expressions differ in their windows only, and each has the window of its name."""
    shapes: dict[str, set[str]] = {}
    for name, expression in records().items():
        windows = set(WINDOW.findall(expression))
        if windows:
            assert windows == {WINDOW.findall(name)[0]}, name
            shapes.setdefault(WINDOW.sub("", name), set()).add(WINDOW.sub("", expression))

    assert len(shapes) == 6
    assert [name for name, forms in shapes.items() if len(forms) != 1] == []


def test_what_is_recorded_is_used_and_what_is_used_is_recorded() -> None:
    used = {name for alert in alerts().values() for name in series_in(alert["expr"]) if ":" in name}

    assert used == set(records())


# What the gateway writes into the labels that rules match, each from the place where it is decided.
VALUES: Final[dict[str, set[str]]] = {
    "error_type": {"", "engine_rejected", *codes()},
    "gen_ai_operation_name": {
        each.name for each in (*OPERATIONS.values(), *FORMS.values(), LOAD, COUNT, RENDER, TOKENIZER_INFO)
    },
    "reason": {"engine_rejected", *codes()},
    "state": {state.value for state in State},
    "verdict": {outcome.value for outcome in Outcome} | set(get_args(Verdict)),
    "limit": set(LIMITS),
    "job": {job["job_name"] for job in parsed(FOLDER / "prometheus.yml")["scrape_configs"]},
}


def test_each_value_that_a_rule_asks_for_is_one_that_is_written() -> None:
    """A rule about a word that nobody writes never fires."""
    asked = {
        (label, value)
        for rule in rules()
        for label, values in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', rule["expr"])
        if label != "le"
        for value in values.split("|")
    }

    assert len(asked) > 8
    assert [each for each in asked if not any(re.fullmatch(each[1], value) for value in VALUES[each[0]])] == []


def test_what_generates_nothing_is_in_no_objective() -> None:
    left_out = {
        match
        for name, expression in records().items()
        if "duration_seconds" in expression
        for match in re.findall(r'gen_ai_operation_name!~"([^"]*)"', expression) or [name]
    }

    (pattern,) = left_out
    assert {name for name in VALUES["gen_ai_operation_name"] if re.fullmatch(pattern, name)} == {
        *("tokenize", "detokenize", "tokenizer_info", "count_tokens", "load", "render")
    }


def bounds(metric: str) -> Iterator[str]:
    """The `le` that rules ask of a histogram."""
    for rule in rules():
        yield from re.findall(rf'{metric}_bucket\{{[^}}]*le="([^"]+)"', rule["expr"])


def exported_bounds(metric: str) -> set[str]:
    """The `le` that the gateway shows of it."""
    return {str(bound) for family in FAMILIES for bound in family.bounds if family.name == metric}


def test_each_bound_that_a_rule_asks_for_is_one_of_the_histograms() -> None:
    seconds = set(bounds("gen_ai_server_request_duration_seconds"))
    first = set(bounds("gen_ai_server_time_to_first_token_seconds"))

    assert len(seconds) == len(first) == 1
    assert seconds <= exported_bounds("gen_ai_server_request_duration_seconds")
    assert first <= exported_bounds("gen_ai_server_time_to_first_token_seconds")


def test_only_what_clients_do_wrong_is_left_out_of_failures() -> None:
    """A code that nobody has thought of counts as ours."""
    failures = {
        match
        for name, expression in records().items()
        if name.startswith("job_model:request_failures")
        for match in re.findall(r'error_type!~"([^"]*)"', expression)
    }

    assert failures == {"|engine_rejected"}
    assert "engine_rejected" not in {code for _, code, _ in TABLE.values()}
    assert all(status >= 500 or status == 429 for status, _, _ in TABLE.values())


def test_what_silences_another_alert_is_an_alert_and_so_is_what_it_silences() -> None:
    config = parsed(ROOT / "docker/alertmanager/alertmanager.yml")
    names = {
        name
        for rule in config["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        for name in re.findall(r"Modelport\w+(?![.\w+])", matcher)
    }

    assert len(names) > 8
    assert names <= set(alerts())
