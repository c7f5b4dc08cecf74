"""What all relays have counted, also those that ended, as a part of the page that Prometheus reads."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from app import shared_counters
from app.shared_counters import CounterReader
from app.supervisor.metrics.engines.text_format import escaped

log = structlog.get_logger()


class RelayCounters:
    """The counters of all running relays (app/shared_counters.py), and the sum of those of relays that ended.

    Its methods are called in threads; the lock keeps a reader from seeing a count twice or not at all.
    """

    def __init__(self) -> None:
        self._open: dict[int, CounterReader] = {}
        self._ended: dict[str, float] = {}
        self._layout = PageLayout()
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
                    for key, number in _counted(reader):
                        if json.loads(key)[0] != "gauge":
                            self._ended[key] = self._ended.get(key, 0.0) + number
                finally:
                    os.close(descriptor)

    def render(self, more: Mapping[str, float] | None = None) -> bytes:
        """All series in Prometheus's text format, each summed over all relays. `more`: what else was counted, by the
        same keys.
        """
        with self._lock:
            total: defaultdict[str, float] = defaultdict(float, self._ended)
            for key, number in (more or {}).items():
                total[key] += number
            for reader in self._open.values():
                for key, number in _counted(reader):
                    total[key] += number
            if self._layout.numbers.keys() != total.keys():
                self._layout = layout(total)
            return self._layout.written(total)


def _counted(reader: CounterReader) -> list[tuple[str, float]]:
    """All of a relay's counters, or none when they are damaged: the page with the others' must still be rendered."""
    try:
        return reader.read()
    except (OSError, ValueError) as exc:
        log.error("counters of a relay lost", reason=str(exc))
        return []


@dataclass(slots=True)
class PageLayout:
    """How the lines of these keys stand on the page: worked out once, as long as no series comes or goes.

    `families`: of each its head, its plain lines as (text before the number, key), and its histograms: their lines,
    ascending, and the text of the line that counts all.
    """

    numbers: dict[str, None] = field(default_factory=dict)
    families: dict[str, _Family] = field(default_factory=dict)

    def written(self, numbers: Mapping[str, float]) -> bytes:
        """The page with these numbers. A bucket of a histogram includes all below it."""
        lines: list[str] = []
        for family in self.families.values():
            lines.append(family.head)
            lines += [f"{text}{_as_text(numbers[key])}\n" for text, key in family.lines]
            for buckets, count in family.histograms.values():
                below = 0.0
                for _, text, key in buckets:
                    below += numbers[key]
                    lines.append(f"{text}{below!r}\n")
                lines.append(f"{count}{below!r}\n")
        return "".join(lines).encode()


@dataclass(slots=True)
class _Family:
    head: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    histograms: dict[str, tuple[list[tuple[float, str, str]], str]] = field(default_factory=dict)


def layout(keys: Mapping[str, object]) -> PageLayout:
    """The layout of these keys, in the order in which their families and series came."""
    families: dict[str, _Family] = {}
    for key in keys:
        kind, _, name, sample, labels, text = json.loads(key)
        family = families.get(name)
        if family is None:
            shown = f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
            help_text = text.replace("\\", r"\\").replace("\n", r"\n")
            family = families[name] = _Family(f"# HELP {shown} {help_text}\n# TYPE {shown} {kind}\n")
        bound = labels.pop("le", None) if kind == "histogram" else None
        if bound is None:
            family.lines.append((f"{sample}{_braces(labels)} ", key))
        else:
            of_series = _braces(labels)
            if of_series not in family.histograms:
                family.histograms[of_series] = [], f"{name}_count{of_series} "
            line = f"{sample}{_braces({**labels, 'le': bound})} "
            family.histograms[of_series][0].append((math.inf if bound == "+Inf" else float(bound), line, key))
    for family in families.values():
        for buckets, _ in family.histograms.values():
            buckets.sort()
    return PageLayout(dict.fromkeys(keys), families)


def _braces(labels: Mapping[str, str]) -> str:
    text = ",".join([f'{name}="{escaped(value)}"' for name, value in sorted(labels.items())])
    return f"{{{text}}}" if text else ""


def _as_text(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
