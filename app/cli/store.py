"""`modelport store check | migrate`: whether the store is well, and one store's content into another."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.configured_store import configured, run, store_at
from app.cli.options import (
    BAD_CONFIG,
    REFUSED,
    ConfigOption,
    JsonOption,
    StateOption,
    fail,
    print_json,
    warn,
)
from app.cli.progress import AmountBar
from app.cli.tables import number_of

if TYPE_CHECKING:
    from app.store.checkup import Checkup
    from app.store.copying import CopiedTable
    from app.store.database import Database

# By so much a clock may be off before limits and expiry dates are off with it.
CLOCK_S = 2.0
EMBEDDED = "sqlite"

PlaceOption = Annotated[
    str | None,
    typer.Option(
        help="`postgresql://USER@HOST/DATABASE`, or `sqlite` for the file in the state folder. "
        "Default: the store that is configured.",
        show_default=False,
    ),
]


def verbs() -> typer.Typer:
    """The commands under `modelport store`."""
    app = typer.Typer(help="Check the store, and bring one store's content into another.", no_args_is_help=True)
    app.command()(check)
    app.command()(migrate)
    return app


def check(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Say whether the store is reachable, which version it has, how its clock is, and what is in it. Exit code 1 where
    something is wrong.
    """
    settings, file = configured(config, state)
    url = settings.store.secret_url
    if url is None and not file.exists():
        fail(f"There is no store yet: {file} is made when a gateway starts.")
    database = store_at(url, file)

    async def looked() -> Checkup:
        from app.store import checkup

        async with contextlib.aclosing(database):
            return await checkup.look(database)

    import asyncio

    report = asyncio.run(looked())
    if as_json:
        print_json({"kind": database.dialect, "place": database.place, **_as_json(report)})
    else:
        _show(database, report)
    if report.trouble is not None:
        raise typer.Exit(REFUSED)


