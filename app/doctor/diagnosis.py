"""What a check says: one line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["ok", "warn", "error"]


class Said(NamedTuple):
    """What a check found: how bad it is, a text without a full stop at its end, and what to do, in whole sentences;
    empty where all is well.
    """

    severity: Severity
    text: str
    fix: str = ""


Says = Iterator[Said]


def ok(text: str) -> Said:
    """All is well."""
    return Said("ok", text)


def warn(text: str, fix: str) -> Said:
    """The gateway runs, and something of it does not work, or will not for long."""
    return Said("warn", text, fix)


def error(text: str, fix: str) -> Said:
    """The gateway does not start, or something that is configured cannot be served."""
    return Said("error", text, fix)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line. `check`: which check says it, by its heading in docs/doctor.md; the rest is as in Said."""

    check: str
    severity: Severity
    text: str
    fix: str = ""

    @property
    def line(self) -> str:
        """The text with what to do."""
        return f"{self.text}. {self.fix}" if self.fix else self.text


def worst(diagnoses: Iterable[Diagnosis]) -> Severity:
    """The worst of them; ok for none."""
    severities = {each.severity for each in diagnoses}
    return "error" if "error" in severities else "warn" if "warn" in severities else "ok"
