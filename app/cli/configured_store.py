"""The store that is configured, which a command asks itself while no gateway runs."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.cli.options import REFUSED, config_errors_reported, fail, sentence

if TYPE_CHECKING:
    from app.config.model import Config
    from app.store.database import Database

Result = TypeVar("Result")

# What somebody waits for at a terminal may take longer than what a gateway waits for.
TIMEOUT_S = 30.0


def configured(config: Path | None, state: Path | None) -> tuple[Config, Path]:
    """The configuration, and the file that SQLite has or would have. The command ends where it cannot be read."""
    from app.config.load import load_all
    from app.config.settings import resolve
    from app.supervisor.state_folder import STORE

    with config_errors_reported():
        options = resolve(os.environ, config=config, state=state, insecure_no_key=True)
        return load_all(options), options.state / STORE


def store_at(url: str | None, file: Path) -> Database:
    """The store at this URL, of SQLite (None) in this file, not connected yet."""
    from app.store.opening import COMMAND, database_at

    return database_at(url, file, TIMEOUT_S, COMMAND)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """What the work returns; the command ends with a sentence where the store refuses."""
    import asyncio

    from app.store.database import StoreError

    try:
        return asyncio.run(work)
    except StoreError as exc:
        fail(sentence(exc), REFUSED)


def read(settings: Config, file: Path, nothing: str, ask: Callable[[Database], Awaitable[Result]]) -> Result:
    """What `ask` reads of the store, whose tables stay as they are. The command ends with `nothing`, and why, where
    there is no store yet.
    """
    url = settings.store.secret_url
    if url is None and not file.exists():
        fail(f"{nothing}: {file} is made when a gateway starts.")
    store = store_at(url, file)

    async def asked() -> Result:
        import contextlib

        from app.store import schema

        async with contextlib.aclosing(store):
            await schema.check(store)
            return await ask(store)

    return run(asked())
