"""A blind comparison says nothing of whose answers are shown until it has had its vote."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.keys import digest
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, Key, Limits
from tests.rigs.comparison import MESSAGES, Behave, ComparisonRig, comparing, failing, named_events, said, saying, texts
from tests.rigs.raw_client import Client, Reply, request
from tests.rigs.relay import backend

ASK = json.dumps({"models": ["base", "tuned"], "messages": MESSAGES, "blind": True}).encode()


async def vote(rig: ComparisonRig, id_: str, winner: object, **headers: str) -> Reply:
    return await rig.rig.ask("/v1/compare/votes", {"id": id_, "winner": winner}, headers=headers)


def hides(reply: Reply) -> bool:
    """Whether nothing in a response, its head included, could name a model, an engine or a figure."""
    shown = f"{reply.headers} {reply.body.decode()}".lower()
    words = ("base", "tuned", "weights", "usage", "timing", '_tokens"', "backend", "serving", "x-modelport")
    return not [word for word in words if word in shown.replace("max_tokens", "")]


@pytest.mark.parametrize("stream", [True, False])
async def test_no_name_and_no_figure_is_anywhere_in_a_blind_comparison(stream: bool) -> None:
    async with comparing(keeps=True) as rig:
        reply = await rig.compare(blind=True, stream=stream)

    assert hides(reply)
    assert reply.is_whole
    end = named_events(reply)[-1][1] if stream else reply.json
    assert end["votable"] is True
    assert sorted(texts(reply) if stream else [each["content"] for each in reply.json["answers"]]) == ["Blue.", "Grey."]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_blind_comparison_with_a_failure_hides_whose_it_is_and_takes_no_vote(stream: bool) -> None:
    async with comparing(failing("tuned is out of memory"), saying("Grey."), keeps=True) as rig:
        reply = await rig.compare(blind=True, stream=stream)
        end = named_events(reply)[-1][1] if stream else reply.json
        cast = await vote(rig, end["id"], 0)

    assert hides(reply)
    assert "no_answer" in reply.body.decode()
    assert (end["failed"], end["votable"]) == (1, False)
    assert (cast.status, cast.error["code"]) == (404, "comparison_not_found")


async def test_both_orders_come_up() -> None:
    seen = set()
    async with comparing() as rig:
        for _ in range(40):
            seen.add(tuple(texts(await rig.compare(blind=True))))

    assert seen == {("Blue.", "Grey."), ("Grey.", "Blue.")}


async def test_the_faster_model_says_nothing_before_the_slower_one_has_finished() -> None:
    async with comparing(limits=Limits(hold_s=0.05)) as rig, asyncio.timeout(20), Client(rig.rig.url) as client:
        stopped = backend(None, "tuned", can_start=True)
        await rig.rig.published(backends={**rig.rig.table.backends, "tuned": stopped})
        client.send(request("POST", "/v1/compare", ASK))
        await rig.rig.fleet.until(lambda: "tuned" in rig.rig.fleet.asked and rig.rig.leases.total() == 1)
        seen = b"".join([await client.reader.readuntil(b": waiting\n\n") for _ in range(3)])
        await rig.rig.published(backends=serving(rig))
        rig.rig.fleet.asked["tuned"].set_result(WaitOutcome(True))
        rest = await client.reader.readuntil(b"0\r\n\r\n")

    assert b"event: model" not in seen
    assert rest.index(b'"index":0') < rest.index(b'"index":1') < rest.index(b"event: end")


def serving(rig: ComparisonRig) -> dict[str, Backend]:
    """The table's rows with an engine that serves now."""
    return {**rig.rig.table.backends, "tuned": backend(rig.tuned.url, "tuned")}


async def test_a_vote_is_stored_before_it_opens_the_comparison_and_opens_it_once() -> None:
    async with comparing(keeps=True) as rig:
        events = named_events(await rig.compare(blind=True))
        id_, shown = events[0][1]["id"], [data["delta"]["content"] for name, data in events if name == "model"]
        opened = await vote(rig, id_, shown.index("Grey."))
        again = await vote(rig, id_, 0)
        kept = (rig.rig.state / "votes.jsonl").read_text().splitlines()
        tally = (await rig.rig.ask("/v1/compare/votes")).json

    models = ["tuned" if text == "Grey." else "base" for text in shown]
    assert (opened.status, opened.json["models"]) == (200, models)
    assert [each["model"] for each in opened.json["answers"]] == models
    assert all(each["usage"]["total_tokens"] == 10 for each in opened.json["answers"])
    assert (again.status, again.error["code"]) == (409, "already_voted")
    (line,) = map(json.loads, kept)
    assert (line["id"], line["models"], line["winner"]) == (id_, models, shown.index("Grey."))
    assert "sky" not in str(line)
    assert (tally["votes"], tally["pairs"]) == (
        1,
        [{"models": ["base", "tuned"], "wins": [0, 1], "ties": 0, "all_bad": 0}],
    )


async def test_only_the_key_that_asked_may_vote_and_a_tally_shows_what_a_key_may_use() -> None:
    keys = (
        Key("one", digest("mp-one")),
        Key("two", digest("mp-two")),
        Key("part", digest("mp-part"), models=("base",)),
    )
    ask = {"models": ["base", "tuned"], "messages": [{"role": "user", "content": "?"}], "blind": True}
    mine, others = {"authorization": "Bearer mp-one"}, {"authorization": "Bearer mp-two"}
    async with comparing(keeps=True) as rig:
        await rig.rig.published(keys=keys)
        id_ = named_events(await rig.rig.ask("/v1/compare", ask, headers=mine))[0][1]["id"]
        foreign = await vote(rig, id_, "tie", **others)
        own = await vote(rig, id_, "tie", **mine)
        all_, part = [
            (await rig.rig.ask("/v1/compare/votes", headers={"authorization": f"Bearer {secret}"})).json["votes"]
            for secret in ("mp-two", "mp-part")
        ]

    assert (foreign.status, foreign.error["code"]) == (404, "comparison_not_found")
    assert own.status == 200
    assert (all_, part) == (1, 0)


@pytest.mark.parametrize("winner", [2, -1, True, 0.5, "first", None])
async def test_a_vote_for_no_answer_is_refused_and_the_comparison_waits_on(winner: object) -> None:
    async with comparing(keeps=True) as rig:
        id_ = named_events(await rig.compare(blind=True))[0][1]["id"]
        refused = await vote(rig, id_, winner)
        good = await vote(rig, id_, "all_bad")

    assert (refused.status, refused.error["param"]) == (400, "winner")
    assert good.status == 200


def calling(id_: str) -> Behave:
    """An engine that calls a tool twice, with ids that begin as this engine's do."""

    def call(at: int) -> dict[str, object]:
        return {"index": at, "id": f"{id_}{at}", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    return lambda _path, _body: said("", calls=[call(0), call(1)])


@pytest.mark.parametrize("stream", [True, False])
async def test_ids_of_tool_calls_do_not_tell_one_engine_from_another(stream: bool) -> None:
    async with comparing(calling("chatcmpl-tool-"), calling("own"), keeps=True) as rig:
        reply = await rig.compare(blind=True, stream=stream)

    shown = reply.body.decode()
    assert "chatcmpl-tool-" not in shown
    assert "own" not in shown
    assert (shown.count('"id":"call_0"'), shown.count('"id":"call_1"')) == (2, 2)
