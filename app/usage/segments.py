"""Usage records on their way from a relay to the supervisor: in files of the state folder that are mapped into memory.

What is written is there for whoever reads the file, even when the relay is killed in the next instant. A segment is as
large as it will be before it is mapped: touching a page that the disk has no room for ends a process with SIGBUS. Its
writer holds a lock (flock) on it until it goes on to the next one, or ends, however it ends; then the supervisor takes
what is left and removes the file.

    magic (8 bytes), the writer's number, the number of its first record, how many records the writer has lost until now
    (8 bytes each), then per record: its length (8 bytes), its bytes, filled up to a multiple of 8

A length is written after the bytes that it is of, and the last byte of a record is never 0. So a record whose length is
there is whole when its writer was killed; and when the machine lost power, after which a page of the file may be
missing, a record of a few hundred bytes, which lies on two pages at most, is whole if its length and its last byte are
there.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

MAGIC: Final = b"MPUSAGE1"
FOLDER: Final = "usage"  # in the state folder
SUFFIX: Final = ".segment"
NEW: Final = ".new"
WORD: Final = 8
HEAD_BYTES: Final = 4 * WORD
SEGMENT_BYTES: Final = 1024 * 1024
# The names in a record have 256 characters at most, so that none is as long as this.
MOST_RECORD_BYTES: Final = 16 * 1024
# So many segments of one relay may wait for the supervisor.
MOST_SEGMENTS: Final = 64
# Beyond them, or where the disk is full, records wait in the relay's own memory.
MOST_WAITING_BYTES: Final = 16 * 1024 * 1024
SLOW_S: Final = 0.05


class _Segment:
    """One file, locked and mapped. OSError where there is no room for it."""

    def __init__(self, path: Path, writer: int, size: int) -> None:
        self.path = path
        fresh = path.with_suffix(NEW)
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Before it has the name by which it is found: one that is not locked is taken for one that is left over.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = 0
            while there < size:
                there += os.pwrite(self._descriptor, bytes(size - there), there)
            self._map = mmap.mmap(self._descriptor, size)
            self.data = memoryview(self._map)
            self.words = self.data.cast("Q")
            self.data[:WORD] = MAGIC
            self.words[1] = writer
            fresh.rename(path)
        except BaseException:
            os.close(self._descriptor)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def __repr__(self) -> str:
        return f"<_Segment {self.path.name}>"

    def close(self) -> None:
        """Write no more to it; from now on the supervisor may remove it."""
        self.words.release()
        self.data.release()
        self._map.close()
        os.close(self._descriptor)


class SegmentWriter:
    """A relay's side: the one writer of its segments, in one thread.

    `number`: of 63 random bits, which no other writer has; with a record's number it makes the record's id. `executor`:
    makes the next segment while this one is filled, and is shut down in the end. `lost`: how many records there was no
    place for.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        executor: Executor | None = None,
        *,
        most_segments: int = MOST_SEGMENTS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._number = number
        self.lost = 0
        self._executor = executor
        self._most = most_segments
        self._size = segment_bytes
        self._made = 0
        self._records = 0
        self._current: _Segment | None = None
        self._spare: Future[_Segment] | None = None
        self._filled: deque[Path] = deque()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._data, self._words = memoryview(b""), memoryview(b"").cast("Q")
        self._at = self._end = 0
        self.settle()

    def __repr__(self) -> str:
        return f"<SegmentWriter {self._number:016x} records={self._records} waiting={len(self._waiting)}>"

    def write(self, record: bytes) -> None:
        """Have this record outlive this process. Where there is no room it waits here, until `settle` finds some."""
        at, length = self._at, len(record)
        begin = at + WORD
        end = begin + length
        if end > self._end:
            self._write_late(record)
            return
        self._data[begin:end] = record
        self._words[at >> 3] = length
        self._at = end + 7 & -8
        self._records += 1

    def settle(self) -> None:
        """Place what waits. Called a few times a second."""
        while self._waiting or self._current is None:
            if self._current is None and not self._turn():
                return
            self._end = self._size
            while self._waiting and self._at + WORD + len(self._waiting[0]) <= self._size:
                record = self._waiting.popleft()
                self._waiting_bytes -= len(record)
                self.write(record)
            if self._waiting:
                self._leave()
        self._set_mark()

    def close(self) -> None:
        """No more comes. What still has no place is lost."""
        self.settle()
        self._lose(len(self._waiting))
        self._waiting.clear()
        self._leave()
        if self._spare is not None and not self._spare.cancel() and self._spare.exception() is None:
            self._spare.result().close()  # empty: the supervisor removes it
        self._spare = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    # -- within

    def _lose(self, count: int) -> None:
        if count and not self.lost:
            log.error("usage records lost", reason="there is no room for them on the state folder's disk")
        self.lost += count
        if self._current is not None:
            self._current.words[3] = self.lost

    def _write_late(self, record: bytes) -> None:
        """This record does not fit below the mark: the segment is half full, or full, or others wait already."""
        if self._waiting_bytes + len(record) > MOST_WAITING_BYTES:
            self._lose(1)
            return
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        if self._current is not None:  # else there is no place, which is not tried for every request
            self.settle()

    def _set_mark(self) -> None:
        """Let `write` fill the segment up to its half, where the next one is begun to be made, or up to its end."""
        half = self._size // 2
        if self._at < half:
            self._end = half
            return
        self._end = self._size
        if self._spare is None and self._executor is not None and self._has_room():
            self._spare = self._executor.submit(_Segment, self._next_path(), self._number, self._size)

    def _turn(self) -> bool:
        """Go on to another segment; whether there is one."""
        try:
            if self._spare is not None:
                segment = self._spare.result(SLOW_S)
                self._spare = None
            elif self._has_room():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                segment = _Segment(self._next_path(), self._number, self._size)
            else:
                return False
        except TimeoutError:  # a disk that hangs: requests do not wait for it
            return False
        except OSError:
            self._spare = None
            return False
        segment.words[2], segment.words[3] = self._records, self.lost
        self._current, self._data, self._words = segment, segment.data, segment.words
        self._at = HEAD_BYTES
        return True

    def _leave(self) -> None:
        if self._current is None:
            return
        self._filled.append(self._current.path)
        self._data, self._words = memoryview(b""), memoryview(b"").cast("Q")
        self._current.close()
        self._current, self._at, self._end = None, 0, 0

    def _has_room(self) -> bool:
        """Whether the supervisor has removed enough of those that are full."""
        while self._filled and not self._filled[0].exists():
            self._filled.popleft()
        return len(self._filled) + (self._current is not None) < self._most

    def _next_path(self) -> Path:
        self._made += 1
        return self._folder / f"{self._number:016x}-{self._made:06d}{SUFFIX}"
