"""Asks several models the same, at the same time, and brings the answers together."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from app.dialects import json_members
from app.errors import Problem
from app.ipc import SealedComparison
from app.relay.compare import fitness
from app.relay.compare.answer import ComparedAnswer, event
from app.relay.compare.ask import ComparisonAsk, read
from app.relay.compare.comparison_events import ComparisonEvents
from app.relay.compare.fitness import Room
from app.relay.compare.sampling import MAX_TOKENS, SampledModel, SharedSampling, shared
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.http.response import PartialResponse
from app.relay.planning.plan import OPERATIONS, RequestPlan, counting, plan
from app.relay.proxy.dispatch import Dispatcher
from app.table import Key, Table

_CHAT: Final = OPERATIONS["/v1/chat/completions"]
_MAX_SEED: Final = (1 << 31) - 1  # what every engine takes
T = TypeVar("T")


class _Setup(NamedTuple):
    """What is asked, of whom, and with what. `order`: the places of `plans` in the order of the answers."""

    id: str
    created: int
    ask: ComparisonAsk
    plans: Sequence[RequestPlan]
    order: Sequence[int]
    sampling: SharedSampling
    warnings: list[str]


class Comparer:
    """Runs comparisons. `seal` keeps what a blind one has hidden and returns whether a vote may open it; `refused` is
    told the code of each that is refused once its response has begun; `dice`: whole numbers from 0 up to the given one,
    for seeds and for the order of blind answers.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        intake: BodyIntake,
        seal: Callable[[Request, SealedComparison], Awaitable[bool]],
        refused: Callable[[str], None],
        dice: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._dispatcher = dispatcher
        self._intake = intake
        self._seal = seal
        self._refused = refused
        self._dice = dice

    async def run(self, request: Request) -> None:
        """Answer one request. Problem where the comparison is refused before anything was written."""
        request.check_type()
        body = await self._intake.read(request)
        ask = await self._intake.work(len(body), partial(read, body, request.table, request.key))
        self._intake.admit(request, len(ask.chat) * len(ask.names))
        plans = [
            await self._intake.work(len(ask.chat), partial(_plan, ask, name, request.table, request.key))
            for name in ask.names
        ]
        events = ComparisonEvents(request, request.table.limits.hold_s) if ask.is_stream else None
        try:
            setup = await self._set_up(request, ask, plans)
            await self._answer(request, setup, events)
        except Problem as exc:
            if events is None or not events.has_begun:
                raise
            self._refused(exc.code or "other")
            events.refuse(exc)
        except asyncio.CancelledError:
            if not request.response.is_gone and request.response.is_started:
                request.response.cut()  # the time to drain is over
            raise
        finally:
            if events is not None:
                events.close()

    # -- before anything is asked

    async def _set_up(self, request: Request, ask: ComparisonAsk, plans: Sequence[RequestPlan]) -> _Setup:
        """Problem (409) where the models are not comparable and it is not forced."""
        table = request.table
        rooms = await self._rooms(request, ask, plans)
        left = fitness.most_tokens(rooms)
        contexts = [room.context for room in rooms if room.context is not None]
        longest = max(1, min(MAX_TOKENS, left if left is not None else min(contexts, default=2 * MAX_TOKENS) // 2))
        models = [SampledModel(p.resolved.name, p.resolved.model.rules, _is_local(table, p)) for p in plans]
        sampling = shared(ask.given, models, self._dice(_MAX_SEED), longest)
        reasons = [
            *fitness.certificate_reasons([each.resolved for each in plans]),
            *fitness.context_reasons(rooms, ask.given.get("max_tokens")),
            *sampling.reasons,
        ]
        if reasons and not ask.is_forced:
            raise fitness.refusal(reasons)
        order = list(range(len(plans)))
        if ask.is_blind:
            for last in range(len(order) - 1, 0, -1):
                other = self._dice(last + 1)
                order[last], order[other] = order[other], order[last]
        number = f"cmp-{secrets.token_hex(16)}"
        return _Setup(number, int(time.time()), ask, plans, order, sampling, [*reasons, *sampling.notes])

    async def _rooms(self, request: Request, ask: ComparisonAsk, plans: Sequence[RequestPlan]) -> list[Room]:
        """What each context takes, and of it the prompt where it may matter."""
        rooms = [Room(each.resolved.name, fitness.context_of(request.table, each.resolved)) for each in plans]
        messages = json_members.decode(ask.chat)["messages"]
        wanted = ask.given.get("max_tokens", MAX_TOKENS)
        size = len(memoryview(messages))
        if fitness.surely_fits(rooms, size, bytes(messages).count(b'"role"'), wanted):
            return rooms
        counts = await _together([self._count(request, number, each) for number, each in enumerate(plans)])
        return [room._replace(prompt=count) for room, count in zip(rooms, counts, strict=True)]

    async def _count(self, request: Request, number: int, plan: RequestPlan) -> int | None:
        """The tokens of the prompt as this model reads it; None where its engine does not tell."""
        pieces: list[bytes] = []
        response = request.response.part(time.perf_counter(), pieces.append)
        await self._dispatcher.serve(request.part(number, response, None), counting(plan), is_limited=False)
        if response.status != 200:
            return None
        tokens = msgspec.json.decode(b"".join(pieces)).get("input_tokens")
        return tokens if isinstance(tokens, int) else None

    # -- the answers

    async def _answer(self, request: Request, setup: _Setup, events: ComparisonEvents | None) -> None:
        is_blind = setup.ask.is_blind
        answers = [
            ComparedAnswer(
                index,
                setup.plans[place].resolved.name,
                request,
                events.write if events is not None else _nowhere,
                is_shown=events is not None and not is_blind,
                max_bytes=request.table.limits.max_answer_bytes,
            )
            for index, place in enumerate(setup.order)
        ]
        if events is not None:
            events.write(event("start", **_head(setup)))
            parts = [each.response for each in answers]
            request.response.when_full(partial(_pause, parts), partial(_resume, parts))
        await _together(
            [
                self._ask(each, _sampled(setup.plans[place], setup.sampling.rules[place]))
                for each, place in zip(answers, setup.order, strict=True)
            ]
        )
        answered = sum(each.is_whole for each in answers)
        is_votable = (
            is_blind and answered == len(answers) and await self._seal(request, _sealed(request, setup, answers))
        )
        end = {"answered": answered, "failed": len(answers) - answered, "votable": is_votable}
        if events is None:
            entries = [each.blind_entry() if is_blind else each.entry() for each in answers]
            request.answer_json({**_head(setup), "answers": entries, **end})
            return
        hidden = b"".join([each.blind_events() for each in answers]) if is_blind else b""
        events.write(hidden + event("end", id=setup.id, **end))
        events.finish()

    async def _ask(self, answer: ComparedAnswer, plan: RequestPlan) -> None:
        """One model's answer; a key whose limits are used up gets it from none, and the others go on."""
        try:
            await self._dispatcher.serve(answer.request, plan)
        except Problem as exc:
            self._refused(exc.code or "other")
            answer.request.refuse(exc)


def _plan(ask: ComparisonAsk, name: str, table: Table, key: Key | None) -> RequestPlan:
    """One model's request. No other model answers for it."""
    made = plan(_CHAT, ask.body(name), table, key)
    alone = msgspec.structs.replace(made.resolved.model, fallbacks=(), fallbacks_for_all=())
    return msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, model=alone))


