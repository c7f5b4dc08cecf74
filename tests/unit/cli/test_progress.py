"""How long a bar says that the rest takes."""

from __future__ import annotations

from app.cli.progress import time_left


def test_the_time_left_grows_while_nothing_comes() -> None:
    assert [time_left(elapsed, 10, 40) for elapsed in (10.0, 70.0, 1210.0)] == ["0:00:30", "0:03:30", "1:00:30"]
    assert time_left(10.0, 0, 40) == time_left(10.0, 0, None) == "-:--:--"
    assert time_left(10.0, 40, 40) == "0:00:00"
