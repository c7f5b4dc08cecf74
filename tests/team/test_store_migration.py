"""A store that a gateway has filled goes over to PostgreSQL and comes back, though the command is killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store import schema
from app.store.sqlite import SqliteDatabase
from app.store.tables import usage
from app.supervisor.state_folder import StateFolder
from tests import ROOT
from tests.rigs.postgres import PostgresServer
from tests.unit.store.test_usage import NOON, made, numbered

RECORDS = [3_000, pytest.param(100_000, marks=pytest.mark.full)]
AT_ONCE = 5_000
KILLS = 3


async def _fill(file: Path, records: int) -> None:
    database = SqliteDatabase(file, timeout_s=60.0)
    await schema.migrate(database)
    for first in range(0, records, AT_ONCE):
        several = [
            made(NOON - number * 37.0, key=f"k{number % 40}", key_name=f"key {number % 40}", model=f"m{number % 5}")
            for number in range(first, min(records, first + AT_ONCE))
        ]
        await usage.insert(database, "gateway", numbered(several, f"{first:08}"))
    await database.aclose()


class _Command:
    """`modelport store …` on one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, *args: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._folder),
            "PYTHONPATH": str(ROOT),
            "MODELPORT_STATE": str(self._folder / "state"),
            "OLLAMA_HOST": "127.0.0.1:9",
            "PGPASSWORD": "unused",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "app", "store", *args],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, *args: str) -> str:
        """What it prints on standard output; it must succeed."""
        with self.begin(*args) as process:
            out, errors = process.communicate()
        assert process.returncode == 0, errors
        return out


@pytest.mark.parametrize("records", RECORDS)
def test_it_goes_over_and_comes_back_though_it_is_killed(
    postgres: PostgresServer, tmp_path: Path, records: int, record_property: Callable[[str, object], None]
) -> None:
    state, command = tmp_path / "state", _Command(tmp_path)
    with StateFolder(state):
        pass
    asyncio.run(_fill(state / "store.db", records))
    url = postgres.database().replace(":unused", "")
    name = url.rpartition("/")[2]

    def there() -> int:
        is_made = postgres.sql("SELECT to_regclass('modelport.usage_records')", name)
        return int(postgres.sql("SELECT count(*) FROM modelport.usage_records", name)) if is_made else 0

    began, killed_at = time.monotonic(), [0]
    for _ in range(KILLS):
        with command.begin("migrate", "--to", url) as process:
            while process.poll() is None and there() <= killed_at[-1]:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        killed_at.append(there())
    command_line = ("migrate", "--to", url, "--json")
    told = json.loads(command.end(*command_line))["tables"]["usage_records"]
    over_s = time.monotonic() - began
    again = json.loads(command.end(*command_line))["tables"]["usage_records"]
    for file in state.glob("store.db*"):
        file.unlink()
    began = time.monotonic()
    back = json.loads(command.end("migrate", "--from", url, "--to", "sqlite", "--json"))["tables"]["usage_records"]
    back_s = time.monotonic() - began
    report = json.loads(command.end("check", "--json"))

    record_property("over, with kills at so many rows", f"{over_s:.1f} s, {killed_at[1:]} of {records:,}")
    record_property("back", f"{back_s:.1f} s")
    assert told["rows"] == again["rows"] == back["rows"] == there() == records
    assert told["resumed"] >= killed_at[-2] > 0
    assert told["mended"] == again["mended"] == back["mended"] == 0
    assert int(postgres.sql("SELECT sum(requests) FROM modelport.usage_days", name)) == records
    assert report["rows"]["usage_records"] == records
