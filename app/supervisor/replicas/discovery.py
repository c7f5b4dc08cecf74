"""Follows the host names of remote engines: each address of such a name is an engine of its own.

An address keeps its place among the others for as long as the name has it, so its engine is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog

from app.config.cross_checks import MOST_ADDRESSES
from backends.config.base import BackendConfig

FOLLOW_S: Final = 10.0  # the system's resolver does not tell how long an address is valid

LookUp = Callable[[str], Awaitable[Collection[str]]]

log = structlog.get_logger()


async def look_up(host: str) -> Collection[str]:
    """The addresses that the system's resolver has for a name; OSError when it has none."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(address[0]).partition("%")[0] for _, _, _, _, address in entries}


def arranged(before: Sequence[str], current: Collection[str]) -> tuple[str, ...]:
    """The current addresses in their places, at most MOST_ADDRESSES: one that was there `before` keeps its place, a new
    one takes a free place. Pure.
    """
    places = [address if address in current else None for address in before]
    new = sorted(set(current) - set(before), key=lambda address: (":" in address, ipaddress.ip_address(address)))
    for at, address in enumerate(places):
        if address is None and new:
            places[at] = new.pop(0)
    left = [address for address in places if address is not None]
    moved = [address for address in places[len(left) :] if address is not None]
    kept = [address if address is not None else moved.pop() for address in places[: len(left)]]
    return (*kept, *new)[:MOST_ADDRESSES]


class Discovery:
    """Looks the names up every `every_s` seconds and keeps their addresses.

    `look_up` raises OSError for a name that has no address; a name that fails keeps the addresses it had.
    """

    def __init__(self, look_up: LookUp = look_up, every_s: float = FOLLOW_S) -> None:
        self._look_up = look_up
        self._every_s = every_s
        self._hosts: frozenset[str] = frozenset()
        self._addresses_of: dict[str, tuple[str, ...]] = {}
        self._failing: set[str] = set()
        self._wake = asyncio.Event()

    def follow(self, backends: Mapping[str, BackendConfig]) -> None:
        """Follow the names in these backends from now on."""
        self._hosts = frozenset(host for config in backends.values() if (host := config.followed_host()) is not None)
        self._addresses_of = {host: addresses for host, addresses in self._addresses_of.items() if host in self._hosts}
        self._wake.set()

    def applied(self, backends: Mapping[str, BackendConfig]) -> dict[str, BackendConfig]:
        """The same backends with the addresses that are known; one without is reached by its name."""
        return {name: self._applied(config) for name, config in backends.items()}

    def _applied(self, config: BackendConfig) -> BackendConfig:
        addresses = self._addresses_of.get(config.followed_host() or "")
        return config.model_copy(update={"addresses": addresses}) if addresses else config

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Look the names up again and again and call `changed` after every change, until cancelled."""
        while True:
            self._wake.clear()
            if await self._look():
                await changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s if self._hosts else None):
                    await self._wake.wait()

    async def _look(self) -> bool:
        """Look every name up. Returns whether an address has changed."""
        hosts = sorted(self._hosts)
        results = await asyncio.gather(*(self._addresses(host) for host in hosts))
        updates = {
            host: arranged(self._addresses_of.get(host, ()), addresses)
            for host, addresses in zip(hosts, results, strict=True)
            if addresses and host in self._hosts
        }
        has_changed = any(self._addresses_of.get(host) != addresses for host, addresses in updates.items())
        for host, addresses in updates.items():
            if self._addresses_of.get(host) != addresses:
                log.info("engines found", host=host, addresses=addresses)
        self._addresses_of |= updates
        return has_changed

    async def _addresses(self, host: str) -> Collection[str]:
        try:
            async with asyncio.timeout(self._every_s):
                addresses = await self._look_up(host)
        except (OSError, UnicodeError, TimeoutError) as exc:
            if host not in self._failing:
                self._failing.add(host)
                log.warning("name not found; its engines stay as they are", host=host, reason=str(exc))
            return ()
        self._failing.discard(host)
        return addresses
