"""Renders a chart with Helm's own library. Run by path with the folder of `helm_python` on PYTHONPATH.

Standard input: `{"chart": FOLDER, "cases": [{"values": {…}, "namespace": …}, …]}`. Standard output: for each case
`{"files": {path: text}}` or `{"error": text}`, and Helm's lint of the first, as `{"cases": […], "lint": {…}}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import helm_python


def _rendered(chart: Any, case: dict[str, Any]) -> dict[str, Any]:
    try:
        chart.validate_schema(case["values"])
        files = chart.render(case["values"], name=case.get("name", "demo"), namespace=case.get("namespace", "models"))
    except helm_python.HelmError as exc:
        return {"error": str(exc)}
    return {"files": files}


def main() -> None:
    """Read the request, write the answer."""
    request = json.load(sys.stdin)
    with helm_python.Chart.load(request["chart"]) as chart:
        cases = [_rendered(chart, case) for case in request["cases"]]
    lint = helm_python.lint(request["chart"], request["cases"][0]["values"], strict=True)
    json.dump({"cases": cases, "lint": lint}, sys.stdout)


main()
