"""Ollama's clients on Ollama's daemon: the request becomes OpenAI's, and the response Ollama's again. What a daemon was
recorded returning from its own API is what comes through the gateway, but for the differences that are intended."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.ollama import BUSY, FakeOllama, Fault
from tests.fakes.ollama_models import Model
from tests.rigs.ollama import gateway
from tests.rigs.raw_client import Reply, ask
from tests.rigs.transcripts import Transcript, transcripts

ROUTES = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
ASKED = [one for one in transcripts().values() if one.path in ROUTES and one.method == "POST"]

# What is answered otherwise than by the daemon, and why; docs/dialects.md says the same. Name → the status.
DIFFERENT = {
    "005": 501,  # no client unloads a model
    "219": 501,
    "261": 501,
    "031": 200,  # num_ctx is nobody's to choose: whatever it says, it is named
    "050": 400,  # the gateway's status for what an engine cannot do
    "051": 400,
    "180": 400,  # a prompt that is too long is not cut without a word
    "183": 400,
    "192": 404,  # a name that cannot be is a name that is not there
}
# Of these the daemon's sampling or its context was another: the text may differ, its shape not.
CHANCE = re.compile(r"032|170|180|183|186|230|231|260|262|287|289|290")


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        exchanges = transcripts()
        store = running.store
        store.add(Model("mymodel", {**store.find("smollm2:135m").parameters, "temperature": 0}))
        template = exchanges["200_create_tools_model"].asked["template"]
        store.add(Model("toolm", {"temperature": 0.7}, ("completion", "tools"), template=template))
        yield running


async def replayed(daemon: FakeOllama, one: Transcript, **config: Any) -> Reply:
    """The same bytes, to the gateway."""
    if one.name.startswith("230"):
        daemon.script(Fault("line", after=3))
    if one.status == 503:
        daemon.script(Fault("line", status=503, text=BUSY))
    async with gateway(daemon, **config) as rig:
        return await ask(rig.url, "POST", one.path, one.body.encode(), {"host": "localhost", **one.headers})


def meaning(objects: list[Any]) -> dict[str, Any]:
    """What a client makes of an answer: the text, the calls, the reason, the counts."""
    calls = [call["function"] for each in objects for call in each.get("message", {}).get("tool_calls", ())]
    last = objects[-1]
    return {
        "model": last.get("model"),
        "text": "".join(each.get("response") or each.get("message", {}).get("content", "") for each in objects),
        "calls": [(call["name"], call["arguments"]) for call in calls],
        "ended": (last.get("done"), last.get("done_reason")),
        "counts": (last.get("prompt_eval_count"), last.get("eval_count")),
        "logprobs": [each["token"] for one in objects for each in one.get("logprobs") or ()],
    }


def objects_of(reply: Reply) -> list[Any]:
    return [json.loads(line) for line in reply.body.splitlines()]


@pytest.mark.parametrize("one", ASKED, ids=lambda one: one.name)
async def test_a_recorded_request_is_answered_as_by_the_daemon(daemon: FakeOllama, one: Transcript) -> None:
    # A client's own num_ctx has no effect, so where the recorded one matters it is the configuration's.
    fixed = {"num_ctx": 256} if one.name[:3] in ("180", "182", "183", "184") else {}
    reply = await replayed(daemon, one, **fixed)

    wanted = DIFFERENT.get(one.name[:3], one.status)
    assert reply.status == wanted, reply.body
    if wanted != 200:
        assert list(objects_of(reply)[-1]) == ["error"]
        return
    if one.name.startswith("230"):
        assert reply.is_cut
        assert list(objects_of(reply)[-1]) == ["error"]
        return
    got, want = meaning(objects_of(reply)), meaning(one.objects)
    if CHANCE.match(one.name) or one.status != 200:
        want |= {"text": got["text"], "ended": got["ended"], "counts": got["counts"]}
    if one.status == 200:
        assert got == want
    assert reply.is_whole


def test_the_table_is_about_what_was_recorded() -> None:
    assert len(ASKED) > 35
    assert set(DIFFERENT) <= {one.name[:3] for one in ASKED}


async def test_the_last_line_has_the_members_of_the_daemons_own(daemon: FakeOllama) -> None:
    for name in ("020_chat_nostream", "021_chat_stream", "040_generate_nostream", "041_generate_stream"):
        one = transcripts()[name]
        daemon.load_s = 0.05
        async with gateway(daemon) as rig:
            reply = await ask(rig.url, "POST", one.path, one.body.encode(), {"host": "localhost"})

        mine, own = objects_of(reply), one.objects
        assert set(own[-1]) - set(mine[-1]) <= {"context", "load_duration"}, name
        assert set(mine[-1]) <= set(own[-1]), name
        assert {key: type(mine[0][key]) for key in mine[0]} == {key: type(own[0][key]) for key in mine[0]}, name


async def test_an_empty_question_has_the_daemon_load_its_model(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        loaded = await rig.ask("/api/generate", {"model": "smollm2:135m"})
        running = await ask(daemon.url, "GET", "/api/ps", headers={"host": "localhost"})
        missing = await rig.ask("/api/chat", {"model": "nope"})

    assert loaded.json["done_reason"] == "load"
    assert [each["name"] for each in running.json["models"]] == ["smollm2:135m"]
    assert missing.status == 404


async def test_what_the_daemon_reports_of_its_models_is_passed_on(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        idle = (await rig.ask("/api/ps")).json["models"]
        shown = (await rig.ask("/api/show", {"model": "toolm"})).json

    assert idle == []
    assert "tools" in shown["capabilities"]
    assert shown["model_info"]["general.context_length"] > 0
