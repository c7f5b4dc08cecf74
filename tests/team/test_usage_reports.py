"""How long it takes to say who has used how much, and how large what waits for the store becomes."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from app.store import schema
from app.store.database import Database
from app.store.opening import database_at
from app.store.tables import usage
from app.supervisor.team.usage.journal import UsageJournal
from app.usage.record import UsageRecord
from tests.rigs import cli
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import team_config, write_config
from tests.unit.store.test_usage import made

Figures = Callable[[str, object], None]
DAYS, KEYS, MODELS = 30, 50, 10
BATCH = 1000
SIZES = [20_000, pytest.param(1_000_000, marks=pytest.mark.full)]


def records(count: int) -> Iterator[tuple[str, UsageRecord]]:
    """So many of the last DAYS days, by KEYS keys of MODELS models."""
    rng, now = random.Random(1), time.time()
    for number in range(count):
        key = f"k-{rng.randrange(KEYS)}"
        at = now - (count - number) / count * DAYS * 86_400
        yield (
            f"0123456789abcdef-{number}",
            msgspec.structs.replace(
                made(at), key=key, key_name=f"name of {key}", model=f"model-{rng.randrange(MODELS)}"
            ),
        )


async def filled(database: Database, count: int) -> float:
    """The seconds that it took."""
    await schema.migrate(database)
    began, each = time.monotonic(), records(count)
    while batch := list(itertools.islice(each, BATCH)):
        await usage.insert(database, "g", batch)
    return time.monotonic() - began


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_who_used_how_much_is_answered_in_seconds(
    tmp_path: Path, postgres: PostgresServer, store: str, count: int, record_property: Figures
) -> None:
    url = postgres.database() if store == "postgresql" else None
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    file = state / "store.db"
    database = database_at(url, file, 60.0)
    fill_s = await filled(database, count)
    await database.aclose()
    write_config(tmp_path / "modelport.yaml", team_config(["http://127.0.0.1:9/v1"], store=url))
    hours = ("--since", f"{DAYS * 24 + 1}h")

    seconds: dict[str, float] = {}
    answers: dict[str, list[dict[str, object]]] = {}
    for name, options in {"by key": ("--by", "key"), "by key, of records": ("--by", "key", *hours)}.items():
        began = time.monotonic()
        since = () if "--since" in options else ("--since", "40d")
        ended = cli.run(tmp_path, "usage", *options, *since, "--json", "--state", str(state))
        seconds[name] = round(time.monotonic() - began, 2)
        assert ended.code == 0, ended.err
        answers[name] = json.loads(ended.out)["data"]

    size_mb = file.stat().st_size >> 20 if url is None else None
    record_property("usage", f"{store}, {count:,} records ({fill_s:.0f} s to bring them in, {size_mb} MB): {seconds} s")
    for rows in answers.values():
        assert len(rows) == KEYS
        assert sum(int(str(row["requests"])) for row in rows) == count


@pytest.mark.parametrize("count", SIZES)
def test_what_waits_for_the_store_takes_its_room_and_gives_it_back(
    tmp_path: Path, count: int, record_property: Figures
) -> None:
    path = tmp_path / "journal.db"
    journal = UsageJournal(path, 1 << 30)
    journal.open()
    began, each = time.monotonic(), records(count)
    while batch := list(itertools.islice(each, 5 * BATCH)):
        journal.add(batch, {})
    added_s, large = time.monotonic() - began, sum(file.stat().st_size for file in tmp_path.iterdir())

    while gone := journal.first(5 * BATCH):
        journal.remove([id for id, _ in gone])
    journal.close()

    small = path.stat().st_size
    record_property(
        "journal", f"{count:,} records: {large >> 20} MB in {added_s:.0f} s, {small >> 10} kB when they are gone"
    )
    assert large / count < 600
    assert small < 8 << 20
