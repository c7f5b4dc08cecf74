"""A GGUF file is quantised by the program `llama-quantize` in the package ik-llama-cpp-python.

Request: `source`, `out`, `outtype`, `threads`, `expected_bytes`. Result: null. It is a fork of llama.cpp's program by
one author, so what it makes is looked at by whoever asked.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.conversion.children import answering
else:
    sys.path.append(str(Path(__file__).parent))
    answering = importlib.import_module("answering")

TAIL = 2000  # characters of what it prints


class NotQuantised(Exception):
    """Why there is no file: one sentence."""


def program() -> Path | None:
    """The program, which needs nothing else of the package; None where the package has none."""
    spec = importlib.util.find_spec("ik_llama_cpp")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "llama-quantize"
    return path if path.is_file() else None


def quantize(request: Mapping[str, Any]) -> None:
    """Write the file. Raises NotQuantised."""
    path = program()
    if path is None:
        raise NotQuantised("the package ik-llama-cpp-python holds no llama-quantize")
    out = Path(request["out"])
    argv = [str(path), request["source"], str(out), request["outtype"].upper(), str(request["threads"])]
    with answering.growth_reported(lambda: out.stat().st_size, request["expected_bytes"]):
        ended = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", check=False)
    if ended.returncode != 0:
        lines = [line for line in ended.stdout[-TAIL:].splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
        raise NotQuantised(f"llama-quantize ended with code {ended.returncode} ({said.strip()[:300]})")


if __name__ == "__main__":
    answering.answer(quantize, str)
