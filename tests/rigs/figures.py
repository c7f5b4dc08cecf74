"""What tests have seen, at the end of a run: the figures that they recorded with `record_property`."""

from __future__ import annotations

import pytest


def write_figures(terminal: pytest.TerminalReporter, title: str) -> None:
    """A line for each test, with its seconds without its fixtures, and one for each of its figures."""
    terminal.section(title)
    for outcome in ("passed", "failed"):
        for report in terminal.getreports(outcome):
            if report.when == "call":
                name = report.nodeid.rpartition("/")[2]
                terminal.write_line(f"{outcome}  {report.duration:6.1f} s  {name}")
                for what, value in report.user_properties:
                    terminal.write_line(f"                    {what}: {value}")
