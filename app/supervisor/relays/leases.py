"""What the relays report: how many leases they hold of each start of an engine, and by which table they route."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.ipc import ADAPTER


@dataclass(slots=True)
class _RelayState:
    version: int = 0
    counts: dict[tuple[str, int], int] = field(default_factory=dict)


class Leases:
    """The sum over all relays. Only the relay server writes to it; nothing here awaits, so a reader sees one moment.

    An engine start is over for the data path once a table without its endpoint `is_applied` and nothing of it is
    `held`: a relay reports its counts before it reports the table (app/ipc.py), so no lease is still on its way.
    """

    def __init__(self) -> None:
        self._relays: dict[int, _RelayState] = {}
        self._returned: dict[str, int] = {}  # of each backend: the latest start on which a lease was returned

    def __repr__(self) -> str:
        return f"<Leases relays={len(self._relays)} held={self.total()}>"

    def joined(self, relay: int) -> None:
        """This relay is connected; it has applied no table yet."""
        self._relays[relay] = _RelayState()

    def counted(
        self, relay: int, counts: Iterable[tuple[str, int, int]], returned: Iterable[tuple[str, int]] = ()
    ) -> None:
        """A relay's report, as in app/ipc.py's `InFlight`. ValueError for a count that cannot be."""
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
        """This relay routes by that version of the table from now on."""
        self._relays[relay].version = version

    def left(self, relay: int) -> None:
        """This relay is gone, and with it every connection that it had to an engine."""
        self._relays.pop(relay, None)

    def held(self, backend: str, generation: int) -> int:
        """Leases of one start of one backend; generation 0: requests that wait for it to start."""
        return sum(relay.counts.get((backend, generation), 0) for relay in self._relays.values())

    def has_returned(self, backend: str, generation: int) -> bool:
        """Whether any request that used this start of the backend is over."""
        return self._returned.get(backend) == generation

    def of(self, backend: str) -> int:
        """Leases of a backend over all its starts, waiting requests included."""
        return sum(
            count for relay in self._relays.values() for (name, _), count in relay.counts.items() if name == backend
        )

    def total(self) -> int:
        """All leases, each request once: those of adapters are not added."""
        counts = [each for relay in self._relays.values() for each in relay.counts.items()]
        return sum(count for (_, generation), count in counts if generation != ADAPTER)

    def has_applied(self, relay: int, version: int) -> bool:
        """Whether this relay routes by that version of the table or a later one; True for one that is gone."""
        state = self._relays.get(relay)
        return state is None or state.version >= version

    def is_applied(self, version: int) -> bool:
        """Whether every connected relay routes by that version of the table or a later one."""
        return all(relay.version >= version for relay in self._relays.values())
