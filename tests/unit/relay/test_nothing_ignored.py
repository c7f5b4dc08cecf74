"""Each parameter of the pinned SDKs, on each route, to each kind of engine, over a real relay.

A request with the parameter is compared with one without it: it is refused, it is named, the engine is asked otherwise,
or the client is answered otherwise. There is no fifth way.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest

from app.dialects.parameters.table import fates
from backends.endpoint import ModelFacts, UsageMode
from backends.kinds import PROFILES
from tests import ROOT
from tests.fakes.ollama import FakeOllama
from tests.fakes.ollama_models import Model
from tests.fakes.scripted import Json, Scripted, whole
from tests.rigs.ollama import gateway
from tests.rigs.raw_client import Reply
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.specifications import NEEDED, OPTION_VALUES, OPTIONS, PARAMETERS, VALUES, beside
from tests.rigs.transcripts import transcripts
from tests.unit.dialects.test_judge import ROUTES, behave

KINDS = ["vllm", "llama_cpp", "remote", "ollama"]
HEADERS = {"x-modelport-adjusted-params": "adjusted", "x-modelport-dropped-params": "dropped"}
PAGE = ROOT / "docs" / "parameters.md"
# What is new in each answer.
_FRESH = re.compile(
    rb'(?:chatcmpl|cmpl|msg|resp|rs|call)[-_]\w+|"\w*(?:created|duration|_at)\w*": ?(?:"[^"]*"|\d+)|data: *\n'
)
# No engine of that kind counts, whatever is asked.
CANNOT_COUNT = {"remote", "ollama"}
COUNT = "/v1/messages/count_tokens"


def as_engine(path: str, body: Json) -> bytes:
    """As vLLM and llama.cpp, as far as a parameter shows."""
    if path.endswith("tokenize"):
        return whole({"tokens": [1, 2], "count": 2, "max_model_len": 99})
    return whole({"prompt": "x"}) if path.endswith("apply-template") else behave(path, body)


class Ground(NamedTuple):
    """A gateway before one kind of engine, and what that was asked."""

    rig: Rig
    model: str
    asked: Callable[[], list[Any]]


@contextlib.asynccontextmanager
async def ground(kind: str) -> AsyncIterator[Ground]:
    if kind == "ollama":
        async with FakeOllama() as daemon:
            template = transcripts()["200_create_tools_model"].asked["template"]
            able = ("completion", "tools", "thinking", "vision", "insert", "embedding")
            daemon.store.add(Model("able", {"num_ctx": 512}, able, template=template))
            async with gateway(daemon) as rig:
                yield Ground(rig, "able", lambda: [one.body for one in daemon.requests if one.path != "/api/show"])
        return
    async with Scripted(as_engine) as engine:
        row = backend(engine.url, kind=kind, usage=UsageMode.TRY)
        async with running({"engine": row}, models("m")) as rig:
            yield Ground(rig, "m", lambda: engine.bodies)


def named(reply: Reply, name: str) -> str:
    """What the headers say of it, or of what is inside it; empty for nothing."""
    for header, word in HEADERS.items():
        names = reply.headers.get(header, "").split(", ")
        if name in names:
            return word
        if any(each.startswith(f"{name}.") for each in names):
            return f"{word} in part"
    return ""


async def heeded(on: Ground, route: str, name: str, without: Json, fields: Json) -> str:
    """What becomes of it, as far as the client can know; empty where it cannot."""
    before = len(on.asked())
    plain = await on.rig.ask(route, without)
    between = len(on.asked())
    reply = await on.rig.ask(route, {**without, **fields})
    if reply.status == 400:
        return "refused"
    assert reply.status == plain.status == 200, (name, plain.body, reply.body)
    if named(reply, name):
        return named(reply, name)
    is_told = on.asked()[before:between] != on.asked()[between:]
    return "done" if is_told or _FRESH.sub(b"", plain.body) != _FRESH.sub(b"", reply.body) else ""


def asked_on(route: str, kind: str) -> list[tuple[str, Json]]:
    if route == COUNT and kind in CANNOT_COUNT:
        return []
    asked: list[tuple[str, Json]] = [
        (name, {name: VALUES[route][name]}) for name in sorted(PARAMETERS[route] - {"model", "options"})
    ]
    if "options" in PARAMETERS[route]:
        asked += [(name, {"options": {name: OPTION_VALUES[name]}}) for name in sorted(OPTIONS)]
    return asked


@pytest.mark.parametrize("route", NEEDED)
@pytest.mark.parametrize("kind", KINDS)
async def test_no_parameter_is_ignored_without_a_word(kind: str, route: str) -> None:
    async with ground(kind) as on:
        by_name = {
            name: await heeded(on, route, name, {**beside(route, name), "model": on.model}, fields)
            for name, fields in asked_on(route, kind)
        }

    assert [name for name, how in by_name.items() if not how] == []
    if route not in ROUTES:
        assert {name: row[kind] for name, row in told_of(route).items() if name in by_name} == by_name
    elif kind == "ollama":  # the others are looked at more closely in test_judge.py
        rows = fates(ROUTES[route], PROFILES[kind])
        assert {name: str(rows[name].act) for name in by_name} == by_name


def told_of(route: str) -> dict[str, dict[str, str]]:
    """The table of the page for a route of another dialect: parameter → kind of engine → what becomes of it."""
    section = PAGE.read_text().partition(f"## `POST {route}`\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {names.strip("`"): dict(zip(KINDS, cells, strict=True)) for names, *cells in rows}


def test_every_parameter_of_the_specifications_has_a_value_here() -> None:
    for route, names in PARAMETERS.items():
        assert names - VALUES[route].keys() == set(), route
    assert set(OPTION_VALUES) - {"min_p"} == OPTIONS


@pytest.mark.parametrize(
    ("route", "asked", "header", "name"),
    [
        ("/v1/messages", {"stop_sequences": [""]}, 0, "stop_sequences"),
        ("/v1/responses", {"max_output_tokens": 100_000}, 0, "max_output_tokens"),
        ("/v1/responses", {"reasoning": {"mode": "deep"}, "text": {"other": 1}}, 1, "reasoning.mode, text.other"),
        ("/v1/responses", {"stream_options": {"include_obfuscation": False}}, 1, ""),
        ("/v1/messages", {"output_config": {"task_budget": 5}}, 1, "output_config.task_budget"),
        ("/v1/messages", {"thinking": {"type": "adaptive", "display": "omitted"}}, 1, "thinking.display"),
        ("/api/chat", {"options": {"num_predict": 100_000}}, 0, "num_predict"),
        ("/api/generate", {"raw": True, "logprobs": True, "top_logprobs": 2}, 1, "logprobs, top_logprobs"),
        ("/api/chat", {"options": {"stop": ""}}, 0, "stop"),
    ],
)
async def test_what_is_named_has_the_clients_own_name(route: str, asked: Json, header: int, name: str) -> None:
    async with Scripted(as_engine) as engine:
        row = backend(engine.url, facts={"m": ModelFacts(context_length=512)})
        async with running({"engine": row}, models("m")) as rig:
            reply = await rig.ask(route, {"model": "m", **NEEDED[route], **asked})

    assert reply.status == 200, reply.body
    assert reply.headers.get([*HEADERS][header], "") == name


async def test_more_names_than_a_header_holds_are_counted() -> None:
    async with ground("ollama") as on:
        many = {f"f{at:02}": 1 for at in range(40)}
        reply = await on.rig.ask("/v1/chat/completions", {"model": "able", **NEEDED["/v1/chat/completions"], **many})

    assert reply.headers["x-modelport-dropped-params"] == ", ".join([*[*many][:32], "and 8 more"])


def test_what_is_fresh_in_each_answer_is_not_compared() -> None:
    one = json.dumps({"id": "chatcmpl-1", "created": 5, "x": 1}).encode()
    other = json.dumps({"id": "chatcmpl-2", "created": 6, "x": 1}).encode()

    assert _FRESH.sub(b"", one) == _FRESH.sub(b"", other) != _FRESH.sub(b"", other.replace(b"1}", b"2}"))
