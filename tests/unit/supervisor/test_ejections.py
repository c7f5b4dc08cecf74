"""Whom the supervisor has requests pass over, when it asks again, and what a trial says of an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from app.ipc import Suspicion
from app.supervisor.ejection import trial
from app.supervisor.ejection.ejections import Ejections
from app.supervisor.ejection.trial import Trial
from app.table import Backend
from backends.endpoint import Endpoint, State
from tests.fakes.engine import FakeEngine
from tests.rigs.relay import backend

TARGETS = tuple((name, "m") for name in "abc")


@dataclass
class Engines:
    """Three replicas, as trials find them; `asked` are the trials."""

    rows: dict[str, Backend] = field(
        default_factory=lambda: {name: backend("http://127.0.0.1:1/v1", name) for name in "abc"}
    )
    trials: dict[str, Trial] = field(default_factory=dict)
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    published: int = 0
    now: float = 1000.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, endpoint: Endpoint, _model: str, operation: str, limit_s: float) -> Trial:
        self.asked.append((endpoint.engine, operation, limit_s))
        self.changed.set()
        return self.trials.get(endpoint.engine, Trial(0.1))

    def publish(self) -> None:
        self.published += 1
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def three() -> AsyncIterator[tuple[Engines, Ejections]]:
    engines = Engines()
    ejections = Ejections(lambda: engines.rows, engines.publish, engines.ask, lambda: engines.now, first_pause_s=0.01)
    yield engines, ejections
    await ejections.aclose()


def suspicion(name: str, reason: str = "failures", generation: int = 1) -> Suspicion:
    siblings = tuple(each for each in TARGETS if each[0] != name)
    return Suspicion(name, "m", generation, reason, "5 requests in a row failed", "chat", siblings)


def out(engines: Engines, ejections: Ejections) -> str:
    return "".join(name for name, row in sorted(ejections.applied(engines.rows).items()) if row.ejected)


async def test_who_fails_is_out_until_a_trial_is_answered() -> None:
    async with three() as (engines, ejections):
        engines.trials["a"] = Trial(0.1, "it answers with status 500")

        ejections.suspect(suspicion("a"))
        assert (out(engines, ejections), engines.published) == ("a", 1)
        assert ejections.applied(engines.rows)["a"].ejected == {"m": "5 requests in a row failed"}
        await engines.until(lambda: len(engines.asked) == 3)
        assert out(engines, ejections) == "a"
        del engines.trials["a"]
        await engines.until(lambda: engines.published == 2)

        assert out(engines, ejections) == ""
        assert {operation for _, operation, _ in engines.asked} == {"chat"}


async def test_the_last_that_serves_and_is_not_out_stays() -> None:
    async with three() as (engines, ejections):
        engines.trials |= {name: Trial(0.1, "it is ill") for name in "abc"}
        for name in "abc":
            ejections.suspect(suspicion(name))

        assert out(engines, ejections) == "ab"


async def test_those_that_do_not_serve_are_nobody_to_pass_over_for() -> None:
    async with three() as (engines, ejections):
        engines.rows |= {name: backend(None, name) for name in "bc"}

        ejections.suspect(suspicion("a"))

        assert out(engines, ejections) == ""


async def test_what_is_said_of_another_start_says_nothing_of_this_one() -> None:
    async with three() as (engines, ejections):
        ejections.suspect(suspicion("a", generation=7))

        assert out(engines, ejections) == ""


async def test_a_new_start_begins_anew() -> None:
    async with three() as (engines, ejections):
        engines.trials["a"] = Trial(0.1, "it is ill")
        ejections.suspect(suspicion("a"))

        engines.rows["a"] = backend("http://127.0.0.1:1/v1", "a", generation=2)

        assert out(engines, ejections) == ""
        await engines.until(lambda: engines.published == 2)


async def test_what_was_said_of_a_start_does_not_keep_what_is_said_of_the_next_one_from_being_heard() -> None:
    engines = Engines()
    ejections = Ejections(lambda: engines.rows, engines.publish, engines.ask, lambda: engines.now, first_pause_s=60.0)
    ejections.suspect(suspicion("a"))
    await asyncio.sleep(0)
    engines.rows["a"] = backend("http://127.0.0.1:1/v1", "a", generation=2)

    ejections.suspect(suspicion("a", generation=2))
    await asyncio.sleep(0)

    assert out(engines, ejections) == "a"
    await ejections.aclose()


async def test_a_new_start_is_a_sibling_beside_which_others_are_passed_over() -> None:
    engines = Engines()
    ejections = Ejections(lambda: engines.rows, engines.publish, engines.ask, lambda: engines.now, first_pause_s=60.0)
    engines.rows["c"] = backend(None, "c")
    ejections.suspect(suspicion("a"))
    engines.rows["a"] = backend("http://127.0.0.1:1/v1", "a", generation=2)

    ejections.suspect(suspicion("b"))

    assert out(engines, ejections) == "b"
    await ejections.aclose()


async def test_where_nobody_is_to_be_passed_over_any_more_nobody_is() -> None:
    engines, is_on = Engines(), [True]
    ejections = Ejections(
        lambda: engines.rows, engines.publish, engines.ask, first_pause_s=60.0, is_on=lambda: is_on[0]
    )
    ejections.suspect(suspicion("a"))
    assert out(engines, ejections) == "a"

    is_on[0] = False

    assert out(engines, ejections) == ""
    assert ejections.models("a") == ()
    ejections.suspect(suspicion("b"))
    assert out(engines, ejections) == ""
    await ejections.aclose()


@pytest.mark.parametrize(("is_full", "limit_s"), [(False, 2.0), (True, 30.0)])
async def test_who_works_on_as_much_as_it_can_is_given_time_for_a_trial(is_full: bool, limit_s: float) -> None:
    engines = Engines(trials={"a": Trial(1.9), "b": Trial(0.1)})
    ejections = Ejections(lambda: engines.rows, engines.publish, engines.ask, is_full=lambda _: is_full)

    ejections.suspect(suspicion("a", "silent"))
    await engines.until(lambda: len(engines.asked) == 2)
    await asyncio.sleep(0)

    assert engines.asked[1] == ("a", "chat", limit_s)
    assert out(engines, ejections) == ("" if is_full else "a")
    await ejections.aclose()


# reason, trial of the suspect, trial of the first sibling → whether it is out
SUSPECTS = {
    "as quick as the other": ("slow", Trial(0.5), Trial(0.1), False),
    "slow": ("slow", Trial(2.0), Trial(0.1), True),
    "both slow": ("slow", Trial(3.0), Trial(2.5), False),
    "silent": ("silent", Trial(5.0, "it did not respond within 5 s"), Trial(0.1), True),
    "busy with a long request": ("silent", Trial(0.4), Trial(0.1), False),
}


@pytest.mark.parametrize("case", SUSPECTS)
async def test_who_only_seems_to_be_ill_is_tried_out_beside_a_sibling(case: str) -> None:
    reason, own, other, is_out = SUSPECTS[case]
    async with three() as (engines, ejections):
        engines.trials |= {"a": own, "b": other}

        ejections.suspect(suspicion("a", reason))
        await engines.until(lambda: [name for name, _, _ in engines.asked][:2] == ["b", "a"])
        await asyncio.sleep(0)

        assert out(engines, ejections) == ("a" if is_out else "")


async def test_where_no_sibling_answers_a_trial_nobody_is_judged_by_it() -> None:
    async with three() as (engines, ejections):
        engines.trials |= {name: Trial(5.0, "it did not respond") for name in "abc"}

        ejections.suspect(suspicion("a", "silent"))
        await engines.until(lambda: len(engines.asked) == 2)
        await asyncio.sleep(0)

        assert out(engines, ejections) == ""
        assert "a" not in [name for name, _, _ in engines.asked]


async def test_who_is_out_again_soon_pauses_twice_as_long() -> None:
    async with three() as (engines, ejections):
        pauses = []
        for pause_between_s in (0.0, 10.0, 10_000.0):
            engines.now += pause_between_s
            before = engines.published
            ejections.suspect(suspicion("a"))
            [shown] = ejections.models("a")
            pauses.append(shown.tried_in_s)
            await engines.until(lambda before=before: engines.published == before + 2)  # type: ignore[misc]

        assert pauses == [0.01, 0.02, 0.01]


async def test_nothing_is_tried_once_the_gateway_ends() -> None:
    async with three() as (engines, ejections):
        ejections.suspect(suspicion("a"))

        await ejections.aclose()

        assert (engines.asked, engines.published) == ([], 1)


# what an engine does with a trial → whether it is well
TRIALS = {
    "ok": True,
    "status_400_openai": True,  # it reads requests
    "status_429_vllm": True,
    "status_500_vllm": False,
    "status_503_vllm": False,
    "never_answers": False,
    "invalid_json": False,
    "reset_after_headers": False,
    "refuse": False,
}


@pytest.mark.parametrize("scenario", TRIALS)
async def test_a_trial_shows_whether_an_engine_is_well(scenario: str) -> None:
    async with FakeEngine() as engine:
        engine.script(default=scenario)
        row = backend(engine.url)
        assert row.endpoint is not None

        seen = await trial.ask(row.endpoint, "fake", "chat", 0.5)

        assert (seen.failure is None) is TRIALS[scenario], seen


PATHS = {"chat": "/v1/chat/completions", "text_completion": "/v1/completions", "embeddings": "/v1/embeddings"}


@pytest.mark.parametrize("operation", [*PATHS, "rerank"])
async def test_a_trial_asks_for_what_clients_ask_for(operation: str) -> None:
    async with FakeEngine() as engine:
        row = backend(engine.url)
        assert row.endpoint is not None
        assert row.state is State.READY

        seen = await trial.ask(row.endpoint, "fake", operation, 5.0)

        assert seen.failure is None
        assert [request.path for request in engine.requests] == [PATHS.get(operation, "/v1/models")]
