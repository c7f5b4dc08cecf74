"""The relay's end of its line to the supervisor, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.relay.supervisor_client import Lease, SupervisorClient
from app.supervisor.relays.leases import Leases
from app.supervisor.relays.server import RelayServer
from app.table import Table
from tests.rigs.relay import FakeFleet


async def test_a_request_that_is_over_is_told_though_another_took_its_place_at_once(tmp_path: Path) -> None:
    """Clients that ask again without a pause, and an engine that hung in their second request: as the number of leases
    had never been seen to fall, nobody knew that it had served, and so nobody suspected it.
    """
    leases, fleet, supervisor = Leases(), FakeFleet(), SupervisorClient()
    server = RelayServer(leases, fleet)
    await server.open(tmp_path / "relay.sock", fleet)
    server.publish(Table(1, {}, {}, (), {}))
    await supervisor.connect(tmp_path / "relay.sock")
    try:
        first = Lease(supervisor, "gpu")
        first.bind(3)
        await fleet.until(lambda: leases.held("gpu", 3) == 1)
        assert not leases.has_returned("gpu", 3)

        first.release()
        second = Lease(supervisor, "gpu")
        second.bind(3)

        await fleet.until(lambda: leases.has_returned("gpu", 3))
        assert leases.held("gpu", 3) == 1
        second.release()
        await fleet.until(lambda: leases.total() == 0)
    finally:
        await supervisor.aclose()
        await server.close()
        await asyncio.gather(*fleet.notes)
