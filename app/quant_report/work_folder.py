"""The folder that a report is made in: one command at a time, nothing half written, and what was measured is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from app.quant_report.figures import Measured
from app.whole_file import write_whole

_MEASURED: Final = "measured.json"
_MADE: Final = "made.json"
_SCRATCH: Final = ".logits-"
_KEPT: Final = 40  # results; each is some hundred kilobytes
_FRESH: Final = ".new"


class ReportProblem(Exception):
    """The report cannot be made; the message is one sentence."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and work in it alone; what a killed run left in it is removed. Raises ReportProblem."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as exc:
        raise ReportProblem(f"'{folder}' cannot be used: {exc.strerror or exc}; name another with --out") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ReportProblem(f"another report is being made in '{folder}': wait for it, or name --out") from exc
        for left in [*folder.glob(f"{_SCRATCH}*"), *folder.glob(f".*{_FRESH}")]:
            with contextlib.suppress(OSError):
                left.unlink()
        yield
    finally:
        with contextlib.suppress(OSError):  # nothing came of it
            folder.rmdir()
        os.close(descriptor)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[str]:
    """The path of an empty file that is gone at the end; on Linux it has no name, so no kill can leave it behind."""
    descriptor, name = tempfile.mkstemp(prefix=_SCRATCH, dir=folder)
    try:
        if sys.platform == "linux":
            os.unlink(name)  # noqa: PTH108
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            yield name
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises ReportProblem."""
    try:
        write_whole(path, data)
    except OSError as exc:
        raise ReportProblem(f"'{path}' cannot be written: {exc.strerror or exc}") from exc


class MadeFiles:
    """Which files of this folder were made by reports, each with the digest of what it was made from. Blocks."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _MADE
        self._sources: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            self._sources = msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])

    def source(self, file: Path) -> str | None:
        """The digest of what the file was made from; None where it is not one of ours."""
        return self._sources.get(file.name)

    @contextlib.contextmanager
    def making(self, file: Path, source: str) -> Iterator[None]:
        """The file is made inside. It is known before: whoever makes it renames it when it is whole, so a kill leaves
        none that is not known. Raises ReportProblem, also for a file that somebody else put there.
        """
        if file.exists() and file.name not in self._sources:
            raise ReportProblem(f"'{file}' is there and was not made by a report: move it away, or name another --out")
        if self._sources.get(file.name, source) != source:  # ours, and of no use any more
            file.unlink(missing_ok=True)
        self._sources[file.name] = source
        write_file(self._path, msgspec.json.encode(self._sources))
        try:
            yield
        finally:
            if not file.exists():
                del self._sources[file.name]
                if self._sources:
                    write_file(self._path, msgspec.json.encode(self._sources))
                else:
                    self._path.unlink(missing_ok=True)


class Remembered:
    """What was measured in this folder before, by everything that it depends on. Blocks."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _MEASURED
        self._results: dict[str, Measured] = {}
        # What cannot be read, or is of another version, is measured again.
        with contextlib.suppress(OSError, ValueError):
            self._results = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Measured])

    def get(self, key: str) -> Measured | None:
        """The result under this key; None where there is none."""
        return self._results.get(key)

    def put(self, key: str, measured: Measured) -> None:
        """Keep a result, at once on the disk; the oldest make room."""
        self._results.pop(key, None)
        self._results[key] = measured
        self._results = dict(list(self._results.items())[-_KEPT:])
        write_file(self._path, msgspec.json.encode(self._results))
