"""Writes the dashboards: `python -m tests.observe.dashboards.write [FOLDER]` (docker/grafana/dashboards)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tests import ROOT
from tests.observe.dashboards.engines import engines
from tests.observe.dashboards.gateway import gateway
from tests.observe.dashboards.overview import overview
from tests.observe.dashboards.pairs import pairs
from tests.observe.dashboards.team import team

FOLDER = ROOT / "docker/grafana/dashboards"
ALL = (overview, engines, pairs, team, gateway)


def texts() -> Mapping[str, str]:
    """The name of each file, and what is in it."""
    made = {}
    for make in ALL:
        page = make()
        name = f"{(page.uid or '').removeprefix('modelport-')}.json"
        made[name] = json.dumps(page, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return made


def main(folder: Path = FOLDER) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
