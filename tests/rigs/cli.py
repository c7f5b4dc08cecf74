"""The command line as a process of its own, in an environment and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT


@dataclass(frozen=True, slots=True)
class Ended:
    """How a verb ended, and what it printed."""

    code: int
    out: str
    err: str


def run(folder: Path, *args: str, **env: str) -> Ended:
    """`python -m app ARGS` in `folder`, which is also its home and holds its state; no terminal, no keys."""
    # PATH has no vllm and no Ollama: what a test finds does not depend on the machine.
    clean = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OLLAMA_HOST": "127.0.0.1:9",
        "COLUMNS": "200",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "app", *args],
        cwd=folder,
        env={**clean, "MODELPORT_STATE": str(folder / "state"), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)
