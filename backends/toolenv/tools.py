"""The tools, as data: what each environment holds, which lock files it is made from, and what it costs.

The lock files in `locks/` are complete: names, versions and hashes for Linux (x86-64, aarch64) and macOS. `make lock`
writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOCKS: Final = Path(__file__).with_name("locks")
MANY_MB: Final = 1000  # a download of this size is confirmed first


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to get a tool's largest part. `what` is said when its size is confirmed; `system`: `sys.platform` where
    it exists, None: everywhere. Sizes in MB.
    """

    lock: str
    what: str
    download_mb: int
    disk_mb: int
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a tool environment is made. `locks` are installed after the first of `choices` that can be had; `probe` is
    Python that must run in it before it is trusted. Sizes in MB, without the choice.
    """

    name: str
    what: str
    locks: tuple[str, ...]
    probe: str
    download_mb: int
    disk_mb: int
    choices: tuple[Choice, ...] = ()

    def choices_for(self, system: str) -> tuple[Choice, ...]:
        """What can be tried on this `sys.platform`, best first."""
        return tuple(choice for choice in self.choices if choice.system in (None, system))

    def lock_files(self) -> list[Path]:
        """Every lock file that has to do with it."""
        return [LOCKS / f"{name}.lock" for name in (*(choice.lock for choice in self.choices), *self.locks)]

    def digest(self, python: str) -> str:
        """Twelve hex digits: other lock files, another probe or another Python (`python`) make other ones."""
        hashed = hashlib.sha256(f"{python}\n{self.probe}\n".encode())
        for path in self.lock_files():
            hashed.update(path.read_bytes())
        return hashed.hexdigest()[:12]


_QUANTIZE: Final = """
import importlib.util, pathlib, subprocess
folder = pathlib.Path(importlib.util.find_spec("ik_llama_cpp").origin).parent
said = subprocess.run([folder / "bin/llama-quantize", "--help"], capture_output=True, text=True)
assert "usage" in (said.stdout + said.stderr).lower(), said.stderr
"""
_TEMPLATES: Final = """
import importlib.util, pathlib, jinja2, typing_extensions
folder = pathlib.Path(importlib.util.find_spec("llamafactory").origin).parent
assert (folder / "data/template.py").is_file()
"""
_CONVERT: Final = """
import importlib.util, torch, transformers, peft, safetensors, sentencepiece, numpy
assert importlib.util.find_spec("conversion") and importlib.util.find_spec("gguf")
assert torch.ones(2).sum().item() == 2
"""
_ROWS: Final = "import gguf, libgguf, numpy"
_REPORT: Final = "import matplotlib, numpy; matplotlib.use('agg'); import matplotlib.pyplot"

# The index's PyTorch for Linux is made for NVIDIA GPUs and does not start without their libraries.
_TORCH: Final = (
    Choice("torch-cpu", "PyTorch for the CPU", 190, 750, system="linux"),
    Choice(
        "torch-index", "PyTorch with its GPU libraries (its build for the CPU is not to be found)", 3000, 7000, "linux"
    ),
    Choice("torch-index", "PyTorch", 100, 500, "darwin"),
)

TOOLS: Final = {
    tool.name: tool
    for tool in (
        Recipe(
            "convert", "PyTorch, transformers, PEFT and llama.cpp's converter", ("convert",), _CONVERT, 110, 450, _TORCH
        ),
        # `llama-quantize`, a program that needs no Python: in site-packages/ik_llama_cpp/bin.
        Recipe("quantize", "llama.cpp's quantiser", ("quantize",), _QUANTIZE, 25, 110),
        # Where the program has no file for this machine; it brings a package `gguf` of its own, so it stands apart.
        Recipe("quantize-rows", "a quantiser as a library", ("quantize-rows",), _ROWS, 25, 130),
        Recipe("templates", "LLaMA-Factory's templates", ("templates",), _TEMPLATES, 2, 40),
        Recipe("report", "charts", ("report",), _REPORT, 45, 170),
    )
}


def total(tool: Recipe, choice: Choice | None) -> tuple[int, int]:
    """What the environment costs with this choice: MB to download, MB on the disk."""
    extra = (choice.download_mb, choice.disk_mb) if choice is not None else (0, 0)
    return tool.download_mb + extra[0], tool.disk_mb + extra[1]


def in_words(size_mb: float) -> str:
    """A size as people say it: 350 MB, 1.2 GB."""
    return f"{size_mb / 1000:.1f} GB" if size_mb >= 1000 else f"{size_mb:.0f} MB"


def requirements(lock: str) -> Sequence[str]:
    """The names that a lock file pins."""
    lines = (LOCKS / f"{lock}.lock").read_text().splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line]
