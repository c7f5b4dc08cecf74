"""The gateway is told to end while many use it, in every way that it is told so: nobody whom it took is let down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.ending import end
from tests.journeys.gateway import Fake


@pytest.mark.parametrize(("way", "relays"), [("process", 1), ("group", 2), ("make", 2)])
def test_nobody_who_was_accepted_is_let_down_while_it_ends(fake: Fake, tmp_path: Path, way: str, relays: int) -> None:
    ending = end(tmp_path, fake, way, relays=relays)

    assert ending.tally.failed == {}
    assert ending.code == 0
    assert ending.not_ready_ms is not None
    assert not ending.ready_again
    assert ending.tally.answered_while_ending > 0
    assert ending.tally.streamed >= 20
