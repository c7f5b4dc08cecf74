"""Follows the names of engines that somebody else runs: each address of such a name is an engine of its own.

An address keeps its place among the others for as long as the name has it, so the engines there are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import structlog

from app.config.cross_checks import MOST_ADDRESSES
from backends.config.base import BackendConfig
from backends.remote.config import RemoteConfig

FOLLOW_S: Final = 10.0  # no resolver of the system tells how long an answer holds

LookUp = Callable[[str], Awaitable[Collection[str]]]

log = structlog.get_logger()


async def look_up(host: str) -> Collection[str]:
    """The addresses that the system has for a name; OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(address[0]).partition("%")[0] for _, _, _, _, address in found}


def arranged(before: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
    """The addresses in their places: who stays keeps its own, who is new takes one that is free."""
    places = [address if address in found else None for address in before]
    new = sorted(set(found) - set(before), key=lambda address: (":" in address, ipaddress.ip_address(address)))
    for at, address in enumerate(places):
        if address is None and new:
            places[at] = new.pop(0)
    left = [address for address in places if address is not None]
    moved = [address for address in places[len(left) :] if address is not None]
    kept = [address if address is not None else moved.pop() for address in places[: len(left)]]
    return (*kept, *new)[:MOST_ADDRESSES]


class Discovery:
    """What the names have been found to be. `look_up` raises OSError for a name that has no address."""

    def __init__(self, look_up: LookUp = look_up, every_s: float = FOLLOW_S) -> None:
        self._look_up = look_up
        self._every_s = every_s
        self._hosts: frozenset[str] = frozenset()
        self._found: dict[str, tuple[str, ...]] = {}
        self._failing: set[str] = set()
        self._poke = asyncio.Event()

    def follow(self, backends: Mapping[str, BackendConfig]) -> None:
        """From now on the names in these."""
        self._hosts = frozenset(host for config in backends.values() if (host := _host(config)) is not None)
        self._found = {host: addresses for host, addresses in self._found.items() if host in self._hosts}
        self._poke.set()

    def applied(self, backends: Mapping[str, BackendConfig]) -> dict[str, BackendConfig]:
        """The same with the addresses that are known; what is not known yet is reached by its name."""
        return {name: self._applied(config) for name, config in backends.items()}

    def _applied(self, config: BackendConfig) -> BackendConfig:
        addresses = self._found.get(_host(config) or "")
        return config.model_copy(update={"addresses": addresses}) if addresses else config

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Look again and again, and tell of every change; until it is cancelled."""
        while True:
            self._poke.clear()
            if await self._look():
                await changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), self._every_s if self._hosts else None)

    async def _look(self) -> bool:
        """Look every name up; whether something is different. A name that fails keeps what it had."""
        hosts = sorted(self._hosts)
        found = await asyncio.gather(*(self._addresses(host) for host in hosts))
        news = {
            host: arranged(self._found.get(host, ()), addresses)
            for host, addresses in zip(hosts, found, strict=True)
            if addresses and host in self._hosts
        }
        is_news = any(self._found.get(host) != addresses for host, addresses in news.items())
        for host, addresses in news.items():
            if self._found.get(host) != addresses:
                log.info("engines found", host=host, addresses=addresses)
        self._found |= news
        return is_news

    async def _addresses(self, host: str) -> Collection[str]:
        try:
            async with asyncio.timeout(self._every_s):
                found = await self._look_up(host)
        except (OSError, UnicodeError, TimeoutError) as exc:
            if host not in self._failing:
                self._failing.add(host)
                log.warning("name not found; its engines stay as they are", host=host, reason=str(exc))
            return ()
        self._failing.discard(host)
        return found


def _host(config: BackendConfig) -> str | None:
    """The name that is to be followed, if one is."""
    if not isinstance(config, RemoteConfig) or config.addresses != "dns" or config.url is None:
        return None
    return urlsplit(config.url).hostname
