"""The package as `pip install modelport` leaves it: a wheel is built and installed, away from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests import ROOT

# What a wheel is made of, and what would be in the way: generated, and larger than all the rest.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "modelport.example.yaml", "app", "backends")
_PATIENCE_S = 300.0


def printed(argv: Sequence[str | Path], folder: Path) -> str:
    """What a command printed; fails with all of it when the command did not end with 0."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    assert ended.returncode == 0, f"{argv}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def wheel(folder: Path, python: str = sys.executable) -> Path:
    """Build the wheel from a copy of what it is made of, into `folder`; `python` has hatchling."""
    copy = folder / "source"
    copy.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, copy)
    printed([python, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], copy)
    shutil.rmtree(copy)
    (made,) = folder.glob("*.whl")
    return made


def borrowing(folder: Path) -> Path:
    """Make a virtual environment that finds the packages of this one, ours aside; its Python."""
    printed([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def install(wheel: Path, python: Path) -> Path:
    """Install a wheel of ours alone, as it is; the `modelport` that this makes."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    printed([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], wheel.parent)
    return python.with_name("modelport")
