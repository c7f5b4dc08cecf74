"""Keys in the store: asked of the gateway that runs, else of the store itself."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.cli.admin_client import call, socket_of
from app.cli.options import REFUSED, config_errors_reported, fail, sentence

if TYPE_CHECKING:
    from app.config.model import Config
    from app.supervisor.team.key_orders import KeyOrders


class RunningGateway:
    """Keys through the gateway that runs with this state folder. `when`: from when on a change holds, in a sentence."""

    when = "Every gateway goes by it within a second."

    def __init__(self, state: Path | None) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<RunningGateway {self._state}>"

    def listed(self) -> Any:
        """As `GET /admin/keys` answers."""
        return call("GET", "/admin/keys", self._state)

    def order(self, verb: str, key: str | None, body: dict[str, Any] | None) -> Any:
        """As `POST /admin/keys` answers (`new`), or `/admin/keys/{key}/{verb}`."""
        path = "/admin/keys" if key is None else f"/admin/keys/{quote(key, safe='')}/{verb}"
        return call("POST", path, self._state, body=body)

    def has_prices(self) -> bool:
        """Whether a model has a price, by the gateway's file as it is now."""
        from app.config.load import loads
        from app.config.yaml_document import ConfigError
        from app.config.yaml_edit import read

        path = call("GET", "/admin/status", self._state)["config"]
        if path is None:
            return False
        try:
            return _has_prices(loads(read(Path(path)), os.environ, source=path, is_lenient=True))
        except ConfigError:
            return True  # nobody knows, and the reload says what is wrong


class StoreItself:
    """Keys in the store that the configuration names, or in the state folder's own, while no gateway runs there.
    `when`: as of `RunningGateway`.
    """

    def __init__(self, config: Config, state: Path) -> None:
        self._config = config
        self._state = state
        is_alone = config.store.url is None
        self.when = "The gateway knows it when it starts." if is_alone else RunningGateway.when

    def __repr__(self) -> str:
        return f"<StoreItself {self._state}>"

    def listed(self) -> Any:
        """As `GET /admin/keys` answers."""
        return self._run("list", None, None)

    def order(self, verb: str, key: str | None, body: dict[str, Any] | None) -> Any:
        """As the route of the same name answers."""
        return self._run(verb, key, body)

    def has_prices(self) -> bool:
        """As of `RunningGateway`."""
        return _has_prices(self._config)

    def _run(self, verb: str, key: str | None, body: dict[str, Any] | None) -> Any:
        from app.store.database import StoreError
        from app.store.tables.keys import KeysRefused
        from app.supervisor.state_folder import StateError

        try:
            return asyncio.run(self._asked(verb, key, body))
        except KeysRefused as exc:
            fail(exc.message, REFUSED)
        except (StoreError, StateError) as exc:
            fail(sentence(exc), REFUSED)

    async def _asked(self, verb: str, key: str | None, body: dict[str, Any] | None) -> Any:
        from app.cli.audit_note import note
        from app.store import schema
        from app.store.opening import database_at
        from app.supervisor.state_folder import StateFolder, check_free, prepare
        from app.supervisor.team.key_orders import KeyOrders
        from app.supervisor.team.keyring import disown

        folder = StateFolder(self._state)
        store = self._config.store
        if store.url is None:
            check_free(self._state)
            prepare(self._state)
        database = database_at(store.secret_url, folder.store, store.timeout_s, "modelport keys")

        async def changed() -> None:
            # A gateway that starts while its store is away would go by what this says.
            disown(folder.keys)

        try:
            await schema.migrate(database)
            orders = KeyOrders(database, lambda: self._config, time.time, changed)
            answer = await _answered(orders, verb, key, body)
            if verb != "list":
                await note(database, f"keys.{verb}", key or str((body or {}).get("name", "")), body)
            return answer
        finally:
            await database.aclose()


def _has_prices(config: Config) -> bool:
    return any(model.price is not None for model in config.models.values())


async def _answered(orders: KeyOrders, verb: str, key: str | None, body: dict[str, Any] | None) -> Any:
    from pydantic import ValidationError

    from app.supervisor.admin.team.key_schemas import KeyAnswer, KeyEdit, KeyMade, KeysAnswer, NewKey, Rotation

    now = time.time()
    try:
        if key is None and verb == "list":
            of_file = [KeyAnswer.of_file(each, now) for each in orders.of_file()]
            data = [*of_file, *(KeyAnswer.of_store(each, now) for each in await orders.listed())]
            return KeysAnswer(data=data, store=orders.place, store_down=None).model_dump(mode="json")
        if key is None:
            order = NewKey.model_validate(body)
            secret, made = await orders.make(order.terms(), order.sha256)
            return KeyMade(key=secret, entry=KeyAnswer.of_store(made, now)).model_dump(mode="json")
        if verb == "rotate":
            rotation = Rotation.model_validate(body)
            secret, made = await orders.rotate(key, rotation.grace_s, rotation.sha256)
            return KeyMade(key=secret, entry=KeyAnswer.of_store(made, now)).model_dump(mode="json")
        changes = KeyEdit.model_validate(body).changes() if verb == "edit" else {}
    except ValidationError as exc:
        first = exc.errors()[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", REFUSED)
    after = await (orders.edit(key, changes) if verb == "edit" else orders.revoke(key))
    return KeyAnswer.of_store(after, now).model_dump(mode="json")


def keys_at(state: Path | None) -> RunningGateway | StoreItself | None:
    """Where keys are kept here: at the gateway that runs, else in the store that is configured or that there is. None
    where there is neither.
    """
    from app.config.load import load_all
    from app.config.settings import resolve
    from app.running_gateway import status
    from app.supervisor.state_folder import StateFolder

    socket = socket_of(state)
    if status(socket) is not None:
        return RunningGateway(state)
    with config_errors_reported():
        options = resolve(os.environ, state=state, insecure_no_key=True)
        config = load_all(options)
    if config.store.url is None and not StateFolder(options.state).store.is_file():
        return None
    return StoreItself(config, options.state)
