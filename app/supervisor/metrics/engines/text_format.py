"""Prometheus's text format, read strictly and written again. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/: version 0.0.4, and what OpenMetrics adds as comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_LINES: Final = 100_000
_LATEST_MS: Final = len(str(2**63 - 1)) - 1  # digits of a timestamp that surely fits
_KINDS: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_VALUE: Final = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[Ii]nf|[Nn]a[Nn]"
_TEXT: Final = r'"((?:[^"\\]|\\[\\"n])*)"'
_BRACES: Final = r'\{((?:[^"}\\]|"(?:[^"\\]|\\[\\"n])*")*)\}'
# `*+` gives nothing back: a megabyte of blanks takes no longer than it must.
_SAMPLE: Final = re.compile(rf"({_NAME})[ \t]*+(?:{_BRACES})?[ \t]*+(?<=[ \t}}])({_VALUE})(?:[ \t]+([0-9]+))?")
_LABEL: Final = re.compile(rf"[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*{_TEXT}[ \t]*(?:,|$)")
_COMMENT: Final = re.compile(rf"#[ \t]+(HELP|TYPE)[ \t]+({_NAME})(?:[ \t]+(.*))?")


class BadPage(Exception):
    """The text is not in the format; the message says where and why."""


@dataclass(slots=True)
class MetricFamily:
    """The series of one name. `samples`: name, labels as (name, value as it is written), and what follows them."""

    name: str
    kind: str | None = None
    help_text: str | None = None
    samples: list[tuple[str, tuple[tuple[str, str], ...], str]] = field(default_factory=list)


def parse(page: bytes) -> dict[str, MetricFamily]:
    """The families of a page by their names. BadPage for anything that Prometheus would refuse. Of a series that comes
    twice the first is kept.
    """
    try:
        lines = page.decode().split("\n")
    except UnicodeDecodeError as exc:
        raise BadPage(f"byte {exc.start} is not UTF-8") from exc
    if len(lines) > MAX_LINES:
        raise BadPage(f"it has more than {MAX_LINES} lines")
    families: dict[str, MetricFamily] = {}
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for number, raw in enumerate(lines, 1):
        line = raw.strip(" \t\r")
        if not line:
            continue
        if line.startswith("#"):
            _describe(families, line)
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise BadPage(f"line {number} is no sample")
        name, labels, value, timestamp = match.groups()
        if not _fits(value, timestamp or ""):
            raise BadPage(f"line {number} has a number that is too large")
        pairs = _labels(labels or "", number)
        key = name, frozenset(pairs)
        if key not in seen:
            seen.add(key)
            _family(families, name).samples.append((name, pairs, f"{value} {timestamp}" if timestamp else value))
    return families


def _fits(value: str, timestamp: str) -> bool:
    """Whether both fit into Prometheus's types; a value may say that it is infinite, and not only be."""
    return len(timestamp) <= _LATEST_MS and (value[-1] in "fF" or not math.isinf(float(value)))


def _describe(families: dict[str, MetricFamily], line: str) -> None:
    match = _COMMENT.fullmatch(line)
    if match is None:
        return
    what, name, text = match.groups()
    family = families.setdefault(name, MetricFamily(name))
    if what == "HELP":
        family.help_text = family.help_text or text
    elif not family.samples:
        family.kind = text if text in _KINDS else "untyped"


def _family(families: dict[str, MetricFamily], name: str) -> MetricFamily:
    """The family that a sample of this name belongs to."""
    for suffix in ("", "_bucket", "_sum", "_count"):
        family = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if family is not None and (not suffix or suffix in _SUFFIXES.get(family.kind or "", ())):
            return family
    return families.setdefault(name, MetricFamily(name))


def _labels(text: str, number: int) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _LABEL.match(text, at)
        if match is None or match[1] in pairs or match[1] == "__name__":
            raise BadPage(f"line {number} has labels that cannot be read")
        pairs[match[1]] = match[2]
        at = match.end()
    return tuple(pairs.items())


def labelled(labels: tuple[tuple[str, str], ...], name: str, value: str) -> tuple[tuple[str, str], ...]:
    """These labels and one more; one that has its name already becomes `exported_` and its name, as in Prometheus.

    `value` is escaped here.
    """
    names = {each for each, _ in labels}
    kept = []
    for each, text in labels:
        new = each
        if each == name:
            while new in names:
                new = f"exported_{new}"
        kept.append((new, text))
    return ((name, escaped(value)), *kept)


def escaped(value: str) -> str:
    """A label's value as it is written."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def write(families: Iterable[MetricFamily]) -> bytes:
    """A page of these families."""
    return "".join(line for family in families for line in _written(family)).encode()


def _written(family: MetricFamily) -> Iterator[str]:
    if family.help_text is not None:
        yield f"# HELP {family.name} {family.help_text}\n"
    if family.kind is not None:
        yield f"# TYPE {family.name} {family.kind}\n"
    for name, labels, value in family.samples:
        text = ",".join([f'{each}="{one}"' for each, one in labels])
        yield f"{name}{{{text}}} {value}\n" if text else f"{name} {value}\n"


def joined(pages: Mapping[str, Mapping[str, MetricFamily]], label: str) -> list[MetricFamily]:
    """All pages as one, each sample with its page's name as `label`. A family that they describe differently has no
    kind: each of its samples is taken for itself.
    """
    families: dict[str, MetricFamily] = {}
    for page, own in pages.items():
        for name, family in own.items():
            if not family.samples:
                continue
            whole = families.get(name)
            if whole is None:
                whole = families[name] = MetricFamily(name, family.kind, family.help_text)
            elif whole.kind != family.kind:
                whole.kind = whole.help_text = None
            whole.samples.extend(
                [(each, labelled(labels, label, page), value) for each, labels, value in family.samples]
            )
    return list(families.values())
