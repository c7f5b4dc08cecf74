"""Where the scripts are that run in tool environments."""

from __future__ import annotations

from pathlib import Path


def script(name: str) -> Path:
    """The script of this name, to be started by path."""
    return Path(__file__).with_name("children") / f"{name}.py"
