"""`modelport store`: how the store is, and one store's content in another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.store import schema
from app.supervisor.state_folder import StateFolder
from tests.rigs.cli import run
from tests.rigs.postgres import PostgresServer

FILE = """
store: STORE
models: {a: {backend: cloud}}
backends: {cloud: {kind: remote, url: "http://127.0.0.1:9/v1"}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this file's own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with an empty store of this version."""
    folder = tmp_path / "state"
    with StateFolder(folder):
        pass
    assert run(tmp_path, "store", "migrate").code == 0
    return folder


def written(folder: Path, url: str) -> str:
    path = folder / "modelport.yaml"
    path.write_text(FILE.replace("STORE", json.dumps(url)))
    return str(path)


def test_a_store_that_is_well_is_said_to_be(server: PostgresServer, tmp_path: Path) -> None:
    config = written(tmp_path, server.database())

    before = run(tmp_path, "store", "check", "--config", config)
    made = run(tmp_path, "store", "migrate", "--config", config)
    after = run(tmp_path, "store", "check", "--config", config, "--json")

    assert "schema         none yet: the first gateway makes it" in before.out
    assert made.out.endswith(f"has schema {schema.VERSION} now (before: none).\n")
    told = json.loads(after.out)
    assert (told["kind"], told["schema"], told["trouble"], told["gateways"]) == ("postgresql", schema.VERSION, None, 0)
    assert [before.code, made.code, after.code] == [0, 0, 0]
    assert "unused" not in before.out + after.out + made.out


def test_a_store_that_is_not_reachable_is_one_sentence(tmp_path: Path) -> None:
    config = written(tmp_path, "postgresql://modelport:hidden-word@127.0.0.1:1/team")

    result = run(tmp_path, "store", "check", "--config", config)

    assert result.code == 1
    assert result.err.startswith("127.0.0.1:1/team: ")
    assert "hidden-word" not in result.out + result.err
    assert "Traceback" not in result.out + result.err


def test_a_store_that_no_gateway_has_made_is_not_made_by_a_look(tmp_path: Path) -> None:
    result = run(tmp_path, "store", "check")

    assert result.code == 1
    assert "There is no store yet" in result.err
    assert not (tmp_path / "state").exists()


def test_a_store_goes_over_and_comes_back(server: PostgresServer, state: Path, tmp_path: Path) -> None:
    url = server.database().replace(":unused@", "@")

    over = run(tmp_path, "store", "migrate", "--to", url)
    config = written(tmp_path, url)
    back = run(tmp_path, "store", "migrate", "--to", "sqlite", "--config", config, "--json")

    assert over.code == 0, over.err
    assert "were compared" in over.out
    assert "set `store` to that URL, with its password, and restart" in over.out
    assert back.code == 0, back.err
    assert set(json.loads(back.out)["tables"]) == {table.name for table in schema.LOCK_ORDER if table.is_copied}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "mysql://host/db"), "neither `sqlite` nor a URL of PostgreSQL"),
        (("--to", "postgresql://u:hidden-word@host/db"), "other users of this machine can read a command line"),
        (("--to", "sqlite"), "Both are the same store"),
    ],
)
def test_what_cannot_be_copied_to_is_refused(
    state: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run(tmp_path, "store", "migrate", *arguments)

    assert result.code == 2
    assert said in result.err
    assert "hidden-word" not in result.out + result.err


def test_a_gateway_that_is_older_than_its_store_does_not_start(state: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(state / "store.db")) as store, store:
        store.execute("INSERT INTO schema_version (version, name) VALUES (999, 'later')")

    served = run(tmp_path, "serve", "--port", "0")
    checked = run(tmp_path, "store", "check")

    for ended in (served, checked):
        assert ended.code == 1
        assert f"has schema 999, and this gateway knows schemas up to {schema.VERSION}: update the gateway" in ended.err
        assert "Traceback" not in ended.err


def test_a_store_in_use_is_not_copied(server: PostgresServer, state: Path, tmp_path: Path) -> None:
    with StateFolder(state):
        result = run(tmp_path, "store", "migrate", "--to", server.database().replace(":unused@", "@"))

    assert result.code == 1
    assert "a gateway already runs on the state folder" in result.err
