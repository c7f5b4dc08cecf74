"""Where a file is made until it is whole: a hidden folder beside it, of which a kill leaves nothing that could be taken
for a result. The next run beside it removes it. Blocks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.conversion.errors import ConversionError, NoPlace

_BEGIN: Final = ".modelport-"
_END: Final = ".part"


def free_bytes(folder: Path) -> int:
    """How much room the folder's disk has. ConversionError where nothing can be written to it at all."""
    try:
        status = os.statvfs(folder)
    except OSError as exc:
        raise ConversionError(f"'{folder}' cannot be written: {exc.strerror or exc}") from exc
    if status.f_flag & os.ST_RDONLY:
        raise _read_only(folder)
    return status.f_bavail * status.f_frsize


def _read_only(folder: Path) -> NoPlace:
    return NoPlace(f"'{folder}' cannot be written, as its disk is mounted read-only: mount it for writing")


@contextlib.contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A fresh folder on the disk of `out` (a file or a folder to be), which is removed in the end.

    ConversionError when another run makes the same thing now, or nothing can be written there; also in place of an
    OSError inside.
    """
    at = out.with_name(f"{_BEGIN}{out.name}{_END}")
    try:
        _clear_leftovers(out.parent, at)
        descriptor = _claimed(at)
    except OSError as exc:
        if exc.errno == errno.EROFS:
            raise _read_only(out.parent) from exc
        raise ConversionError(f"'{out.parent}' cannot be written: {exc.strerror or exc}") from exc
    if descriptor is None:
        raise ConversionError(f"'{out}' is being made by another run right now: wait for it")
    try:
        _empty(at)
        yield at
    except OSError as exc:
        raise as_problem(exc, out) from exc
    finally:
        shutil.rmtree(at, ignore_errors=True)
        os.close(descriptor)


def put_in_place(made: Path, out: Path) -> None:
    """Make what was made be `out`, once the disk has all of it. A folder that is there already is replaced."""
    _sync(made)
    if made.is_dir() and out.is_dir():
        old = made.with_name("old")
        out.replace(old)
    made.replace(out)
    _sync_one(out.parent)


def as_problem(exc: OSError, out: Path) -> ConversionError:
    """Why `out` could not be made."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoPlace(f"the disk became full while '{out}' was made: make room there")
    if exc.errno == errno.EROFS:
        return _read_only(out.parent)
    name = exc.filename if isinstance(exc.filename, str) else str(out)
    return ConversionError(f"'{out}' was not made: '{name}': {exc.strerror or exc}")


def _claimed(at: Path) -> int | None:
    """The folder, opened and locked by us; None while somebody else has it."""
    while True:
        with contextlib.suppress(FileExistsError):
            at.mkdir(mode=0o700)
        try:
            descriptor = os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # whoever had it has just removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still(at, descriptor):
            return descriptor
        os.close(descriptor)


def _is_still(at: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(at.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear_leftovers(folder: Path, ours: Path) -> None:
    """Remove what killed runs left in this folder; what a run uses is locked."""
    for left in folder.glob(f"{_BEGIN}*{_END}"):
        if left == ours or not left.is_dir() or left.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _sync(path: Path) -> None:
    if path.is_dir():
        for file in path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _sync_one(file)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
