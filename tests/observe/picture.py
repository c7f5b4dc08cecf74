"""Draws what the panels' queries gave, to be looked at: whether a curve says what its panel promises.

    MODELPORT_CURVES=curves.json make test-observe
    PYTHON tests/observe/picture.py curves.json FOLDER

PYTHON is one with matplotlib, such as that of the tool environment of `modelport quant-report`. It writes a picture for
each dashboard. It is not what Grafana draws: raw curves, and what the axis counts in.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ACROSS = 4


def label(legend: str, labels: Mapping[str, str]) -> str:
    """What Grafana writes into the legend."""
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend or ", ".join(f"{name}={value}" for name, value in labels.items())


def draw(page: str, drawn: list[tuple[dict[str, Any], list[dict[str, Any]]]], path: Path) -> None:
    """One picture: a field for each panel."""
    panels: dict[str, list[tuple[dict[str, Any], list[dict[str, Any]]]]] = {}
    for query, curves in drawn:
        # Two panels of one dashboard may have the same title and not the same queries.
        panels.setdefault(f"{query['panel']} [{query['unit']}]", []).append((query, curves))
    down = math.ceil(len(panels) / ACROSS)
    figure, fields = pyplot.subplots(down, ACROSS, figsize=(6 * ACROSS, 3.6 * down), squeeze=False)
    for field, (title, queries) in zip(fields.flat, panels.items(), strict=False):
        field.set_title(title, fontsize=9)
        for query, curves in queries:
            for curve in curves:
                at = [point[0] for point in curve["points"]]
                begin = drawn[0][1][0]["points"][0][0] if drawn[0][1] else at[0]
                field.plot(
                    [each - begin for each in at],
                    [point[1] for point in curve["points"]],
                    marker="o" if len(at) == 1 else ".",
                    markersize=3,
                    linewidth=1,
                    label=label(query["legend"], curve["labels"])[:60],
                )
        field.set_ylim(bottom=0)
        if 0 < len(field.get_lines()) <= 12:
            field.legend(fontsize=5, loc="upper left")
        field.tick_params(labelsize=7)
    for field in list(fields.flat)[len(panels) :]:
        field.axis("off")
    figure.suptitle(page)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main(source: str, folder: str) -> None:
    """A picture for each dashboard into the folder."""
    read = json.loads(Path(source).read_text())
    Path(folder).mkdir(parents=True, exist_ok=True)
    for page in dict.fromkeys(query["page"] for query, _ in read):
        drawn = [(query, curves) for query, curves in read if query["page"] == page]
        draw(page, drawn, Path(folder) / f"{page}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
