"""The gateway as one object: what a reload may change, and what is shown. Its socket is bound and never listens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from app.config.load import load_all
from app.config.settings import ServeOptions
from app.config.yaml_document import ConfigError
from app.errors import Problem
from app.store.tables.keys import KeyTerms
from app.supervisor.admin.schemas import AdapterOrder
from app.supervisor.gateway import Gateway
from app.supervisor.state_folder import StateFolder

DIGEST = "ab" * 32
TEXT = """
server: {host: HOST, root_path: ROOT_PATH}
backends: {cloud: {kind: remote, url: "http://127.0.0.1:9/v1"}}
models: {a: {backend: cloud}}
"""
KEY = f"keys: [{{name: office, sha256: {DIGEST}}}]\n"


def _write(path: Path, host: str = "127.0.0.1", root_path: str = "/old", more: str = "") -> None:
    path.write_text(TEXT.replace("HOST", host, 1).replace("ROOT_PATH", root_path) + more)


@contextlib.contextmanager
def _gateway(folder: Path, config: Path | None, host: str = "127.0.0.1") -> Iterator[Gateway]:
    options = ServeOptions(state=folder / "state", config_path=config, env={"OLLAMA_HOST": "127.0.0.1:9"})
    with StateFolder(options.state) as state, socket.socket() as public:
        public.bind((host, 0))
        yield Gateway(options, load_all(options), state, public)


async def test_a_reload_that_would_leave_other_machines_without_a_key_changes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    _write(config, "0.0.0.0", more=KEY)
    with _gateway(tmp_path, config, "0.0.0.0") as gateway:
        before = gateway.config
        _write(config, "127.0.0.1")

        with pytest.raises(ConfigError, match="keys: there is no key any more"):
            await gateway.reload()

        assert gateway.config is before
        assert [key.name for key in gateway.config.keys] == ["office"]


async def test_where_other_machines_reach_it_a_gateway_without_keys_is_closed(tmp_path: Path) -> None:
    """Its store may have keys tomorrow, so it starts; until then nobody gets in."""
    config = tmp_path / "modelport.yaml"
    _write(config, "0.0.0.0", more="store: postgresql://127.0.0.1:9/m\n")
    with _gateway(tmp_path, config, "0.0.0.0") as gateway:
        assert gateway._table().is_closed
    _write(config)
    with _gateway(tmp_path, config) as gateway:
        assert gateway._table().is_open


async def test_the_last_key_of_the_file_may_go_where_the_store_has_one(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    _write(config, "0.0.0.0", more=KEY)
    with _gateway(tmp_path, config, "0.0.0.0") as gateway:
        await gateway.team.open()
        secret, made = await gateway.team.keys.make(KeyTerms("ada"))
        _write(config, "0.0.0.0")

        await gateway.reload()

        assert secret is not None
        assert [key.id for key in gateway._table().keys if key.name == "ada"] == [made.id]
        assert gateway.config.keys == ()
        await gateway.team.aclose()


async def test_what_is_read_at_the_start_stays_until_a_restart_and_is_said_at_every_reload(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    _write(config)
    with _gateway(tmp_path, config) as gateway:
        _write(config, "127.0.0.2", root_path="/new", more="default_model: a\nstore: postgresql://db/team\n")

        answers = [await gateway.reload(), await gateway.reload()]

        assert [answer.needs_restart for answer in answers] == [("server.host", "server.root_path", "store.url")] * 2
        assert (gateway.config.server.host, gateway.config.server.root_path) == ("127.0.0.1", "/old")
        assert gateway.config.default_model == "a"
        assert gateway.config.store.url is None


async def test_a_daemon_that_nobody_configured_is_not_shown_until_it_answers(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    _write(config)

    with _gateway(tmp_path, None) as looking:
        names = [backend.name for backend in looking.health().backends]
        page = await looking.metrics.gateway()
    with _gateway(tmp_path, config) as configured:
        shown = [backend.name for backend in configured.health().backends]

    assert "ollama" not in names
    assert b"ollama" not in page
    assert shown == ["cloud"]


async def test_two_loads_of_one_name_at_once_are_one_load_and_one_refusal(tmp_path: Path) -> None:
    """Each used to find the name free, on two backends even; then both led somewhere."""
    config = tmp_path / "modelport.yaml"
    _write(config)
    with _gateway(tmp_path, config) as gateway:
        may_end = asyncio.Event()

        async def load(backend: str, name: str, path: str, *, is_proved: bool) -> None:
            await may_end.wait()

        with mock.patch.object(gateway.fleet, "load_adapter", load):
            loads = [
                asyncio.create_task(gateway.load_adapter("cloud", AdapterOrder(name="law", path=path)))
                for path in ("/a", "/b")
            ]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match="is being loaded or unloaded just now") as refused:
                await asyncio.wait_for(loads[1], 10)
            may_end.set()
            told = await loads[0]

            assert refused.value.status == 409
            assert told.backend == "cloud"
            await gateway.load_adapter("cloud", AdapterOrder(name="law", path="/again"))
