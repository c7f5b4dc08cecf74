"""`/metrics/engines`: what the engines themselves show to Prometheus, with the backend's name on every series."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from app.supervisor.metrics.engines.text_format import BadPage, MetricFamily, escaped, joined, parse, write
from backends.endpoint import Endpoint
from backends.errors import BackendError
from backends.http.probe_client import ProbeClient

log = structlog.get_logger()

ANSWER_S: Final = 2.0  # of the 10 s that Prometheus waits by default
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_BYTES: Final = 32 * 1024 * 1024  # of all engines' pages together
LABEL: Final = "backend"
UP: Final = "modelport_engine_scrape_up"
SECONDS: Final = "modelport_engine_scrape_seconds"
_NONE: Final = (404, 405, 501)  # a server that shows no metrics, or is not set to


@dataclass(frozen=True, slots=True)
class EngineSource:
    """A serving engine that shows metrics, and where."""

    backend: str
    url: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class EngineScrape:
    """What one engine showed. `families` None: nothing that can be used, `reason` says why."""

    seconds: float
    families: Mapping[str, MetricFamily] | None = None
    reason: str | None = None
    size_bytes: int = 0


class EnginesPage:
    """Asks all engines at the same time, each for ANSWER_S at most. What one of them shows, or does not, changes
    nothing for the others.
    """

    def __init__(self, sources: Callable[[], Sequence[EngineSource]], answer_s: float = ANSWER_S) -> None:
        self._sources = sources
        self._answer_s = answer_s
        self._failing: dict[str, str] = {}

    async def render(self) -> bytes:
        """The page as it is now, in Prometheus's text format."""
        sources = self._sources()
        asked = await asyncio.gather(*[self._scrape(source) for source in sources])
        scrapes = {source.backend: scrape for source, scrape in zip(sources, asked, strict=True) if scrape is not None}
        self._report(scrapes)
        return await asyncio.to_thread(page, scrapes)

    async def _scrape(self, source: EngineSource) -> EngineScrape | None:
        """None for an engine that turns out to show no metrics."""
        client, endpoint, began = ProbeClient(source.backend), source.endpoint, time.perf_counter()
        headers = {**endpoint.headers, "accept": "text/plain; version=0.0.4"}
        try:
            reply = await client.ask(source.url, headers, timeout_s=self._answer_s, dial=endpoint.dial)
        except BackendError as exc:
            return EngineScrape(time.perf_counter() - began, reason=exc.message)
        took_s = time.perf_counter() - began
        if reply.status in _NONE:
            return None
        if reply.status != 200:
            return EngineScrape(took_s, reason=f"it answers with status {reply.status}")
        if len(reply.body) > MAX_PAGE_BYTES:
            return EngineScrape(took_s, reason=f"its page has more than {MAX_PAGE_BYTES} bytes")
        try:
            families = await asyncio.to_thread(parse, reply.body)
        except BadPage as exc:
            return EngineScrape(took_s, reason=f"its page cannot be read: {exc}")
        return EngineScrape(took_s, families, size_bytes=len(reply.body))

    def _report(self, scrapes: Mapping[str, EngineScrape]) -> None:
        """Log what has changed since the last time."""
        failing = {name: scrape.reason for name, scrape in scrapes.items() if scrape.reason is not None}
        for name, reason in failing.items():
            if name not in self._failing:
                log.warning("an engine's metrics are not readable", backend=name, reason=reason)
        for name in self._failing:
            if name not in failing and name in scrapes:
                log.info("an engine's metrics are readable again", backend=name)
        self._failing = failing


def page(scrapes: Mapping[str, EngineScrape]) -> bytes:
    """The page of these scrapes. Beyond MAX_BYTES engines are left out as if they had not answered."""
    usable: dict[str, Mapping[str, MetricFamily]] = {}
    left = MAX_BYTES
    for name, scrape in scrapes.items():
        if scrape.families is not None and scrape.size_bytes <= left:
            left -= scrape.size_bytes
            usable[name] = scrape.families
    up = MetricFamily(UP, "gauge", "1 where an engine's own metrics were read, else 0.")
    seconds = MetricFamily(SECONDS, "gauge", "How long an engine took to show its metrics.")
    for name, scrape in scrapes.items():
        label = ((LABEL, escaped(name)),)
        up.samples.append((UP, label, "1" if name in usable else "0"))
        seconds.samples.append((SECONDS, label, repr(round(scrape.seconds, 6))))
    theirs = [family for family in joined(usable, LABEL) if family.name not in (UP, SECONDS)]
    return write([up, seconds, *theirs])
