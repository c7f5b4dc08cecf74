"""`report.json`: written for programs and for the page, and read back to be shown in another language. Pure."""

from __future__ import annotations

import msgspec

from app.comparison.report.contents import FORMAT, ComparisonReport


class UnreadableReport(ValueError):
    """What was read is not a comparison's report of this version; the message says what is wrong."""


def as_json(report: ComparisonReport) -> str:
    """All of it, indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def from_json(text: bytes) -> ComparisonReport:
    """The report that `as_json` wrote. Members that are not known are left out."""
    try:
        report = msgspec.json.decode(text, type=ComparisonReport)
    except msgspec.DecodeError as exc:
        raise UnreadableReport(f"not a comparison's report: {exc}") from exc
    if report.format > FORMAT:
        raise UnreadableReport(f"the report is of format {report.format}; this version reads up to {FORMAT}")
    return report
