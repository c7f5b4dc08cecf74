"""The example with every option, which comes along with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

EXAMPLE: Final = "modelport.example.yaml"


def example_text() -> str:
    """modelport.example.yaml: in an installation it lies beside this file, in a clone at its root. OSError: nowhere."""
    here = Path(__file__).with_name(EXAMPLE)
    return (here if here.is_file() else Path(__file__).parents[2] / EXAMPLE).read_text(encoding="utf-8")
