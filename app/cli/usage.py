"""`modelport usage`: who has used how much."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.admin_client import call, socket_of
from app.cli.configured_store import configured, read
from app.cli.options import BAD_CONFIG, ConfigOption, JsonOption, StateOption, fail, print_json, warn
from app.cli.tables import number_of, show

if TYPE_CHECKING:
    from app.store.database import Database
    from app.store.tables.usage import UsageQuestion

SINCE = "30d"
REPORT_S = 130.0
GROUPS = ("key", "model", "day", "team")


def usage(
    by: Annotated[str, typer.Option(help="What the sums are of: `key`, `model`, `day` or `team`.")] = "key",
    since: Annotated[
        str, typer.Option(help="From when on (UTC): `7d`, `12h`, `2026-11-01`, `today`, `week`, `month`.")
    ] = SINCE,
    until: Annotated[str | None, typer.Option(help="Until when. Default: now.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's, by name or id.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.", show_default=False)] = None,
    team: Annotated[str | None, typer.Option(help="Only this team's.", show_default=False)] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Show how many requests, tokens and how much money were used, by key, model, day or team."""
    if by not in GROUPS:
        fail(f"--by: '{by}' is none of {', '.join(GROUPS)}.", BAD_CONFIG)
    given = {"by": by, "since": since, "until": until, "key": key, "model": model, "team": team}
    params = {name: value for name, value in given.items() if value is not None}
    answer = _asked(params, config, state)
    if as_json:
        print_json(answer)
    elif as_csv:
        from app.usage.usage_table import csv_text

        typer.echo(csv_text(by, answer["data"]), nl=False)
    else:
        _show(answer)


def _asked(params: dict[str, str], config: Path | None, state: Path | None) -> Any:
    """The gateway's answer, else that of the store itself."""
    from app.supervisor.state_folder import is_held

    if is_held(socket_of(state).parent):
        return call("GET", "/admin/usage", state, params, timeout_s=REPORT_S)
    return _of_store(params, config, state)


def _of_store(params: dict[str, str], config: Path | None, state: Path | None) -> Any:
    settings, file = configured(config, state)
    question = _question(params, settings.usage.retention_days)
    answer = read(settings, file, "Nothing was used yet", lambda database: _reported(database, question))
    return {**answer, "pending": _left_over(file.parent)}


def _left_over(state: Path) -> int:
    """How many records a gateway that was killed, or could not reach its store, has left for the next one."""
    import contextlib
    import sqlite3

    from app.supervisor.team.usage.collector import JOURNAL
    from app.usage.segment_reader import SegmentReader
    from app.usage.segments import FOLDER

    folder, count = state / FOLDER, 0
    with contextlib.suppress(OSError, sqlite3.Error):
        reader = SegmentReader(folder)
        count += len(reader.take().records)
        reader.close()
        if (folder / JOURNAL).exists():
            place = f"{(folder / JOURNAL).resolve().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(place, uri=True, timeout=1.0)) as connection:
                count += connection.execute("SELECT COUNT(*) FROM records").fetchone()[0]
    return count


def _question(params: dict[str, str], retention_days: int) -> UsageQuestion:
    from app.store.tables import usage as stored
    from app.store.tables.usage import UsageQuestion
    from app.usage.periods import moment

    now = time.time()
    times: dict[str, float] = {}
    for name in ("since", "until"):
        try:
            if name in params:
                times[name] = moment(params[name], now)
        except ValueError as exc:
            fail(f"--{name}: {exc}.", BAD_CONFIG)
    only = {name: params[name] for name in ("key", "model", "team") if name in params}
    question = UsageQuestion(params["by"], **times, **only)  # type: ignore[arg-type]
    try:
        stored.check(question, now, retention_days)
    except ValueError as exc:
        fail(f"--since: {exc}.", BAD_CONFIG)
    return question


async def _reported(database: Database, question: UsageQuestion) -> Any:
    from app.store.tables import usage as stored

    return stored.answer(question, await stored.report(database, question))


def _show(answer: Any) -> None:
    by, rows = answer["by"], answer["data"]
    until = f" until {answer['until']}" if answer["until"] else ""
    typer.echo(f"usage since {answer['since']}{until} (UTC), by {by}\n")
    if rows:
        _show_rows(by, rows)
    else:
        typer.echo("Nothing that matches was used in that time.")
    if answer["pending"]:
        warn(f"{number_of(answer['pending'], 'record')} of this gateway are not in the store yet.")


def _show_rows(by: str, rows: list[Any]) -> None:
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("name", "id")}
    shown = [*rows, {"name": "all", **total}] if len(rows) > 1 else rows
    columns = ("requests", "failed", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    show(
        (by, "requests", "failed", "input", "cached", "output", "reasoning", "money"),
        [
            (
                row["name"] or f"without a {by}",
                *(f"{row[name]:,}" if name == "requests" or total.get(name, row[name]) else "" for name in columns),
                f"{row['money']:,.4f}" if total.get("money", row["money"]) else "",
            )
            for row in shown
        ],
    )
