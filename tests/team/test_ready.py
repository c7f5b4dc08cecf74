"""Whether a gateway may have clients sent to it, when it begins while the store is away."""

from __future__ import annotations

from pathlib import Path

from app.keys import digest
from tests.rigs import team
from tests.rigs.postgres import PostgresServer
from tests.rigs.serving import until

KEYS = [{"name": "office", "sha256": digest("mp-team-0123456789")}]


def test_a_gateway_is_not_ready_before_it_has_known_the_stores_keys_once(tmp_path: Path) -> None:
    with PostgresServer() as postgres:
        url = postgres.database()
        postgres.stop()
        with team.running(tmp_path, gateways=1, store=url, keys=KEYS, is_started=False) as one:
            (gateway,) = one.members
            gateway.start()
            until(lambda: gateway.says("/livez") == 200)
            until(lambda: "ready" in {each["state"] for each in gateway.health()["backends"]})
            assert gateway.says("/readyz") == 503

            postgres.start()
            gateway.wait_ready()
            postgres.stop()
            gateway.kill()
            gateway.start()

            gateway.wait_ready()
            assert not gateway.health()["store"]["is_up"]
