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
MOST_SHARED_BYTES: Final = 16 * 1024 * 1024  # of a report that other gateways show, too
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
    runs = [(path, run) for path in paths if (run := _entry(path)) is not None and may_see(viewer, run)]
    return newest_first([shown(run, path.name, _has_report(path)) for path, run in runs])


def shown(run: RunEntry, name: str, has_report: bool) -> dict[str, Any]:
    """A run as it is listed."""
    return {"object": "compare.run", **msgspec.to_builtins(run), "id": name, "has_report": has_report}


def newest_first(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order in which runs are listed."""
    return sorted(listed, key=lambda each: (each["created"], each["id"]), reverse=True)


def read_report(folder: Path, name: str, file: str, viewer: Key | None) -> bytes:
    """One of a run's reports. Blocks. Problem (404) where there is none, or none for this viewer."""
    path = folder / name
    run = _entry(path) if _ID.match(name) else None
    if run is None or not may_see(viewer, run):
        raise no_such_run()
    try:
        if (path / file).is_symlink() or (path / file).stat().st_size > MOST_BYTES:
            raise _missing("This run's report cannot be shown: it is not a file, or too large.")
        return (path / file).read_bytes()
    except FileNotFoundError:
        raise no_report(run) from None
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


def may_see(viewer: Key | None, run: RunEntry) -> bool:
    """Whether the viewer may use all of its models."""
    return all(may_use(viewer, name) for name in run.models)


def is_name(text: str) -> bool:
    """Whether a run can have this name."""
    return _ID.match(text) is not None


def no_such_run() -> Problem:
    """The refusal where there is none, or none for this viewer."""
    return _missing("There is no such run here; GET /v1/compare/runs lists them.")


def no_report(run: RunEntry) -> Problem:
    """The refusal where a run is not that far."""
    why = f" ({run.reason})" if run.reason else ""
    return _missing(f"This run has no report yet: it is {run.state}{why}.")


def read_run(path: Path) -> tuple[RunEntry, str, dict[str, bytes]] | None:
    """A run with the stamp of its files and the contents of its reports; None for what is none. Blocks."""
    run = _entry(path) if _ID.match(path.name) else None
    if run is None:
        return None
    stamp = stamp_of(path)
    reports: dict[str, bytes] = {}
    for file in (REPORT_JSON, REPORT_HTML):
        try:
            if not (path / file).is_symlink() and (path / file).stat().st_size <= MOST_SHARED_BYTES:
                reports[file] = (path / file).read_bytes()
        except OSError:
            continue
    return run, stamp, reports


def stamp_of(path: Path) -> str:
    """What changes when a run's files do. Blocks."""
    parts = []
    for file in (RUN_FILE, REPORT_JSON, REPORT_HTML):
        try:
            status = (path / file).stat()
            parts.append(f"{status.st_mtime_ns}-{status.st_size}")
        except OSError:
            parts.append("")
    return " ".join(parts)


def stamps(folder: Path) -> dict[str, str]:
    """The runs of the folder by their names, with their stamps. Blocks."""
    try:
        paths = [path for path in folder.iterdir() if _ID.match(path.name)]
    except OSError:
        return {}
    return {path.name: stamp_of(path) for path in paths if _entry(path) is not None}


def store_away(reason: str) -> Problem:
    """The refusal while a run of another gateway cannot be read."""
    return Problem(
        503, "runs_unreadable", f"The store cannot be reached ({reason}), and the run is not in this folder."
    )


def _missing(message: str) -> Problem:
    return Problem(404, "run_not_found", message)


def _unreadable(exc: OSError) -> Problem:
    return Problem(503, "runs_unreadable", f"The runs in the state folder cannot be read: {exc.strerror or exc}.")
