"""A GGUF file is quantised by the program `llama-quantize` in the package ik-llama-cpp-python.

Request: `source`, `out`, `outtype`, `threads`, `expected_bytes`. Result: null. It is a fork of llama.cpp's program by
one author, so what it makes is looked at by whoever asked.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOK_S = 0.3
TAIL = 2000  # characters of what it prints


def say(message: Mapping[str, Any]) -> None:
    """One line for whoever started this."""
    print(json.dumps(message), flush=True)


def program() -> Path | None:
    """The program, which needs nothing else of the package; None where the package has none."""
    spec = importlib.util.find_spec("ik_llama_cpp")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "llama-quantize"
    return path if path.is_file() else None


def main() -> None:
    """Do what the request says."""
    request = json.load(sys.stdin)
    path = program()
    if path is None:
        say({"error": "the package ik-llama-cpp-python holds no llama-quantize"})
        return
    out = Path(request["out"])
    argv = [str(path), request["source"], str(out), request["outtype"].upper(), str(request["threads"])]
    printed: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as running:
        assert running.stdout is not None
        reader = threading.Thread(target=read, args=(running.stdout, printed), daemon=True)
        reader.start()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = running.wait(LOOK_S)
                break
            with contextlib.suppress(OSError):
                say({"progress": {"done": out.stat().st_size, "total": max(request["expected_bytes"], 1)}})
        reader.join()
    if code == 0:
        say({"result": None})
        return
    lines = [line for line in "".join(printed)[-TAIL:].splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    say({"error": f"llama-quantize ended with code {code} ({said.strip()[:300]})"})


def read(lines: Any, printed: list[str]) -> None:
    """Keep what it prints."""
    for line in lines:
        printed.append(line)
        del printed[:-200]


if __name__ == "__main__":
    main()
