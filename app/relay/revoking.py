"""What becomes of requests that run while their client's key is revoked."""

from __future__ import annotations

from collections.abc import Collection

from app.relay.http.protocol import ServerProtocol
from app.table import Table


class Revoking:
    """Ends the requests that run with a key that the table has no more, where the file says so.

    `connections`: those of the relay. It is a key's digest that counts: of a key that was replaced the old one may be
    gone and the new one not. One that has expired is in the table still, and what runs with it finishes.
    """

    def __init__(self) -> None:
        self.connections: Collection[ServerProtocol] = ()
        self._known: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Revoking {len(self._known)} keys>"

    def follow(self, table: Table) -> None:
        """A new table has come."""
        # Keys that are missing because nobody can ask for them were not revoked.
        if table.keys_missing is not None:
            return
        before, self._known = self._known, frozenset(key.sha256 for key in table.keys)
        if before <= self._known or table.limits.revoked_streams == "finish":
            return
        for connection in tuple(self.connections):
            for response in tuple(connection.responses):
                if response.key is not None and response.key.sha256 not in self._known:
                    response.revoke()
