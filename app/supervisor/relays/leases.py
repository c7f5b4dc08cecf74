"""What the relays say they hold: leases per engine start, and the table each of them routes by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.ipc import ADAPTER


@dataclass(slots=True)
class _Held:
    version: int = 0
    counts: dict[tuple[str, int], int] = field(default_factory=dict)


class Leases:
    """The sum over all relays. Its only writer is the hub; nothing here awaits, so a reader sees one moment.

    An engine start is over for the data path once a table without its endpoint `is_applied` and nothing of it is
    `held`: a relay reports its counts before it reports the table (app/ipc.py), so no lease is still on its way.
    """

    def __init__(self) -> None:
        self._relays: dict[int, _Held] = {}
        self._returned: dict[str, int] = {}  # of each backend: the latest start on which a lease was returned

    def __repr__(self) -> str:
        return f"<Leases relays={len(self._relays)} held={self.total()}>"

    def joined(self, relay: int) -> None:
        """A relay is there; it has applied no table yet."""
        self._relays[relay] = _Held()

    def counted(
        self, relay: int, counts: Iterable[tuple[str, int, int]], returned: Iterable[tuple[str, int]] = ()
    ) -> None:
        """It holds this many now: absolute, only what changed; and of these starts it gave one back, whatever it took
        meanwhile. ValueError when that cannot be.
        """
        held = self._relays[relay].counts
        for backend, generation in returned:
            self._returned[backend] = max(generation, self._returned.get(backend, 0))
        for backend, generation, count in counts:
            if count < 0:
                raise ValueError(f"{count} leases of {backend}#{generation}")
            if count:
                held[backend, generation] = count
            else:
                held.pop((backend, generation), None)

    def applied(self, relay: int, version: int) -> None:
        """It routes by this table from now on."""
        self._relays[relay].version = version

    def left(self, relay: int) -> None:
        """It is gone, and with it every connection it had to an engine."""
        self._relays.pop(relay, None)

    def held(self, backend: str, generation: int) -> int:
        """Leases of one start of one backend; generation 0: requests that wait for it to start."""
        return sum(relay.counts.get((backend, generation), 0) for relay in self._relays.values())

    def has_returned(self, backend: str, generation: int) -> bool:
        """Whether a request that used this start of it is over."""
        return self._returned.get(backend) == generation

    def of(self, backend: str) -> int:
        """Leases of a backend over all its starts, waiting requests included."""
        return sum(
            count for relay in self._relays.values() for (name, _), count in relay.counts.items() if name == backend
        )

    def total(self) -> int:
        """All leases there are."""
        counts = [each for relay in self._relays.values() for each in relay.counts.items()]
        return sum(count for (_, generation), count in counts if generation != ADAPTER)

    def has_applied(self, relay: int, version: int) -> bool:
        """Whether this relay, if it is there at all, routes by this table or a later one."""
        held = self._relays.get(relay)
        return held is None or held.version >= version

    def is_applied(self, version: int) -> bool:
        """Whether every relay there is routes by this table or a later one."""
        return all(relay.version >= version for relay in self._relays.values())
