"""One key's limits over three gateways, asked ten times as much, while PostgreSQL comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest

from app.keys import digest
from tests.rigs.metered_engine import Metered
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import GatewayTeam, running
from tests.rigs.team_load import TeamCall, TeamLoad

SECRET = "mp-limited"
RPM, TPM = 600, 60_000
GATEWAYS = 3
# A second's use, which each gateway may have drawn ahead of need.
SLICES, TOKEN_SLICES = GATEWAYS * RPM / 60, GATEWAYS * TPM / 60
RATE = 10 * RPM / 60
ANSWER = 150  # the engine writes no more tokens, whatever was asked for


@dataclass(frozen=True)
class Trouble:
    """What was done to the store. `kills`: how often; `away_s`: for how long in all."""

    kills: int
    away_s: float


class Troubling(threading.Thread):
    """Kills the store, or has it stand still, at random, and brings it back."""

    def __init__(self, server: PostgresServer, seed: int) -> None:
        super().__init__()
        self._server, self._dice, self._over = server, random.Random(seed), threading.Event()
        self._kills, self._away_s = 0, 0.0

    def run(self) -> None:
        while not self._over.wait(self._dice.uniform(2, 12)):
            self._kills += 1
            began = time.monotonic()
            with self._away():
                self._over.wait(self._dice.choice([0.5, 2.0, 6.0, 15.0]) * self._dice.uniform(0.5, 1.5))
            self._away_s += time.monotonic() - began

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        if self._dice.random() < 0.25:
            self._server.pause()
            yield
            self._server.resume()
        else:
            self._server.kill()
            yield
            self._server.start()

    def end(self) -> Trouble:
        self._over.set()
        self.join(60)
        assert not self.is_alive()
        return Trouble(self._kills, self._away_s)


def most_in_a_minute(requests: Sequence[Metered]) -> tuple[int, int]:
    """The most requests, and the most tokens, that came to the engine within any 60 s."""
    times = [each.at for each in requests]
    sums = [0, *accumulate(each.prompt_tokens + each.completion_tokens for each in requests)]
    begins = [bisect_left(times, at - 60.0) for at in times]
    return (
        max((index + 1 - begin for index, begin in enumerate(begins)), default=0),
        max((sums[index + 1] - sums[begin] for index, begin in enumerate(begins)), default=0),
    )


def too_early(refused: Sequence[TeamCall], requests: Sequence[Metered]) -> list[TeamCall]:
    """The refusals that named a time at which there was not enough, even if nobody else had asked since."""
    times = [each.at for each in requests]
    wrong = []
    for call in refused:
        told_s = call.retry_after_s
        assert told_s is not None
        # Those before that still count at the time that was told.
        still = bisect_right(times, call.ended_at) - bisect_left(times, call.ended_at + told_s - 60.0)
        if still > RPM + SLICES - 1:
            wrong.append(call)
    return wrong


def asked(team: GatewayTeam, seconds: float, dice: random.Random) -> list[TeamCall]:
    """Ten times the load for so long."""
    load = TeamLoad(team.urls)

    async def ask() -> list[TeamCall]:
        began, due = time.perf_counter(), 0.0
        async with asyncio.TaskGroup() as group:
            number = 0
            while (due := due + dice.expovariate(RATE)) < seconds:
                await asyncio.sleep(began + due - time.perf_counter())
                group.create_task(load.ask(number % GATEWAYS, SECRET, max_tokens=dice.choice([60, 100, 400])))
                number += 1
        await load.aclose()
        return load.calls

    return asyncio.run(ask())


def hold(folder: Path, seconds: float, seed: int, record: Callable[[str, object], None]) -> None:
    with PostgresServer() as server:
        limited = {"name": "limited", "sha256": digest(SECRET), "rpm": RPM, "tpm": TPM}
        store = {"url": server.database(), "timeout_s": 1}
        with running(
            folder,
            gateways=GATEWAYS,
            engine_options=("--first", "0.05", "--tokens", str(ANSWER)),
            store=store,
            keys=[limited],
        ) as team:
            troubling = Troubling(server, seed)
            troubling.start()
            try:
                calls = asked(team, seconds, random.Random(seed))
            finally:
                trouble = troubling.end()
            requests = team.requests()
            requests_in_60, tokens_in_60 = most_in_a_minute(requests)
            refused = [call for call in calls if call.status == 429]
            told = [call.retry_after_s or 0.0 for call in refused]
            took_s = max(call.at for call in calls) - calls[0].at
            figures = {
                "asked": f"{len(calls)} in {took_s:.0f} s, over {GATEWAYS} gateways",
                "the store": f"failed {trouble.kills} times, {trouble.away_s:.0f} s in all",
                "let through": f"{len(requests)}; in any 60 s at most {requests_in_60} requests (limit {RPM})"
                f" and {tokens_in_60} tokens (limit {TPM})",
                "refused": f"{len(refused)}, told to wait {min(told, default=0):.1f} to {max(told, default=0):.1f} s",
                "hung": f"{sum(call.is_hung for call in calls)}; the slowest took "
                f"{max(call.ended_at - call.at for call in calls):.2f} s",
            }
            for what, value in figures.items():
                record(what, value)
            assert requests_in_60 <= RPM + SLICES
            assert tokens_in_60 <= TPM + TOKEN_SLICES
            assert [call for call in calls if call.is_hung] == []
            assert {call.status for call in calls} <= {200, 429}
            assert {call.code for call in refused} == {"rate_limit_exceeded"}
            assert all(0 < wait <= 62 for wait in told)
            assert too_early(refused, requests) == []
            assert len(requests) >= 0.5 * RPM * seconds / 60


@pytest.mark.full
def test_no_more_than_the_limit_while_the_store_is_killed_for_five_minutes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    hold(tmp_path, 300, 7, record_property)


def test_no_more_than_the_limit_while_the_store_comes_and_goes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    hold(tmp_path, 40, 3, record_property)
