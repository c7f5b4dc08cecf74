"""Keys in a configuration file: made, changed and taken out, with every other byte of the file left as it is."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from app.cli.options import BAD_CONFIG, config_errors_reported, fail


def keys_of(path: Path) -> list[dict[str, Any]]:
    """The keys of the file, as `/admin/keys` would list them. Ends the command where it cannot be read."""
    from app.config.load import loads

    with config_errors_reported():
        config = loads(_text(path), os.environ, source=str(path), is_lenient=True)
    now = datetime.datetime.now(datetime.UTC)
    return [
        {
            **key.model_dump(mode="json", exclude={"sha256", "replaced"}),
            "place": "file",
            "state": "expired" if key.expires is not None and key.expires <= now else "good",
        }
        for key in config.keys
    ]


def add(path: Path, entry: dict[str, Any]) -> None:
    """Put a key into the file. Ends the command where that is not possible; the file is as it was then."""
    from app.config.yaml_edit import add_entry

    with config_errors_reported():
        _write(path, add_entry(_text(path), "keys", None, entry))


def edit(path: Path, name: str, changes: dict[str, Any]) -> None:
    """Change fields of a key; None takes one out."""
    from app.config.yaml_edit import remove_entry, set_entry

    with config_errors_reported():
        text = _text(path)
        at, _ = _find(path, text, name)
        for field, value in changes.items():
            place = ("keys", at, field)
            text = remove_entry(text, place) if value is None else set_entry(text, place, value)
        _write(path, text)


def rotate(path: Path, name: str, sha256: str, grace_s: float) -> None:
    """Give a key another digest; the old one opens the same for `grace_s` seconds more."""
    from app.config.yaml_edit import remove_entry, set_entry

    now = datetime.datetime.now(datetime.UTC)
    with config_errors_reported():
        text = _text(path)
        at, entry = _find(path, text, name)
        # As they are written: what has ended opens nothing, and is in nobody's way.
        replaced = [old for old in entry.get("replaced") or [] if _until(old) > now]
        if grace_s > 0:
            until = (now + datetime.timedelta(seconds=grace_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
            replaced.append({"sha256": entry["sha256"], "until": until})
        text = set_entry(text, ("keys", at, "sha256"), sha256)
        place = ("keys", at, "replaced")
        text = set_entry(text, place, replaced) if replaced else remove_entry(text, place)
        _write(path, text)


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file."""
    from app.config.yaml_edit import remove_entry

    with config_errors_reported():
        text = _text(path)
        at, _ = _find(path, text, name)
        _write(path, remove_entry(text, ("keys", at)))


def _text(path: Path) -> str:
    from app.config.yaml_edit import read

    if not path.exists():
        fail(f"There is no file {path}: `modelport init` writes one.", BAD_CONFIG)
    return read(path)


def _write(path: Path, text: str) -> None:
    from app.config.load import loads
    from app.config.yaml_edit import write

    loads(text, os.environ, source=str(path), is_lenient=True)
    write(path, text)


def _find(path: Path, text: str, name: str) -> tuple[int, dict[str, Any]]:
    from app.config.yaml_document import parse

    entries = parse(text, {}, is_lenient=True).tree.get("keys") or []
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    if name not in names:
        known = f" (there: {', '.join(map(str, names))})" if names else ""
        fail(f"{path} has no key '{name}'{known}.", BAD_CONFIG)
    at = next(at for at, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("name") == name)
    return at, entries[at]


def _until(old: Any) -> datetime.datetime:
    """When a replaced key ends; far away where that cannot be read, so that nothing is lost."""
    try:
        until = datetime.datetime.fromisoformat(str(old["until"]))
    except (ValueError, KeyError, TypeError):
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return until if until.tzinfo is not None else until.replace(tzinfo=datetime.UTC)
