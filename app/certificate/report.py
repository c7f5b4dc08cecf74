"""A certificate as Markdown and JSON, and its rows for a table on a terminal. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from app.certificate.certificate import Certificate

COLUMNS: Final = ("line", "verdict", "how")


def rows(certificate: Certificate) -> list[tuple[str, str, str]]:
    """One row for each line: title, verdict, how."""
    return [(line.what, str(line.verdict), line.how) for line in certificate.lines]


def heading(certificate: Certificate) -> str:
    """What it is about, in a line."""
    other = f" and {certificate.against}" if certificate.against else ""
    return f"{certificate.model}{other}: {certificate.summary}"


def as_json(certificate: Certificate) -> str:
    """All of it, for programs."""
    value = msgspec.to_builtins(certificate) | {"failed": certificate.failed, "summary": certificate.summary}
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def as_markdown(certificate: Certificate) -> str:
    """All of it, for people."""
    served = f"`{certificate.backend}` ({certificate.kind}{f' {certificate.version}' if certificate.version else ''})"
    about = [
        f"# Certificate: {heading(certificate)}",
        f"- Date: {certificate.date}",
        f"- Served by: {served}",
        f"- Serving: `{certificate.serving}`" if certificate.serving else "- Serving: its files have not been read yet",
        f"- Held against: {_plain(certificate.reference)}",
    ]
    table = ["| line | verdict | how |", "|---|---|---|"]
    table += [f"| {what} | {verdict} | {_cell(how)} |" for what, verdict, how in rows(certificate)]
    return "\n".join([about[0], "", *about[1:], "", *table, ""])


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """As a cell of a table: one line, without marks of Markdown's or HTML's own."""
    plain = _plain(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return plain.replace("*", "\\*").replace("_", "\\_").replace("`", "\\`")
