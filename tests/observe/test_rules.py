"""The files of Prometheus and Alertmanager, as their own programs check and test them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ROOT
from tests.observe.alertmanager import tool
from tests.observe.prometheus import promtool
from tests.unit.house.test_alerts import FOLDER, TESTS


def test_the_files_are_what_their_programs_take(tmp_path: Path) -> None:
    promtool("check", "rules", FOLDER / "rules.yml")
    promtool("check", "config", FOLDER / "prometheus.yml")
    with_key = (FOLDER / "prometheus.yml").read_text().replace("# authorization:", "authorization:")
    for name, text in (("prometheus.yml", with_key), ("rules.yml", (FOLDER / "rules.yml").read_text())):
        (tmp_path / name).write_text(text)
    (tmp_path / "modelport.key").write_text("observe-0123456789abcdef")
    promtool("check", "config", tmp_path / "prometheus.yml")

    assert "SUCCESS" in tool("amtool", "check-config", str(ROOT / "docker/alertmanager/alertmanager.yml"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_each_alert_fires_when_it_should_and_not_when_it_should_not(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)
