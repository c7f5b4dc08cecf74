"""The supervisor's side of the segments: what relays have written since the last look, and what dead ones left."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from app.usage.record import UsageRecord, decoded
from app.usage.segments import HEAD_BYTES, MAGIC, MOST_RECORD_BYTES, NEW, SEGMENT_BYTES, SUFFIX, WORD

log = structlog.get_logger()

DAMAGED: Final = ".damaged"
MOST_DAMAGED: Final = 8
MOST_RECORDS: Final = 5000


@dataclass(slots=True)
class _OpenSegment:
    """How far one segment is read. `index`: of the next record, counted from the segment's first."""

    descriptor: int
    at: int
    index: int


@dataclass(slots=True)
class Batch:
    """Records in the order in which each relay wrote them; `SegmentReader.release` is called once they are safe."""

    records: list[tuple[str, UsageRecord]] = field(default_factory=list)
    read: dict[Path, tuple[int, int]] = field(default_factory=dict)  # how far each segment is read with them
    over: list[Path] = field(default_factory=list)  # segments of which nothing comes behind them
    damaged: list[Path] = field(default_factory=list)
    lost: dict[int, int] = field(default_factory=dict)  # by writer: how many records it has lost until now


class SegmentReader:
    """The one reader of a folder's segments. All methods block; they are called one at a time.

    `damaged`: how many segments were found that are not as they were written, and put aside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, _OpenSegment] = {}
        self._resumed: dict[str, tuple[int, int]] = {}
        self.damaged = 0

    def __repr__(self) -> str:
        return f"<SegmentReader {self._folder} open={len(self._open)}>"

    def take(self, most: int = MOST_RECORDS) -> Batch:
        """What is there and was not released yet, `most` records at most. OSError where the folder cannot be read."""
        batch = Batch()
        for path in self._paths():
            if len(batch.records) >= most:
                break
            with contextlib.suppress(FileNotFoundError):
                self._take(path, batch, most)
        return batch

    def resume(self, read: Mapping[str, tuple[int, int]]) -> None:
        """What was read of these segments, by their names, in an earlier life is not given again."""
        self._resumed = dict(read)

    def release(self, batch: Batch) -> None:
        """These records are safe: do not give them again, and remove the segments that are over."""
        for path, (at, index) in batch.read.items():
            segment = self._open.get(path)
            if segment is not None:
                segment.at, segment.index = at, index
        for path in batch.over:
            self._forget(path)
            with contextlib.suppress(OSError):
                path.unlink()
        for path in batch.damaged:
            self._put_aside(path)

    def sweep(self) -> None:
        """Remove what was not finished when its maker was killed. Called before there are relays."""
        for path in self._folder.glob(f"*{NEW}"):
            with contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Read no more."""
        for path in list(self._open):
            self._forget(path)

    # -- within

    def _paths(self) -> list[Path]:
        try:
            with os.scandir(self._folder) as entries:
                return sorted(Path(entry.path) for entry in entries if entry.name.endswith(SUFFIX))
        except FileNotFoundError:
            return []

    def _take(self, path: Path, batch: Batch, most: int) -> None:
        segment = self._open.get(path)
        if segment is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            at, index = self._resumed.pop(path.name, (HEAD_BYTES, 0))
            segment = self._open[path] = _OpenSegment(descriptor, at, index)
        # Looked at before it is read: who has let go of it writes nothing any more.
        is_left = _is_left(segment.descriptor)
        data = os.pread(segment.descriptor, SEGMENT_BYTES - segment.at, segment.at)
        places = _places(data)
        end = places[-1][1] + 7 & -8 if places else 0
        if end:  # once more: a record's bytes are written before its length, but might be seen behind it
            data = os.pread(segment.descriptor, end, segment.at) + data[end:]
        # Behind them: the number of its first record is written before that, in a segment made ahead of need.
        head = os.pread(segment.descriptor, HEAD_BYTES, 0)
        writer, first, lost = _numbers(head)
        if lost:
            batch.lost[writer] = max(lost, batch.lost.get(writer, 0))
        at, index, bad = segment.at, segment.index, 0
        for begin, until in places[: most - len(batch.records)]:
            try:
                record = decoded(data[begin:until])
            except ValueError:
                if not is_left:
                    break  # it may become one
                bad += 1
            else:
                batch.records.append((f"{writer:016x}-{first + index}", record))
            at, index = segment.at + (until + 7 & -8), index + 1
        if at != segment.at:
            batch.read[path] = (at, index)
        if is_left and at == segment.at + end:
            is_damaged = bool(bad or data[end:].strip(b"\0") or (head.strip(b"\0") and not head.startswith(MAGIC)))
            (batch.damaged if is_damaged else batch.over).append(path)

    def _put_aside(self, path: Path) -> None:
        self._forget(path)
        self.damaged += 1
        log.error("usage records lost", reason="a segment is damaged, and was put aside", segment=path.name)
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(DAMAGED))
            kept = sorted(self._folder.glob(f"*{DAMAGED}"), key=lambda each: each.stat().st_mtime)
            for old in kept[:-MOST_DAMAGED]:
                old.unlink()

    def _forget(self, path: Path) -> None:
        segment = self._open.pop(path, None)
        if segment is not None:
            os.close(segment.descriptor)


def _is_left(descriptor: int) -> bool:
    """Whether nobody writes to it any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _places(data: bytes) -> list[tuple[int, int]]:
    """Where each whole record begins and ends in these bytes, up to the first place where there is none."""
    words, at, places = memoryview(data[: len(data) & -8]).cast("Q"), 0, []
    while at + WORD <= len(data):
        begin, length = at + WORD, words[at >> 3]
        if not 0 < length <= MOST_RECORD_BYTES or begin + length > len(data) or data[begin + length - 1] == 0:
            break
        places.append((begin, begin + length))
        at = begin + length + 7 & -8
    return places


def _numbers(head: bytes) -> tuple[int, int, int]:
    """The writer's number, that of the segment's first record, and how many were lost."""
    _, writer, first, lost = memoryview(head.ljust(HEAD_BYTES, b"\0")).cast("Q")
    return writer, first, lost
