"""What all relays have counted, also those that ended, as a part of the page that Prometheus reads."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import structlog

from app import shared_counters
from app.shared_counters import CounterReader, SeriesKey, parsed
from app.supervisor.metrics.engines.text_format import escaped

log = structlog.get_logger()


class RelayCounters:
    """The counters of all running relays (app/shared_counters.py), and the sum of those of relays that ended.

    Its methods are called in threads; the lock keeps a reader from seeing a count twice or not at all.
    """

    def __init__(self) -> None:
        self._open: dict[int, CounterReader] = {}
        self._ended: dict[bytes, Sequence[float]] = {}
        self._layout = PageLayout(())
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RelayCounters relays={len(self._open)} ended={len(self._ended)}>"

    def open(self) -> int:
        """A file descriptor with fresh counters, for a relay that is about to start. OSError without memory for it."""
        with self._lock:
            descriptor = shared_counters.create()
            self._open[descriptor] = CounterReader(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Take over what an ended relay has counted and close its descriptor. Its gauges are dropped."""
        with self._lock:
            reader = self._open.pop(descriptor, None)
            if reader is not None:
                try:
                    for key, numbers in _counted(reader):
                        if parsed(key).kind != "gauge":
                            _add(self._ended, key, numbers)
                finally:
                    os.close(descriptor)

    def render(self, more: Mapping[bytes, Sequence[float]] | None = None) -> bytes:
        """All series in Prometheus's text format, each summed over all relays. `more`: what else was counted, by the
        same keys.
        """
        with self._lock:
            total = dict(self._ended)
            for key, numbers in (more or {}).items():
                _add(total, key, numbers)
            for reader in self._open.values():
                for key, numbers in _counted(reader):
                    _add(total, key, numbers)
            if self._layout.keys != total.keys():
                self._layout = PageLayout(total)
            return self._layout.written(total)


def _add(total: dict[bytes, Sequence[float]], key: bytes, numbers: Sequence[float]) -> None:
    known = total.get(key)
    total[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


def _counted(reader: CounterReader) -> list[tuple[bytes, Sequence[float]]]:
    """All of a relay's counters, or none when they are damaged: the page with the others' must still be rendered."""
    try:
        return reader.read()
    except (OSError, ValueError) as exc:
        log.error("counters of a relay lost", reason=str(exc))
        return []


class PageLayout:
    """How the lines of these series stand on the page: worked out once, as long as no series comes or goes.

    As prometheus_client writes them: families in the order in which they came, labels in that of their names.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.keys = dict.fromkeys(keys).keys()
        self._families: dict[str, list[tuple[bytes, bool, list[str]]]] = {}
        self._heads: dict[str, str] = {}
        for key in self.keys:
            series = parsed(key)
            if series.name not in self._families:
                self._families[series.name] = []
                help_text = series.help_text.replace("\\", r"\\").replace("\n", r"\n")
                self._heads[series.name] = f"# HELP {series.name} {help_text}\n# TYPE {series.name} {series.kind}\n"
            is_histogram = series.kind == "histogram"
            self._families[series.name].append((key, is_histogram, list(_lines(series))))

    def written(self, numbers: Mapping[bytes, Sequence[float]]) -> bytes:
        """The page with these numbers. A bucket of a histogram includes all below it."""
        page: list[str] = []
        for name, family in self._families.items():
            page.append(self._heads[name])
            for key, is_histogram, lines in family:
                shown = _cumulated(numbers[key]) if is_histogram else numbers[key]
                page += [f"{line}{_as_text(number)}\n" for line, number in zip(lines, shown, strict=True)]
        return "".join(page).encode()


def _cumulated(numbers: Sequence[float]) -> list[float]:
    """A histogram's numbers as they stand on the page: the buckets, all of them together, their sum."""
    buckets = list(accumulate(numbers[:-1]))
    return [*buckets, buckets[-1], numbers[-1]]


def _lines(series: SeriesKey) -> Iterator[str]:
    """The lines of a series, without their numbers."""
    if series.kind == "histogram":
        for bound in (*series.bounds, math.inf):
            yield f"{series.name}_bucket{_braces({**series.labels, 'le': _as_text(bound)})} "
        yield f"{series.name}_count{_braces(series.labels)} "
        yield f"{series.name}_sum{_braces(series.labels)} "
    else:
        yield f"{series.name}{_braces(series.labels)} "


def _as_text(number: float) -> str:
    """As Go writes it, and Prometheus with it: from a million on with an exponent."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    text = repr(number)
    whole, dot, part = text.partition(".")
    if number < 1 or len(whole) < 7 or not dot:
        return text
    digits = f"{whole}{part}".rstrip("0")
    return f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+{len(whole) - 1:02d}"


def _braces(labels: Mapping[str, str]) -> str:
    text = ",".join([f'{name}="{escaped(value)}"' for name, value in sorted(labels.items())])
    return f"{{{text}}}" if text else ""
