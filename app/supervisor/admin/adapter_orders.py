"""Orders to load and unload adapters: one at a time for each name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from app.config import cross_checks
from app.config.model import Config
from app.errors import Problem
from app.supervisor.admin.schemas import AdapterOrder, AdaptersAnswer
from app.supervisor.fleet.fleet import Fleet
from app.table import Table
from backends.errors import BackendError


class AdapterOrders:
    """What an administrator orders of adapters. Each argument tells what is so now; the fleet does what is ordered."""

    def __init__(self, fleet: Callable[[], Fleet], config: Callable[[], Config], table: Callable[[], Table]) -> None:
        self._fleet = fleet
        self._config = config
        self._table = table
        self._busy: set[str] = set()  # public names that are being loaded or unloaded

    def __repr__(self) -> str:
        return f"<AdapterOrders busy={sorted(self._busy)}>"

    def answer(self, backend: str) -> AdaptersAnswer:
        """The adapters that it is to have, each with the reason where its engine does not have it."""
        return AdaptersAnswer.of(backend, self._fleet().adapters(backend))

    async def load(self, backend: str, order: AdapterOrder) -> AdaptersAnswer:
        """Serve an adapter under a public name. Problem: the name is taken, or the engine refuses it."""
        name = order.name
        is_known = name in self._table().models
        is_its_own = any(each.name == name for each in self._fleet().adapters(backend))
        if cross_checks.canonical(self._config(), name) is not None or (is_known and not is_its_own):
            raise Problem(409, "name_taken", f"{name!r} is already the name of a model here.", param="name")
        with self._one_order(name):
            try:
                await self._fleet().load_adapter(backend, name, order.path, is_proved=order.proof == "on")
            except BackendError as exc:
                raise Problem(422, "adapter_refused", f"{exc.engine}: {exc.message}") from exc
        return self.answer(backend)

    async def unload(self, backend: str, name: str) -> AdaptersAnswer:
        """Stop serving an adapter. Problem: the backend has none of this name."""
        if all(each.name != name for each in self._fleet().adapters(backend)):
            raise Problem(404, "adapter_not_found", f"{backend!r} has no adapter {name!r}.", param="adapter")
        with self._one_order(name):
            await self._fleet().unload_adapter(backend, name)
        return self.answer(backend)

    @contextlib.contextmanager
    def _one_order(self, name: str) -> Iterator[None]:
        """Allows one order at a time for each adapter's name, whichever the backend."""
        if name in self._busy:
            raise Problem(409, "name_taken", f"{name!r} is being loaded or unloaded just now.", param="name")
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)
