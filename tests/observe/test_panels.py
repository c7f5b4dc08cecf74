"""Every panel's every query has something to show, in a real Prometheus that scrapes a gateway under mixed load."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping

import pytest

from tests.observe import pages
from tests.observe.engines import observed
from tests.observe.pages import PanelQuery
from tests.observe.prometheus import Curve
from tests.observe.seen import OTHER, VALUES, Seen, empty, under_load

QUERIES = pages.queries()
# What no curve may exceed: of seconds what the gateway runs for, of shares everything (those of the base aside).
MOST = {"s": 1000.0, "percentunit": 1.0, "suffix: tok/s": 100_000.0, "reqps": 1000.0, "cps": 1000.0}

# Counters that are there from the start: a query that has a curve does not show that anything is counted.
HAPPENS = (
    *("modelport_attempts_total", "modelport_fallbacks_total", "modelport_rejected_requests_total"),
    *("modelport_placements_total", "modelport_ejections_total", "modelport_queue_refused_total"),
    *("modelport_limited_total", "modelport_key_tokens_total", "modelport_key_money_total"),
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The load is over when the tests begin."""
    with (
        observed(tmp_path_factory.mktemp("gateway")) as gateway,
        under_load(gateway, tmp_path_factory.mktemp("prometheus")) as over,
    ):
        yield over


@pytest.fixture(scope="module")
def curves(seen: Seen) -> Mapping[PanelQuery, list[Curve]]:
    """What each query of each panel has to show."""
    return seen.all_curves(QUERIES, os.environ.get("MODELPORT_CURVES"))


def test_every_query_of_every_panel_has_a_series(curves: Mapping[PanelQuery, list[Curve]]) -> None:
    nothing = empty(curves)

    assert nothing == [], f"{len(nothing)} of {len(QUERIES)} queries without a series:\n" + "\n".join(nothing)
    assert len(QUERIES) > 100


@pytest.mark.parametrize("name", HAPPENS)
def test_what_may_begin_at_0_has_happened_under_the_load(seen: Seen, name: str) -> None:
    (total,) = seen.prometheus.query(f"sum({name})", seen.end)

    assert total.value > 0


def test_no_curve_holds_what_is_no_number_or_cannot_be(curves: Mapping[PanelQuery, list[Curve]]) -> None:
    values = {query: [value for curve in shown for _, value in curve.points] for query, shown in curves.items()}

    assert [str(query) for query, each in values.items() if not all(map(math.isfinite, each))] == []
    assert [str(query) for query, each in values.items() if min(each, default=0) < 0] == []
    beyond = [
        (str(query), max(each))
        for query, each in values.items()
        if max(each, default=0) > MOST.get(query.unit, math.inf) * 1.001
    ]
    assert [each for each in beyond if "group_left () (" not in each[0]] == []


def test_every_legend_names_labels_that_its_series_have(curves: Mapping[PanelQuery, list[Curve]]) -> None:
    wrong = [
        str(query)
        for query, shown in curves.items()
        for curve in shown
        if any(name not in curve.labels for name in query.legend_labels)
    ]
    assert wrong == []


def test_no_two_curves_of_a_panel_have_the_same_name(curves: Mapping[PanelQuery, list[Curve]]) -> None:
    names: dict[tuple[str, int], list[str]] = {}
    for query, shown in curves.items():
        if not query.is_instant:
            names.setdefault((query.page, query.number), []).extend(query.named(curve.labels) for curve in shown)

    assert {panel: each for panel, each in names.items() if len(set(each)) < len(each)} == {}


def test_each_choice_at_the_top_has_something_to_choose(seen: Seen) -> None:
    offered = {
        (name, choice.name): {
            each.labels.get(choice.label, "")
            for each in seen.prometheus.query(pages.filled(choice.series, VALUES), seen.end)
        }
        for name, page in pages.dashboards().items()
        for choice in pages.choices(page)
    }

    assert [key for key, values in offered.items() if not values - {""}] == []
    assert OTHER in offered["overview", "instance"]
    assert len(offered["overview", "instance"]) == 2
    assert offered["pairs", "pair"] == {"lora"}
    assert offered["team", "key"] >= {"ample", "scarce"}
    assert offered["overview", "model"] >= {"smollm2", "base", "tuned", "daemon", "breaks"}
    assert offered["engines", "backend"] == {"demo", "late", "vllm", "dozer", "local", "far", "farther", "narrow"}