def _sampled(made: RequestPlan, rules: Any) -> RequestPlan:
    model = msgspec.structs.replace(made.resolved.model, rules=rules)
    return msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, model=model))


def _is_local(table: Table, made: RequestPlan) -> bool:
    rows = [table.backends.get(target.backend) for target in made.resolved.model.targets]
    return all(row is not None and row.profile.is_local for row in rows)


def _head(setup: _Setup) -> dict[str, Any]:
    """What is told before the answers."""
    ask = setup.ask
    is_open = not ask.is_blind
    return {
        "id": setup.id,
        "object": "compare",
        "created": setup.created,
        "pair": ask.pair if is_open else None,
        "words": list(ask.words) if is_open and ask.words is not None else None,
        "models": list(ask.names) if is_open else None,
        "count": len(ask.names),
        "blind": ask.is_blind,
        "settings": setup.sampling.settings,
        "filled": list(setup.sampling.filled),
        "warnings": setup.warnings if is_open else [],
    }


def _sealed(request: Request, setup: _Setup, answers: Sequence[ComparedAnswer]) -> SealedComparison:
    return SealedComparison(
        id=setup.id,
        key=request.key.name if request.key is not None else None,
        pair=setup.ask.pair,
        models=[each.name for each in answers],
        answers=[{"index": each.index, "model": each.name, **each.figures()} for each in answers],
    )


def _pause(parts: Sequence[PartialResponse]) -> None:
    """The client reads slower than the engines write."""
    for part in parts:
        part.full()


def _resume(parts: Sequence[PartialResponse]) -> None:
    for part in parts:
        part.drained()


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What each returns. None goes on once this is cancelled or one of them breaks."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _nowhere(_data: bytes) -> None:
    """There is no stream."""
