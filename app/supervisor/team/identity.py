"""Who this gateway is among others, kept in the state folder, with what it must know while the store is away."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from app.supervisor.json_store import JsonStore


class KeptIdentity(msgspec.Struct, frozen=True):
    """The file's content. `gateways`: how many there were when that was last known."""

    id: str
    gateways: int | None = None


class Identity:
    """`id` outlives restarts; `life` is this process's own; `name`: what people know the machine by.

    The methods block.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        self.file = JsonStore(path, KeptIdentity)
        self.name = name
        self.life = secrets.token_hex(8)
        self._remembered = self.file.read() or self._new()

    def __repr__(self) -> str:
        return f"<Identity {self.id} {self.name}>"

    @property
    def id(self) -> str:
        """16 hex digits."""
        return self._remembered.id

    @property
    def gateways(self) -> int | None:
        """How many gateways there were when that was last known."""
        return self._remembered.gateways

    def _new(self) -> KeptIdentity:
        fresh = KeptIdentity(secrets.token_hex(8))
        self.file.write(fresh)
        return fresh

    def renew(self) -> None:
        """Be another one from now on."""
        self._remembered = msgspec.structs.replace(self._remembered, id=secrets.token_hex(8))
        self.file.write(self._remembered)

    def know(self, gateways: int) -> None:
        """Remember how many gateways there are."""
        self._remembered = msgspec.structs.replace(self._remembered, gateways=gateways)
        self.file.write(self._remembered)
