"""The numbers of one relay, in memory that it shares with the supervisor: they outlive the relay, and need no disk.

The relay adds to them in place, through a mapping; the supervisor only reads. Every byte is there before it is mapped:
touching a page of a file that the disk has no room for ends a process with SIGBUS.

    length of all entries (8 bytes), then per entry: length of the key (8 bytes), the key filled up to a multiple of 8,
    the number (8 bytes)
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

FIRST_BYTES: Final = 64 * 1024
_WORD: Final = 8
_length: Final = struct.Struct("<q")
_number: Final = struct.Struct("<d")


def create() -> int:
    """A file descriptor of empty counters for a relay to inherit. OSError when no memory or descriptor is left."""
    in_memory: Callable[[str], int] | None = getattr(os, "memfd_create", None)  # Linux
    if in_memory is not None:
        return in_memory("modelport-counters")
    with tempfile.TemporaryFile() as unnamed:
        return os.dup(unnamed.fileno())


def counter_key(kind: str, mode: str, family: str, name: str, labels: Mapping[str, str], help_text: str) -> str:
    """The key of one number of a series: all that is known of it."""
    return json.dumps([kind, mode, family, name, labels, help_text], sort_keys=True, ensure_ascii=False)


class CounterReader:
    """The supervisor's side. What is there stays where it is, so that each key is read only once."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._forget()

    def __repr__(self) -> str:
        return f"<CounterReader {len(self._keys)} numbers>"

    def _forget(self) -> None:
        self._keys: list[str] = []
        self._places: list[int] = []
        self._end = 0

    def read(self) -> list[tuple[str, float]]:
        """What is counted at this moment, as (key, number). ValueError when the bytes are not such counters."""
        head = os.pread(self.descriptor, _WORD, 0)
        size, there = _length.unpack(head)[0] if len(head) == _WORD else 0, os.fstat(self.descriptor).st_size
        if not 0 <= size <= max(0, there - _WORD):
            raise ValueError(f"{size} bytes of counters are announced and {there} are there")
        data = os.pread(self.descriptor, size, _WORD)
        if len(data) < size:
            raise ValueError(f"{size} bytes of counters are announced and {len(data)} were read")
        if size < self._end:
            self._forget()
        self._learn(data)
        number = _number.unpack_from
        return [(key, number(data, at)[0]) for key, at in zip(self._keys, self._places, strict=True)]

    def _learn(self, data: bytes) -> None:
        """Note the keys that are new."""
        while self._end < len(data):
            (length,) = _length.unpack_from(data, self._end)
            place = self._end + _WORD + _filled(length)
            if length < 0 or place + _WORD > len(data):
                raise ValueError("an entry of the counters goes beyond their end")
            self._keys.append(data[self._end + _WORD : self._end + _WORD + length].decode())
            self._places.append(place)
            self._end = place + _WORD


def _filled(length: int) -> int:
    return -length % _WORD + length


class SharedCounters:
    """The relay's side: the one writer, in one thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0
        self._used = _WORD
        self._map: mmap.mmap

    def __repr__(self) -> str:
        return f"<SharedCounters {self._used} of {self._size} bytes>"

    def value(
        self,
        kind: str,
        family: str,
        name: str,
        labels: Sequence[str],
        values: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> SharedValue:
        """A number of one series: prometheus_client asks for it wherever it keeps one (`values.ValueClass`)."""
        labelled = dict(zip(labels, values, strict=True))
        return SharedValue(self, counter_key(kind, multiprocess_mode, family, name, labelled, help_text).encode())

    def place(self, key: bytes, number: float) -> int | None:
        """The offset in bytes at which this number is from now on; None while there is no memory for it."""
        entry = _length.pack(len(key)) + key.ljust(_filled(len(key)), b"\0") + _number.pack(number)
        end = self._used + len(entry)
        try:
            if end > self._size:
                self._grow(end)
        except OSError:
            return None
        self._map[self._used : end] = entry
        self._map[:_WORD] = _length.pack(end - _WORD)  # only now is the entry there for the reader
        self._used = end
        return end - _WORD

    def write(self, at: int, number: float) -> None:
        """Set the number at this offset, in one piece, so that nobody reads half of it."""
        self._map[at : at + _WORD] = _number.pack(number)

    def _grow(self, least: int) -> None:
        size = max(2 * self._size, FIRST_BYTES)
        while size < least:
            size *= 2
        while self._size < size:
            self._size += os.pwrite(self._descriptor, bytes(size - self._size), self._size)
        self._map = mmap.mmap(self._descriptor, size)


class SharedValue:
    """One number, as prometheus_client uses it."""

    def __init__(self, counters: SharedCounters, key: bytes) -> None:
        self._counters = counters
        self._key = key
        self._number = 0.0
        self._at = counters.place(key, 0.0)

    def inc(self, amount: float) -> None:
        """Add to the number."""
        self.set(self._number + amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the number; where there was no memory for it before, try again."""
        self._number = value
        if self._at is None:
            self._at = self._counters.place(self._key, value)
        else:
            self._counters.write(self._at, value)

    def get(self) -> float:
        """The number as it is now."""
        return self._number

    def set_exemplar(self, exemplar: object) -> None:
        """Exemplars are not kept."""

    def get_exemplar(self) -> None:
        """Exemplars are not kept: always None."""
