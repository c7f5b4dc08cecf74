"""One entry with `replicas: N` as N backends: NAME, NAME#2 … NAME#N. Pure.

The first keeps the entry's name, so that a change of the number leaves it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from backends.config import BackendConfig


def names(name: str, config: BackendConfig) -> tuple[str, ...]:
    """The backends that this entry stands for."""
    managed = config.as_managed()
    count = managed.replicas if managed is not None else 1
    return (name, *(f"{name}#{number}" for number in range(2, count + 1)))


def expand(backends: Mapping[str, BackendConfig]) -> dict[str, BackendConfig]:
    """Every backend with its own configuration, which does not know of the others."""
    return {
        replica: config.model_copy(update={"replicas": 1}) if config.as_managed() is not None else config
        for name, config in backends.items()
        for replica in names(name, config)
    }


def firsts(backends: Mapping[str, BackendConfig]) -> dict[str, str]:
    """Of every replica but the first: the name of the first."""
    return {replica: name for name, config in backends.items() for replica in names(name, config)[1:]}


def weights(shares: Sequence[tuple[int, int]]) -> list[int]:
    """The weight of one replica of each (weight, replicas), so that the entries keep their shares of the requests."""
    scale = math.lcm(*(count for _, count in shares)) if shares else 1
    return [weight * scale // count for weight, count in shares]