def migrate(
    to: PlaceOption = None,
    source: Annotated[str | None, typer.Option("--from", help="As `--to`.", show_default=False)] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a store into another: keys, usage, audit, votes. It goes on where a run that was ended was, and may be run
    again; every row is compared at the end. Without `--to` and `--from`: bring the store's tables to this version,
    which a start does by itself.
    """
    settings, file = configured(config, state)
    url = settings.store.secret_url
    if to is None and source is None:
        _upgrade(store_at(url, file), as_json)
        return
    origin, target = _meant(source, url, "--from"), _meant(to, url, "--to")
    if store_at(origin, file).place == store_at(target, file).place:
        fail("Both are the same store: name the other one with `--to` or `--from`.", BAD_CONFIG)
    _check_unused(origin, target, file)
    began = time.monotonic()
    copied = run(_copy(store_at(origin, file), store_at(target, file)))
    took_s = time.monotonic() - began
    if as_json:
        tables = {each.name: {"rows": each.rows, "resumed": each.resumed, "mended": each.mended} for each in copied}
        print_json({"tables": tables, "seconds": round(took_s, 1)})
        return
    for each in copied:
        resumed = f", {each.resumed:,} of them by an earlier run" if each.resumed else ""
        typer.echo(f"{each.name}: {number_of(each.rows, 'row')}{resumed}")
    place = file if target is None else store_at(target, file).place
    typer.echo(f"All rows are in {place} and were compared ({took_s:.0f} s).")
    if target != url:
        typer.echo(f"The configuration still says otherwise: {_set_to(target)}")


def _set_to(target: str | None) -> str:
    return "remove `store` from it." if target is None else "set `store` to that URL, with its password, and restart."


def _meant(given: str | None, configured: str | None, option: str) -> str | None:
    """The URL, None for SQLite. A password on a command line is everybody's to read: it is refused."""
    from app.store import postgresql_url

    if given is None:
        return configured
    if given == EMBEDDED:
        return None
    if not postgresql_url.is_url(given):
        fail(f"{option}: '{given}' is neither `{EMBEDDED}` nor a URL of PostgreSQL.", BAD_CONFIG)
    if (trouble := postgresql_url.trouble(given)) is not None:
        fail(f"{option}: the URL {trouble}.", BAD_CONFIG)
    if postgresql_url.has_password(given):
        fail(
            f"{option}: other users of this machine can read a command line: leave the password out, and set "
            "PGPASSWORD or write it into ~/.pgpass.",
            BAD_CONFIG,
        )
    return given


def _check_unused(origin: str | None, target: str | None, file: Path) -> None:
    """End the command where a gateway uses the file, or there is none to be read."""
    from app.supervisor.state_folder import StateError, check_free, prepare

    try:
        if None in (origin, target):
            check_free(file.parent)
        if target is None:
            prepare(file.parent)
    except StateError as exc:
        fail(f"{exc}.")
    if origin is None and not file.exists():
        fail(f"There is nothing to copy: {file} is not there.")


def _upgrade(database: Database, as_json: bool) -> None:
    from app.store import schema

    async def upgraded() -> tuple[int, int]:
        async with contextlib.aclosing(database):
            return await schema.migrate(database)

    before, after = run(upgraded())
    if as_json:
        print_json({"place": database.place, "before": before, "after": after})
    elif before == after:
        typer.echo(f"{database.place} has schema {after} already.")
    else:
        typer.echo(f"{database.place} has schema {after} now (before: {before or 'none'}).")


async def _copy(source: Database, target: Database) -> list[CopiedTable]:
    from app.cli.audit_note import note
    from app.store import checkup, copying, schema

    async with contextlib.aclosing(source), contextlib.aclosing(target):
        for database in (source, target):
            await schema.migrate(database)
        using = await checkup.look(source)
        if using.gateways and using.gateways > (using.silent or 0):
            running = using.gateways - (using.silent or 0)
            fail(f"{source.place} is in use by {number_of(running, 'gateway')}: stop them, so that nothing is missed.")
        with AmountBar() as bar:
            shown = _Shown(bar)
            copied = await copying.copy(source, target, shown.progress)
        await note(target, "store.migrate", target.place, {"rows": sum(each.rows for each in copied)})
        return copied


class _Shown:
    """A bar for each table; where there is no terminal a line every few seconds."""

    EVERY_S = 2.0

    def __init__(self, bar: AmountBar) -> None:
        self._bar = bar
        self._at: tuple[str, bool] | None = None
        self._told = time.monotonic()

    def progress(self, table: str, done: int, total: int, is_comparing: bool) -> None:
        if self._at != (table, is_comparing):
            self._at = (table, is_comparing)
            self._bar.step(f"{'comparing' if is_comparing else 'copying'} {table}")
        amount = f"{done:,} of {total:,}"
        self._bar.update(done, total, amount)
        if not self._bar.is_shown and time.monotonic() - self._told >= self.EVERY_S:
            self._told = time.monotonic()
            self._bar.line(f"  {amount}")


def _as_json(report: Checkup) -> dict[str, Any]:
    from app.store.schema import VERSION

    return {
        "trouble": report.trouble,
        "took_s": report.took_s,
        "schema": report.schema,
        "known_schema": VERSION,
        "ahead_s": report.ahead_s,
        "gateways": report.gateways,
        "silent": report.silent,
        "rows": report.rows,
    }


def _show(database: Database, report: Checkup) -> None:
    from app.store.schema import VERSION

    typer.echo(f"store          {database.dialect}, {database.place}")
    if report.took_s is not None:
        typer.echo(f"reachable      in {report.took_s * 1000:.1f} ms")
    if report.schema is not None:
        words = {0: "none yet: the first gateway makes it", VERSION: f"{VERSION}, up to date"}
        behind = f"{report.schema}; the next start of this version brings it to {VERSION}"
        typer.echo(f"schema         {words.get(report.schema, behind if report.schema < VERSION else report.schema)}")
    if report.ahead_s is not None:
        typer.echo(f"clock          {abs(report.ahead_s):.3f} s {'ahead of' if report.ahead_s > 0 else 'behind'} ours")
    if report.gateways is not None and database.dialect != EMBEDDED:
        typer.echo(f"gateways       {report.gateways}, {report.silent} of them silent")
    width = max((14, *map(len, report.rows)))
    for table, rows in report.rows.items():
        typer.echo(f"{table:{width}} {number_of(rows, 'row')}")
    if report.ahead_s is not None and abs(report.ahead_s) > CLOCK_S:
        warn("The two clocks differ: keys end, and budgets begin, by the store's.")
    if report.trouble is not None:
        fail(f"{report.trouble}.")
