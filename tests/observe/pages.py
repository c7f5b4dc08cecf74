"""The dashboards as they are shipped: their panels and queries, and each query as Prometheus is asked it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import ROOT

FOLDER: Final = ROOT / "docker/grafana/dashboards"
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_LEGEND: Final = re.compile(r"\{\{(\w+)\}\}")
_LABEL_VALUES: Final = re.compile(r"label_values\((.*), (\w+)\)")


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel of one dashboard."""

    page: str
    panel: str
    number: int
    unit: str
    expression: str
    legend: str
    is_instant: bool

    def __str__(self) -> str:
        return f"{self.page} / {self.panel}: {self.expression}"

    @property
    def legend_labels(self) -> list[str]:
        """The labels that its legend names."""
        return _LEGEND.findall(self.legend)

    def named(self, labels: Mapping[str, str]) -> str:
        """What Grafana writes into the legend for a series with these labels."""
        return _LEGEND.sub(lambda match: labels[match[1]], self.legend)

    def filled(self, values: Mapping[str, str]) -> str:
        """The expression as Grafana sends it, with these values for the variables."""
        return filled(self.expression, values)


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable that offers the values of a label."""

    name: str
    series: str
    label: str


def filled(expression: str, values: Mapping[str, str]) -> str:
    """KeyError where a variable is unknown."""
    return _VARIABLE.sub(lambda match: values[match[1]], expression)


def dashboards() -> Mapping[str, Any]:
    """All, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All that are no heading, those of folded rows too."""
    for panel in page["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def queries(folder: Path = FOLDER) -> Sequence[PanelQuery]:
    """Every query of every panel."""
    return [
        PanelQuery(
            name,
            panel["title"],
            panel["id"],
            panel["fieldConfig"]["defaults"]["unit"],
            target["expr"],
            target["legendFormat"],
            is_instant=target["instant"],
        )
        for name, page in dashboards().items()
        for panel in panels(page)
        for target in panel["targets"]
    ]


def choices(page: Mapping[str, Any]) -> Sequence[Choice]:
    """The variables that ask Prometheus."""
    made = []
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match is not None, variable
            series, label = match[1], match[2]
            made.append(Choice(variable["name"], series, label))
    return made
