"""One entry with `replicas: N` as N backends: NAME, NAME#2 … NAME#N; and one with several `urls` or `addresses`. Pure.

The first keeps the entry's name, so that a change of the number leaves it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from backends.config.base import BackendConfig, ManagedConfig
from backends.remote.config import RemoteConfig


def names(name: str, config: BackendConfig) -> tuple[str, ...]:
    """The backends that this entry stands for."""
    count = len(_each(config))
    return (name, *(f"{name}#{number}" for number in range(2, count + 1)))


def _each(config: BackendConfig) -> Sequence[BackendConfig]:
    managed = config.as_managed()
    if managed is not None:
        return [_alone(managed, number) for number in range(managed.replicas)]
    return config.engines() if isinstance(config, RemoteConfig) else [config]


def expand(backends: Mapping[str, BackendConfig]) -> dict[str, BackendConfig]:
    """Every backend with its own configuration, which does not know of the others.

    Of the devices that are named for all of them each has its own, in their order; or all have the same, where no more
    than one of them uses is named.
    """
    return {
        replica: each
        for name, config in backends.items()
        for replica, each in zip(names(name, config), _each(config), strict=True)
    }


def _alone(config: ManagedConfig, number: int) -> ManagedConfig:
    own = config.model_copy(update={"replicas": 1})
    if config.devices == "auto":
        return own
    each = config.gpus_each() or len(config.devices) // config.replicas
    if len(config.devices) <= each:
        return own
    return own.model_copy(update={"devices": config.devices[number * each : (number + 1) * each]})


def firsts(backends: Mapping[str, BackendConfig]) -> dict[str, str]:
    """Of every replica but the first: the name of the first."""
    return {replica: name for name, config in backends.items() for replica in names(name, config)[1:]}


def weights(shares: Sequence[tuple[int, int]]) -> list[int]:
    """The weight of one replica of each (weight, replicas), so that the entries keep their shares of the requests."""
    scale = math.lcm(*(count for _, count in shares)) if shares else 1
    return [weight * scale // count for weight, count in shares]
