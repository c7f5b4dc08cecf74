"""A child process: draws the chart. Run by path with the Python of the tool environment "report" (matplotlib).

The request on standard input: `out` (the PNG file), `title`, `limit` (allowed loss of perplexity in percent), and
`rows`: each with `name`, `size_mb`, `loss` with `loss_low` and `loss_high` (perplexity above the first row's, in
percent), `same` with `same_low` and `same_high` (in percent), `kl` (nats); the first is the reference.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_BLUE, _GREY, _RED = "#2f6fab", "#8a8f98", "#c0392b"


def _losses(axes: Any, rows: list[Any], limit: float) -> None:
    """Size against loss, each with its interval and name."""
    for index, row in enumerate(rows):
        colour = _GREY if index == 0 else _BLUE
        error = [[row["loss"] - row["loss_low"]], [row["loss_high"] - row["loss"]]]
        axes.errorbar(row["size_mb"], row["loss"], yerr=error, fmt="o", color=colour, capsize=4)
        axes.annotate(row["name"], (row["size_mb"], row["loss"]), xytext=(7, 6), textcoords="offset points")
    axes.axhline(limit, color=_RED, linestyle="--", linewidth=1)
    axes.annotate(f"{limit:.3g} %", (1, limit), xycoords=("axes fraction", "data"), xytext=(-4, 4), color=_RED,
                  textcoords="offset points", ha="right")  # fmt: skip
    axes.set_xlim(left=0, right=max(row["size_mb"] for row in rows) * 1.15)
    axes.set_xlabel("file size (MB)")
    axes.set_ylabel("perplexity above the unquantised (%)")
    axes.set_title("What it saves, and what it costs")
    axes.grid(alpha=0.25)


def _agreement(axes: Any, rows: list[Any]) -> None:
    """How often both have the same likeliest token."""
    shown = rows[1:]
    places = list(range(len(shown)))
    values = [row["same"] for row in shown]
    error = [
        [row["same"] - row["same_low"] for row in shown],
        [row["same_high"] - row["same"] for row in shown],
    ]
    axes.errorbar(values, places, xerr=error, fmt="o", color=_BLUE, capsize=4)
    axes.set_yticks(places, [f"{row['name']}\nKL {row['kl']:.4f}" for row in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(right=100.5)
    axes.set_xlabel("same likeliest token as the unquantised (%)")
    axes.set_title("How often it agrees")
    axes.grid(alpha=0.25)


def main() -> None:
    """Answer the one request on standard input."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    request = json.load(sys.stdin)
    rows = request["rows"]
    fresh = f"{request['out']}.part"
    try:
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 2.6 + max(2.4, 0.6 * len(rows))), layout="constrained")
        _losses(left, rows, request["limit"])
        _agreement(right, rows)
        figure.suptitle(request["title"])
        figure.savefig(fresh, dpi=120, format="png")
        os.replace(fresh, request["out"])  # noqa: PTH105
        print(json.dumps({"result": os.path.getsize(request["out"])}))  # noqa: PTH202
    except (OSError, ValueError) as exc:
        print(json.dumps({"error": f"the chart cannot be drawn: {exc}"}))


if __name__ == "__main__":
    main()
