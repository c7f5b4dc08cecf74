"""app/relay/balancing/rendezvous.py: places on which all agree."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from app.relay.balancing.rendezvous import seed, winner

NAMES = ["vllm", "vllm#2", "vllm#3", "vllm#4"]
SEEDS = [seed("key", b"conversation %d" % number) for number in range(4000)]


def places(*names: str) -> list[str]:
    return [names[winner(placed, [(name, 1) for name in names])] for placed in SEEDS]


def test_each_engine_gets_its_part_and_the_order_of_names_does_not_matter() -> None:
    there = places(*NAMES)

    assert all(count == pytest.approx(1000, rel=0.12) for count in Counter(there).values())
    assert places(*reversed(NAMES)) == there


def test_only_what_was_at_the_engine_that_left_moves() -> None:
    before, after = places(*NAMES), places(*NAMES[:2], NAMES[3])

    moved = [was for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {"vllm#3"}
    assert len(moved) == before.count("vllm#3")


def test_weights_are_shares() -> None:
    first = sum(winner(placed, [("a", 9), ("b", 1)]) == 0 for placed in SEEDS)

    assert first / len(SEEDS) == pytest.approx(0.9, abs=0.02)


def test_what_one_key_sends_is_placed_without_regard_to_what_another_sends() -> None:
    one, two = (
        [winner(seed(key, b"%d" % number), [("a", 1), ("b", 1)]) for number in range(2000)] for key in ("one", "two")
    )

    assert sum(a == b for a, b in zip(one, two, strict=True)) / 2000 == pytest.approx(0.5, abs=0.05)


def test_every_process_agrees_whatever_its_own_hashes_are() -> None:
    code = (
        "from app.relay.balancing.rendezvous import seed, winner\n"
        "print([winner(seed('key', b'%d' % n), [('a', 1), ('b', 2), ('c', 1)]) for n in range(50)])"
    )
    here = [winner(seed("key", b"%d" % n), [("a", 1), ("b", 2), ("c", 1)]) for n in range(50)]
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }

    assert said == {f"{here}\n".encode()}
