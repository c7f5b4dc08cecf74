"""`modelport audit`: who did what through the admin routes, the page and the command line."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.admin_client import call, socket_of
from app.cli.configured_store import configured, read
from app.cli.options import BAD_CONFIG, ConfigOption, JsonOption, StateOption, fail, print_json
from app.cli.tables import show
from app.usage.periods import moment

if TYPE_CHECKING:
    from app.store.database import Database

_PAGE: Final = 1000


def audit(
    since: Annotated[
        str | None, typer.Option(help="From when on (UTC): `24h`, `7d`, `2026-11-28`, a time.", show_default=False)
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when, in the same words.", show_default=False)] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this key, or user, did.", show_default=False)] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this: `keys.revoke`, or all of `keys`.", show_default=False)
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only what was done to this.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who did what at this gateway, and at all others on the same store, newest first."""
    now = time.time()
    wanted = {
        "since": _seconds(since, "--since", now),
        "until": _seconds(until, "--until", now),
        "actor": actor,
        "action": action,
        "target": target,
    }
    entries = _read({name: value for name, value in wanted.items() if value is not None}, limit, config, state)
    if as_json:
        print_json({"object": "list", "data": entries})
        return
    if not entries:
        typer.echo("Nobody has done anything that matches.")
        return
    show(("time (UTC)", "who", "by", "what", "on", "outcome", "details", "gateway"), [_row(entry) for entry in entries])


def _read(wanted: dict[str, str], limit: int, config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    """So many entries, of the gateway that runs here, else of the store itself."""
    from app.supervisor.state_folder import is_held

    if not is_held(socket_of(state).parent):
        return _of_store(wanted, limit, config, state)
    entries: list[dict[str, Any]] = []
    while len(entries) < limit:
        page = {**wanted, "limit": str(min(_PAGE, limit - len(entries)))}
        if entries:
            page["before"] = entries[-1]["id"]
        answer = call("GET", "/admin/audit", state, page)
        entries += answer["data"]
        if not answer["has_more"]:
            break
    return entries


def _of_store(wanted: dict[str, str], limit: int, config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    settings, file = configured(config, state)
    return read(settings, file, "Nobody has done anything yet", lambda database: _stored(database, wanted, limit))


async def _stored(database: Database, wanted: dict[str, str], limit: int) -> list[dict[str, Any]]:
    import msgspec

    from app.store.tables.audit import AuditQuery, AuditTable

    entries: list[Any] = []
    while len(entries) < limit:
        before = entries[-1].id if entries else None
        query = msgspec.convert({**wanted, "before": before}, AuditQuery, strict=False)
        page = await AuditTable(database).read(msgspec.structs.replace(query, limit=min(_PAGE, limit - len(entries))))
        entries += page
        if not page:
            break
    return [msgspec.structs.asdict(entry) for entry in entries]


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    at = datetime.datetime.fromtimestamp(entry["at"], datetime.UTC)
    return (
        at.strftime("%Y-%m-%d %H:%M:%S"),
        entry["actor"],
        " ".join(filter(None, (entry["via"], entry["address"]))),
        entry["action"],
        entry["target"],
        outcome(entry["status"]),
        ", ".join(f"{name}: {_plain(value)}" for name, value in entry["details"].items()),
        entry["gateway"],
    )


def outcome(status: int) -> str:
    """How an order ended, in a word or two. Pure."""
    if 200 <= status < 300:
        return "done"
    return f"refused ({status})" if 400 <= status < 500 else f"failed ({status})" if status else "unknown"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds(text: str | None, option: str, now: float) -> str | None:
    if text is None:
        return None
    try:
        return str(moment(text, now))
    except ValueError as exc:
        fail(f"{option}: {exc}.", BAD_CONFIG)
