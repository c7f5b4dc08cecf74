"""A relay with two models on two engines that a test writes, and a supervisor that keeps votes and runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from app.supervisor.admin.app import AdminServer, create_admin
from app.supervisor.admin.schemas import RelayProcesses
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.votes import VoteStore
from app.supervisor.state_folder import bind_private
from app.supervisor.team.team import Team
from app.table import Limits, PublicModel, Rules, Target
from backends.endpoint import ModelFacts
from tests.fakes import wire
from tests.fakes.scripted import Json, Scripted, events
from tests.rigs.audit import RememberedTeam
from tests.rigs.raw_client import Reply
from tests.rigs.relay import Rig, backend, running

MESSAGES = [{"role": "user", "content": "Which colour is the sky?"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
Behave = Callable[[str, Json], bytes]


def said(*texts: str, reasoning: str = "", calls: Sequence[Json] = (), finish: str = "stop") -> bytes:
    """A stream with these texts, as vLLM writes it."""
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": reasoning}] if reasoning else []
    deltas += [{"content": text} for text in texts]
    deltas += [{"tool_calls": [each]} for each in calls]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    chunks = [{**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return events(*chunks, {**head, "choices": [], "usage": USAGE})


def saying(*texts: str, tokens: int = 7, **more: Any) -> Behave:
    """An engine that says this whatever it is asked, and counts so many tokens in every prompt."""

    def behave(path: str, _body: Json) -> bytes:
        if path == "/tokenize":
            return wire.whole(200, wire.dumps({"count": tokens, "max_model_len": 64, "tokens": []}))
        return said(*texts, **more)

    return behave


def failing(message: str = "boom", status: int = 500) -> Behave:
    """An engine that fails."""
    return lambda _path, _body: wire.whole(status, wire.dumps({"error": {"message": message}}))


class Kept:
    """What the supervisor keeps, for the admin application."""

    def __init__(self, state: Path) -> None:
        self.votes = Votes(VoteStore(state / "votes.jsonl", time.time), None, time.time)
        self.team = cast("Team", RememberedTeam())
        self.relays = RelayProcesses(pids=(os.getpid(),), connected=(), restarts=0)
        self.runs = Runs(state / "comparisons", None, str)

    def status(self) -> Any:
        """Which processes are its relays."""
        return self


class ComparisonRig:
    """The gateway, and the two engines by the names of their models: `base` and `tuned`."""

    def __init__(self, rig: Rig, base: Scripted, tuned: Scripted) -> None:
        self.rig = rig
        self.base = base
        self.tuned = tuned

    async def compare(self, **fields: Any) -> Reply:
        """POST /v1/compare; without other fields the two models and one question."""
        body = {"models": ["base", "tuned"], "messages": MESSAGES, **fields}
        return await self.rig.ask("/v1/compare", {name: each for name, each in body.items() if each is not None})

    async def change(self, name: str, **changes: Any) -> None:
        """Another row of the table for one public name."""
        models = {**self.rig.table.models, name: msgspec.structs.replace(self.rig.table.models[name], **changes)}
        await self.rig.published(models=models)

    async def context(self, name: str, length: int) -> None:
        """The context that a model's engine reports."""
        row = msgspec.structs.replace(self.rig.table.backends[name], facts={"": ModelFacts(context_length=length)})
        await self.rig.published(backends={**self.rig.table.backends, name: row})

    async def rules(self, name: str, **rules: Any) -> None:
        """A name's defaults and overrides."""
        await self.change(name, rules=Rules(**rules))


@contextlib.asynccontextmanager
async def comparing(
    base: Behave | None = None, tuned: Behave | None = None, limits: Limits | None = None, *, keeps: bool = False
) -> AsyncIterator[ComparisonRig]:
    """It all runs. `keeps`: so does the supervisor's part, which keeps votes and runs."""
    async with Scripted(base or saying("Blue", ".")) as one, Scripted(tuned or saying("Grey", ".")) as two:
        rows = {"base": backend(one.url, "base"), "tuned": backend(two.url, "tuned")}
        names = {name: PublicModel(name, (Target(name, f"{name}-weights"),)) for name in rows}
        async with running(rows, names, limits) as rig, keeping(rig.state) if keeps else contextlib.nullcontext():
            yield ComparisonRig(rig, one, two)


@contextlib.asynccontextmanager
async def keeping(state: Path) -> AsyncIterator[None]:
    """The supervisor's application on its socket."""
    listening = bind_private(state / "control.sock")
    listening.listen()
    server = AdminServer(create_admin(cast("Any", Kept(state)), "0"))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def named_events(reply: Reply) -> list[tuple[str, Json]]:
    """The events of a comparison, each with its name."""
    named = []
    for event in reply.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        if fields:
            named.append((fields["event"], json.loads(fields["data"])))
    return named


def texts(reply: Reply) -> list[str]:
    """The text of each answer of a stream, by its index."""
    written: dict[int, str] = {}
    for name, data in named_events(reply):
        if name == "model":
            written[data["index"]] = written.get(data["index"], "") + data["delta"].get("content", "")
    return [written[index] for index in sorted(written)]
