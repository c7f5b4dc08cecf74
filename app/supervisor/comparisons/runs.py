"""The runs of `modelport compare` in the state folder, which that command writes (app/comparison/running)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from app.errors import Problem
from app.routing import may_use
from app.table import Key

FOLDER: Final = "comparisons"
RUN_FILE: Final = "run.json"
REPORT_JSON: Final = "report.json"
REPORT_HTML: Final = "report.html"
MOST_BYTES: Final = 64 * 1024 * 1024
_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")


class RunEntry(msgspec.Struct, frozen=True):
    """What is read of a `run.json`. `questions`: how many; `created`: Unix seconds."""

    id: str
    created: int
    models: list[str]
    questions: int
    pair: str | None = None
    state: str = "running"
    reason: str | None = None


def list_runs(folder: Path, viewer: Key | None) -> list[dict[str, Any]]:
    """The runs all of whose models the viewer may use, newest first. Blocks. Problem (503) for a folder that cannot be
    read; a run that cannot is left out.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if _ID.match(path.name))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise _unreadable(exc) from exc
    runs = [(path, run) for path in paths if (run := _entry(path)) is not None and _may_see(viewer, run)]
    runs.sort(key=lambda each: (each[1].created, each[1].id), reverse=True)
    return [
        {"object": "compare.run", **msgspec.to_builtins(run), "id": path.name, "has_report": _has_report(path)}
        for path, run in runs
    ]


def read_report(folder: Path, name: str, file: str, viewer: Key | None) -> bytes:
    """One of a run's reports. Blocks. Problem (404) where there is none, or none for this viewer."""
    path = folder / name
    run = _entry(path) if _ID.match(name) else None
    if run is None or not _may_see(viewer, run):
        raise _missing("There is no such run here; GET /v1/compare/runs lists them.")
    try:
        if (path / file).is_symlink() or (path / file).stat().st_size > MOST_BYTES:
            raise _missing("This run's report cannot be shown: it is not a file, or too large.")
        return (path / file).read_bytes()
    except FileNotFoundError:
        why = f" ({run.reason})" if run.reason else ""
        raise _missing(f"This run has no report yet: it is {run.state}{why}.") from None
    except OSError as exc:
        raise _unreadable(exc) from exc


def _entry(path: Path) -> RunEntry | None:
    """None for what is no run's folder."""
    if path.is_symlink():
        return None
    try:
        return msgspec.json.decode((path / RUN_FILE).read_bytes(), type=RunEntry)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _has_report(path: Path) -> bool:
    return (path / REPORT_JSON).is_file()


def _may_see(viewer: Key | None, run: RunEntry) -> bool:
    return all(may_use(viewer, name) for name in run.models)


def _missing(message: str) -> Problem:
    return Problem(404, "run_not_found", message)


def _unreadable(exc: OSError) -> Problem:
    return Problem(503, "runs_unreadable", f"The runs in the state folder cannot be read: {exc.strerror or exc}.")
