"""`modelport doctor`: what is wrong with this machine, one line each, with what to do."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from app.cli.options import REFUSED, ConfigOption, JsonOption, StateOption, print_json
from app.cli.tables import number_of
from app.cli.terminal_text import terminal_line

if TYPE_CHECKING:
    from app.doctor.diagnosis import Diagnosis

_COLOURS = {"ok": "green", "warn": "yellow", "error": "red"}


def doctor(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Look at this machine and say what is wrong with it, with what to do; nothing is started or changed.

    One line for each thing: ok, warn or error. Exit code 1 where there is an error.
    """
    from app import log
    from app.doctor.checks.checks import examine
    from app.doctor.diagnosis import worst
    from app.doctor.looking.look import look

    log.set_up("console", "error")
    diagnoses = examine(look(os.environ, config, state, time.time))
    if as_json:
        print_json(as_document(diagnoses))
    else:
        for line in lines(diagnoses):
            typer.echo(line)
    if worst(diagnoses) == "error":
        raise typer.Exit(REFUSED)


def as_document(diagnoses: Sequence[Diagnosis]) -> dict[str, Any]:
    """What `--json` prints (docs/doctor.md, "For programs"). Pure."""
    from app import __version__
    from app.doctor.diagnosis import worst

    counts = {severity: sum(each.severity == severity for each in diagnoses) for severity in _COLOURS}
    return {
        "version": __version__,
        "worst": worst(diagnoses),
        "counts": counts,
        "checks": [
            {"check": each.check, "severity": each.severity, "text": each.text, "fix": each.fix or None}
            for each in diagnoses
        ],
    }


def lines(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """A line for each, and one for all; coloured, which a pipe takes out again. Pure."""
    width = max(len(each.check) for each in diagnoses)
    said = [
        f"{typer.style(f'{each.severity:5}', fg=_COLOURS[each.severity])}  {each.check:{width}}  "
        f"{terminal_line(each.line)}"
        for each in diagnoses
    ]
    errors = sum(each.severity == "error" for each in diagnoses)
    warnings = sum(each.severity == "warn" for each in diagnoses)
    total = f"{number_of(errors, 'error')}, {number_of(warnings, 'warning')}" if errors or warnings else "all is well"
    return [*said, total]
