"""Which of several engines something falls to by a hash alone, the same in every relay and every gateway. Pure.

Rendezvous hashing: each engine draws a number for what is to be placed, and the highest wins. When one leaves, only
what was its own moves, and it comes back with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import lru_cache

_MASK = (1 << 64) - 1


def seed(salt: str, what: bytes) -> int:
    """The number by which something is placed; `salt` keeps those apart who must not find each other's places."""
    return int.from_bytes(hashlib.sha256(b"%b\0%b" % (salt.encode(), what)).digest()[:8], "big")


@lru_cache(maxsize=4096)
def _of_name(name: str) -> int:
    return seed("", name.encode())


def draw(placed: int, name: str, weight: int = 1) -> float:
    """What the engine of that name draws; in the long run each wins as often as its weight says."""
    number = placed ^ _of_name(name)
    # The end of MurmurHash3: every bit of the input reaches every bit of the number.
    number ^= number >> 33
    number = number * 0xFF51AFD7ED558CCD & _MASK
    number ^= number >> 33
    number = number * 0xC4CEB9FE1A85EC53 & _MASK
    number ^= number >> 33
    return math.log((number + 1) / (_MASK + 2)) / weight


def winner(placed: int, engines: Iterable[tuple[str, int]]) -> int:
    """The index of the engine, each given as (name, weight), that what has this seed falls to."""
    draws = [draw(placed, name, weight) for name, weight in engines]
    return draws.index(max(draws))
