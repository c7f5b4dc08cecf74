"""openai-python and openai-node, as they are installed, ask for more than a key's minute has: they wait as long as they
are told, and all succeed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.journeys.gateway import Fake
from tests.journeys.javascript import installed
from tests.journeys.limited import QUICK, Told, by_node, by_python, limited

pytestmark = pytest.mark.full

LIMITS = {"rpm": "rpm: 2", "tpm": "tpm: 70"}
REQUESTS = 3


def test_sdks_wait_for_a_minute_as_they_are_told(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    node = installed()
    keys = {f"{sdk}-{name}": limit for sdk in ("python", "node") for name, limit in LIMITS.items()}

    with Fake() as fake, limited(fake, tmp_path, **keys) as gateway, ThreadPoolExecutor(len(keys)) as pool:
        asking = {
            key: pool.submit(by_node, gateway, key, QUICK, REQUESTS, node)
            if key.startswith("node")
            else pool.submit(by_python, gateway, key, QUICK, REQUESTS)
            for key in keys
        }
        told = {key: each.result() for key, each in asking.items()}

    for key, each in told.items():
        waits = ", ".join(f"{seconds:.1f}" for seconds in each.seconds)
        record_property(f"openai-{key}", f"told to wait {waits} s; all {REQUESTS} succeeded in {each.took_s:.1f} s")
    assert all(is_right(each) for each in told.values())


def is_right(told: Told) -> bool:
    """It was refused, and waited for as long as it was told."""
    return bool(told.seconds) and told.took_s >= max(told.seconds)
