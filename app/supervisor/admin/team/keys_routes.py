"""The routes about keys: an administrator makes them, changes them and ends them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from fastapi import FastAPI

from app.errors import Problem, bad_request
from app.store.database import StoreError
from app.store.tables.keys import KeysRefused
from app.supervisor.admin.schemas import ErrorAnswer
from app.supervisor.admin.team.key_schemas import KeyAnswer, KeyEdit, KeyMade, KeysAnswer, NewKey, Rotation
from app.supervisor.team.team import Team

Answers = dict[int | str, dict[str, Any]]
_STATUS: Final = {"key_not_found": 404, "name_taken": 409, "key_of_file": 409, "too_many_keys": 409}


class KeysApi(Protocol):
    """Where keys are kept."""

    @property
    def team(self) -> Team: ...


def add_keys_routes(app: FastAPI, api: KeysApi, refusals: Answers) -> None:
    """Add them to the admin application. `refusals`: of every route."""
    taken = {**refusals, 409: {"model": ErrorAnswer, "description": "It is not possible with this key."}}
    one = {**taken, 404: {"model": ErrorAnswer, "description": "There is no such key."}}

    @app.get("/admin/keys", tags=["admin"], responses=refusals)
    async def list_keys() -> KeysAnswer:
        """Every key, without its secret."""
        orders, now = api.team.keys, api.team.store.store_now()
        of_file = [KeyAnswer.of_file(key, now) for key in orders.of_file()]
        down = None
        try:
            stored = await orders.listed()
        except StoreError as exc:
            stored, down = list(api.team.keyring.keys), str(exc)
        of_store = [KeyAnswer.of_store(key, now) for key in stored]
        return KeysAnswer(data=[*of_file, *of_store], store=orders.place, store_down=down)

    @app.post("/admin/keys", tags=["admin"], status_code=201, responses=taken)
    async def make(order: NewKey) -> KeyMade:
        """Make a key in the store. Its secret is in this answer and nowhere else."""
        with _refusals():
            secret, key = await api.team.keys.make(order.terms(), order.sha256)
        return KeyMade(key=secret, entry=KeyAnswer.of_store(key, api.team.store.store_now()))

    @app.post("/admin/keys/{key:path}/edit", tags=["admin"], responses=one)
    async def edit(key: str, order: KeyEdit) -> KeyAnswer:
        """Change what a key opens and may use: the fields that are there. All gateways have it within a second."""
        with _refusals():
            changes = order.changes()
            if changes.get("name", "") is None:
                raise bad_request("name: a key needs one", param="name")
            after = await api.team.keys.edit(key, changes)
        return KeyAnswer.of_store(after, api.team.store.store_now())

    @app.post("/admin/keys/{key:path}/rotate", tags=["admin"], responses=one)
    async def rotate(key: str, order: Rotation) -> KeyMade:
        """Give a key a new secret; the old one works for `grace_s` seconds more."""
        with _refusals():
            secret, after = await api.team.keys.rotate(key, order.grace_s, order.sha256)
        return KeyMade(key=secret, entry=KeyAnswer.of_store(after, api.team.store.store_now()))

    @app.post("/admin/keys/{key:path}/revoke", tags=["admin"], responses=one)
    async def revoke(key: str) -> KeyAnswer:
        """End a key for good: refused everywhere within a second. What it has used stays under its name."""
        with _refusals():
            ended = await api.team.keys.revoke(key)
        return KeyAnswer.of_store(ended, api.team.store.store_now())


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the orders refuse into answers."""
    try:
        yield
    except KeysRefused as exc:
        raise Problem(_STATUS.get(exc.code, 400), exc.code, exc.message) from exc
