"""The one place where every order to the admin application passes: who gave it, what it was, how it ended.

Routes know nothing of it. What is written down is read from the route's own path and from the fields of the order that
are known to hold no secret (app/store/tables/audit_entry.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.store.tables.audit_entry import ANYBODY, MOST_CHARS, AuditEntry, Via, details, new_id
from app.supervisor.admin.team.audit_routes import AuditApi
from app.supervisor.admin.team.peers import user_name

# What a relay says of the client whose order it forwards; believed of relays only.
KEY_HEADER: Final = b"x-modelport-key"
VIA_HEADER: Final = b"x-modelport-via"
ADDRESS_HEADER: Final = b"x-modelport-address"
READS: Final = ("GET", "HEAD", "OPTIONS")
# Not an order of anybody: relays keep there what a blind comparison hides.
NO_ORDERS: Final = ("/admin/comparisons/sealed",)
MOST_BODY_BYTES: Final = 64 * 1024
# The actions whose names their paths do not say.
ACTIONS: Final = {
    "POST /admin/reload": "reload",
    "POST /admin/comparisons/votes": "comparisons.vote",
}
_VERBS: Final = {"POST": "new", "PUT": "edit", "PATCH": "edit", "DELETE": "delete"}


class AuditSeam:
    """Passes every request on, and tells `audit` of every order. `relays`: the process numbers of our own relays."""

    def __init__(
        self,
        app: ASGIApp,
        audit: Callable[[], AuditApi],
        relays: Callable[[], Collection[int]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._audit = audit
        self._relays = relays
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READS or scope["path"] in NO_ORDERS:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        status = 0
        is_noted = False

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request" and len(body) <= MOST_BODY_BYTES:
                body.extend(message.get("body", b""))
            return message

        async def sent(message: Message) -> None:
            nonlocal status, is_noted
            if message["type"] == "http.response.start":
                status = message["status"]
                is_noted = True
                await self._note(scope, bytes(body), status)
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            if not is_noted:  # it was cancelled: what came of it nobody knows
                await asyncio.shield(self._note(scope, bytes(body), 0))

    async def _note(self, scope: Scope, body: bytes, status: int) -> None:
        path = getattr(scope.get("route"), "path", None)
        if path is None:  # no route of ours: nothing was done
            return
        names = {str(name): str(value) for name, value in scope.get("path_params", {}).items()}
        fields = fields_of(body, scope.get("query_string", b""))
        headers = dict(scope["headers"])
        actor, via, address = await self._actor(scope.get("client"), headers)
        entry = AuditEntry(
            id=new_id(),
            at=self._now(),
            actor=_plain(actor),
            via=via,
            action=action(scope["method"], path),
            target=_plain(next(iter(names.values()), "") or str(fields.get("name") or fields.get("id") or "")),
            status=status,
            details=details(fields),
            request_id=headers.get(b"x-request-id", b"").decode("latin-1")[:128],
            address=address,
        )
        await self._audit().record(entry)

    async def _actor(self, client: Any, headers: Mapping[bytes, bytes]) -> tuple[str, Via, str]:
        user, process = client or ("", 0)
        if process in self._relays():
            key = unquote(headers.get(KEY_HEADER, b"").decode("latin-1"))
            address = headers.get(ADDRESS_HEADER, b"").decode("latin-1")[:64]
            return key or ANYBODY, "page" if headers.get(VIA_HEADER) == b"page" else "http", address
        return await asyncio.to_thread(user_name, user) if user else ANYBODY, "socket", ""


def _plain(text: str) -> str:
    """Short, and without what PostgreSQL takes in no text."""
    return text[:MOST_CHARS].replace("\x00", "\N{REPLACEMENT CHARACTER}")


def action(method: str, path: str) -> str:
    """What an order is called, from its route: `POST /admin/backends/{name:path}/stop` is `backends.stop`. Pure."""
    if (known := ACTIONS.get(f"{method} {path}")) is not None:
        return known
    parts = path.strip("/").split("/")
    words = [part for part in parts if part != "admin" and not part.startswith("{")]
    is_collection = parts[-1].startswith("{") or len(words) == 1
    return ".".join([*words, _VERBS.get(method, method.lower())] if is_collection else words)


def fields_of(body: bytes, query: bytes) -> dict[str, Any]:
    """The fields of an order, those of its query among them. Pure."""
    fields: dict[str, Any] = dict(parse_qsl(query.decode("latin-1")))
    if body and len(body) <= MOST_BODY_BYTES:
        try:
            read = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            read = None
        if isinstance(read, dict):
            fields.update(read)
    return fields
