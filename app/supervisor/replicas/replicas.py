"""Turns an entry with `replicas: N`, or with N `urls` or `addresses`, into N backends: NAME, NAME#2 … NAME#N. Pure.

The first keeps the entry's name, so that a change of N leaves it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from backends.config.base import BackendConfig, ManagedConfig


def names(name: str, config: BackendConfig) -> tuple[str, ...]:
    """The names of the backends that this entry stands for, the first one first."""
    count = len(_each(config))
    return (name, *(f"{name}#{number}" for number in range(2, count + 1)))


def _each(config: BackendConfig) -> Sequence[BackendConfig]:
    managed = config.as_managed()
    if managed is not None:
        return [_replica(managed, number) for number in range(managed.replicas)]
    return config.engines()


def expand(backends: Mapping[str, BackendConfig]) -> dict[str, BackendConfig]:
    """Every backend with a configuration of its own, without `replicas`.

    The named devices are dealt out to the replicas in their order; when no more are named than one replica uses, all
    replicas share them.
    """
    return {
        replica: each
        for name, config in backends.items()
        for replica, each in zip(names(name, config), _each(config), strict=True)
    }


def _replica(config: ManagedConfig, number: int) -> ManagedConfig:
    own = config.model_copy(update={"replicas": 1})
    if config.devices == "auto":
        return own
    each = config.gpus_each() or len(config.devices) // config.replicas
    if len(config.devices) <= each:
        return own
    return own.model_copy(update={"devices": config.devices[number * each : (number + 1) * each]})


def firsts(backends: Mapping[str, BackendConfig]) -> dict[str, str]:
    """For every replica but the first: the name of the first."""
    return {replica: name for name, config in backends.items() for replica in names(name, config)[1:]}


def weights(shares: Sequence[tuple[int, int]]) -> list[int]:
    """For entries given as (weight, number of replicas): the weight of one replica of each.

    With these, the entries keep their shares of the requests.
    """
    scale = math.lcm(*(count for _, count in shares)) if shares else 1
    return [weight * scale // count for weight, count in shares]
