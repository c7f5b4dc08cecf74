"""The numbers of one relay, in memory that it shares with the supervisor: they outlive the relay, and need no disk.

The relay adds to them in place, through a mapping; the supervisor only reads. Every byte is there before it is mapped:
touching a page of a file that the disk has no room for ends a process with SIGBUS.

    length of all entries (8 bytes), then per entry: length of the key, how many numbers it has (8 bytes each), the key
    filled up to a multiple of 8, the numbers (8 bytes each)

An entry is one series (`SeriesKey`). A counter and a gauge have one number; a histogram has how many observations fell
between each bound and the one below it, then those above all bounds, then their sum.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, TypeVar

import msgspec

FIRST_BYTES: Final = 64 * 1024
_WORD: Final = 8


class Family(msgspec.Struct, frozen=True):
    """All series of one name, as they are declared. `bounds`: of a histogram, ascending, without infinity."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help_text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


class SeriesKey(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one series."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help_text: str
    labels: dict[str, str]
    bounds: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return _size(self)


def _size(series: SeriesKey | Family) -> int:
    return len(series.bounds) + 2 if series.kind == "histogram" else 1


def series_key(family: Family, values: Sequence[str]) -> bytes:
    """The key of the family's series with these labels, given in the family's order."""
    labels = dict(zip(family.labels, values, strict=True))
    return msgspec.json.encode(SeriesKey(family.kind, family.name, family.help_text, labels, family.bounds))


def create() -> int:
    """A file descriptor of empty counters for a relay to inherit. OSError when no memory or descriptor is left."""
    in_memory: Callable[[str], int] | None = getattr(os, "memfd_create", None)  # Linux
    if in_memory is not None:
        return in_memory("modelport-counters")
    with tempfile.TemporaryFile() as unnamed:
        return os.dup(unnamed.fileno())


class CounterReader:
    """The supervisor's side. What is there stays where it is, so that each key is read only once."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._forget()

    def __repr__(self) -> str:
        return f"<CounterReader {len(self._places)} series>"

    def _forget(self) -> None:
        self._places: list[tuple[bytes, int, int]] = []  # key, where its numbers begin and end, in words
        self._end = 0

    def read(self) -> list[tuple[bytes, Sequence[float]]]:
        """What is counted at this moment, as (key, numbers). ValueError when the bytes are not such counters."""
        head = os.pread(self.descriptor, _WORD, 0)
        size, there = memoryview(head).cast("q")[0] if len(head) == _WORD else 0, os.fstat(self.descriptor).st_size
        if not 0 <= size <= max(0, there - _WORD):
            raise ValueError(f"{size} bytes of counters are announced and {there} are there")
        data = os.pread(self.descriptor, size, _WORD)
        if len(data) < size:
            raise ValueError(f"{size} bytes of counters are announced and {len(data)} were read")
        if size % _WORD:
            raise ValueError(f"{size} bytes of counters are no whole numbers")
        if size < self._end:
            self._forget()
        self._learn(data)
        numbers = memoryview(data).cast("d")
        return [(key, numbers[first:last]) for key, first, last in self._places]

    def _learn(self, data: bytes) -> None:
        """Note the keys that are new."""
        words = memoryview(data).cast("q")
        while self._end < len(data):
            at = self._end // _WORD
            length, size = words[at : at + 2] if at + 2 <= len(words) else (-1, 0)
            first = at + 2 + _filled(length) // _WORD
            if length < 0 or size < 0 or first + size > len(words):
                raise ValueError("an entry of the counters goes beyond their end")
            key = data[(at + 2) * _WORD : (at + 2) * _WORD + length]
            if parsed(key).size != size:
                raise ValueError(f"an entry of the counters has {size} numbers")
            self._places.append((key, first, first + size))
            self._end = (first + size) * _WORD


def parsed(key: bytes) -> SeriesKey:
    """What a key says. ValueError when it is none."""
    try:
        return msgspec.json.decode(key, type=SeriesKey)
    except msgspec.DecodeError as exc:
        raise ValueError(f"an entry of the counters has no name: {exc}") from exc


def _filled(length: int) -> int:
    return -length % _WORD + length


class Counter:
    """A number that only grows. One writer, as of all series here."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: memoryview[float], _: Sequence[float] = ()) -> None:
        self.numbers = numbers

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.numbers[0] += amount


class Gauge:
    """A number that goes up and down. It is gone with its relay."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: memoryview[float], _: Sequence[float] = ()) -> None:
        self.numbers = numbers

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.numbers[0] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take from it."""
        self.numbers[0] -= amount

    def set(self, value: float) -> None:
        """What it is from now on."""
        self.numbers[0] = value


class Histogram:
    """How many observations there were up to each bound, and their sum."""

    __slots__ = ("_bounds", "numbers")

    def __init__(self, numbers: memoryview[float], bounds: Sequence[float]) -> None:
        self.numbers = numbers
        self._bounds = bounds

    def observe(self, value: float) -> None:
        """Count one more. A bound is in the bucket below it."""
        numbers = self.numbers
        numbers[bisect_left(self._bounds, value)] += 1.0
        numbers[-1] += value


SomeSeries = TypeVar("SomeSeries", Counter, Gauge, Histogram)


class Labelled(dict[tuple[str, ...], SomeSeries], Generic[SomeSeries]):
    """The series of one family by the values of their labels; one that is not there yet begins at 0."""

    def __init__(self, counters: SharedCounters, family: Family, kind: type[SomeSeries]) -> None:
        super().__init__()
        self._counters = counters
        self._family = family
        self._kind: Callable[[memoryview[float], Sequence[float]], SomeSeries] = kind

    def __missing__(self, labels: tuple[str, ...]) -> SomeSeries:
        family = self._family
        private = memoryview(bytearray(_size(family) * _WORD)).cast("d")
        series = self[labels] = self._kind(private, family.bounds)
        self._counters.keep(series_key(family, labels), series)
        return series


class SharedCounters:
    """The relay's side: the one writer, in one thread."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._size = 0
        self._used = _WORD
        self._map: memoryview  # of the file from `_from` on; what was mapped before stays where it is
        self._from = 0
        self._length: memoryview[int]
        self._homeless: list[tuple[bytes, Counter | Gauge | Histogram]] = []

    def __repr__(self) -> str:
        return f"<SharedCounters {self._used} of {self._size} bytes>"

    def counters(self, family: Family) -> Labelled[Counter]:
        """The family's series, by their labels."""
        return Labelled(self, family, Counter)

    def gauges(self, family: Family) -> Labelled[Gauge]:
        """The family's series, by their labels."""
        return Labelled(self, family, Gauge)

    def histograms(self, family: Family) -> Labelled[Histogram]:
        """The family's series, by their labels."""
        return Labelled(self, family, Histogram)

    def keep(self, key: bytes, series: Counter | Gauge | Histogram) -> None:
        """Share this series from now on, or as soon as there is memory for it: see `settle`."""
        self._homeless.append((key, series))
        self.settle()

    def settle(self) -> None:
        """Give a place to each series that there was no memory for. Until then it counts in this process only."""
        while self._homeless:
            key, series = self._homeless[0]
            numbers = self._place(key, series.numbers)
            if numbers is None:
                return
            series.numbers = numbers
            del self._homeless[0]

    def _place(self, key: bytes, numbers: memoryview[float]) -> memoryview[float] | None:
        """Where these numbers are from now on; None while there is no memory for them."""
        end = self._used + 2 * _WORD + _filled(len(key)) + numbers.nbytes
        try:
            if end > self._size:
                self._grow(end)
        except OSError:
            return None
        entry = self._map[self._used - self._from : end - self._from]
        head = entry[: 2 * _WORD].cast("q")
        head[0], head[1] = len(key), len(numbers)
        entry[2 * _WORD : 2 * _WORD + len(key)] = key
        place = entry[-numbers.nbytes :].cast("d")
        place[:] = numbers
        self._length[0] = end - _WORD  # only now is the entry there for the reader
        self._used = end
        return place

    def _grow(self, least: int) -> None:
        size = max(2 * self._size, FIRST_BYTES)
        while size < least:
            size *= 2
        there = self._size  # it is so much larger only once all of it is there and mapped
        while there < size:
            there += os.pwrite(self.descriptor, bytes(size - there), there)
        at = self._used - self._used % mmap.ALLOCATIONGRANULARITY
        self._map, self._from = memoryview(mmap.mmap(self.descriptor, size - at, offset=at)), at
        self._size = size
        if at == 0:
            self._length = self._map[:_WORD].cast("q")
