"""Several models are asked the same at the same time, and their answers come together: over a real relay."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.keys import digest
from app.table import Key, Limits, PublicModel, Target
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama
from tests.fakes.ollama_models import Model
from tests.fakes.scenario import Stage
from tests.fakes.streams import STREAMS
from tests.rigs.comparison import MESSAGES, comparing, failing, named_events, saying, texts
from tests.rigs.ollama import row
from tests.rigs.raw_client import Client, request
from tests.rigs.relay import backend, models, running
from tests.rigs.slow_client import SlowClient


async def test_both_answers_come_in_one_stream_with_their_figures() -> None:
    async with comparing(saying("Bl", "ue"), saying("Grey", reasoning="Hm")) as rig:
        reply = await rig.compare(temperature=0.5, seed=11)

    events = named_events(reply)
    assert reply.status == 200
    assert reply.is_whole
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[0][0] == "start"
    assert events[-1] == ("end", {"id": events[0][1]["id"], "answered": 2, "failed": 0, "votable": False})
    assert texts(reply) == ["Blue", "Grey"]
    assert [data["delta"]["reasoning"] for _, data in events[1:-1] if "reasoning" in data["delta"]] == ["Hm"]
    last = {data["index"]: data for name, data in events if name == "model" and "usage" in data}
    assert [last[index]["backend"] for index in (0, 1)] == ["base", "tuned"]
    assert last[0]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert last[0]["finish_reason"] == "stop"
    assert last[1]["length"] == {"characters": 4}
    assert 0 < last[0]["timing"]["first_token_s"] <= last[0]["timing"]["seconds"]


async def test_every_model_is_sent_the_same_messages_and_the_same_sampling_in_full() -> None:
    async with comparing() as rig:
        start = named_events(await rig.compare(temperature=0.5, max_tokens=40, stop=["\n"]))[0][1]
        sent = [rig.base.last, rig.tuned.last]

    assert [each.pop("model") for each in sent] == ["base-weights", "tuned-weights"]
    assert sent[0] == sent[1]
    assert start["settings"] == {name: sent[0][name] for name in start["settings"]}
    assert start["settings"].keys() == {
        *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"),
    }
    assert (sent[0]["temperature"], sent[0]["max_tokens"], sent[0]["stop"]) == (0.5, 40, ["\n"])
    assert set(start["filled"]) == start["settings"].keys() - {"temperature", "max_tokens"}


async def test_engines_tell_the_answers_of_one_request_apart_by_its_id() -> None:
    async with FakeEngine(("a", "b")) as engine, running({"engine": backend(engine.url)}, models("a", "b")) as rig:
        body = {"models": ["a", "b"], "messages": MESSAGES}
        reply = await rig.ask("/v1/compare", body, headers={"x-request-id": "mine"})

        assert sorted(dict(each.headers)["x-request-id"] for each in engine.posts) == ["mine-0", "mine-1"]
        assert reply.headers["x-request-id"] == "mine"
        assert not [name for name in reply.headers if name.startswith("x-modelport")]


async def test_in_one_piece_it_is_one_object_with_the_answers() -> None:
    async with comparing() as rig:
        reply = await rig.compare(stream=False)

    assert reply.headers["content-type"] == "application/json"
    assert [(each["index"], each["model"], each["content"]) for each in reply.json["answers"]] == [
        (0, "base", "Blue."),
        (1, "tuned", "Grey."),
    ]
    assert all(each["error"] is None and each["usage"]["prompt_tokens"] == 7 for each in reply.json["answers"])
    assert (reply.json["answered"], reply.json["failed"]) == (2, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_fails_does_not_end_the_other(stream: bool) -> None:
    async with comparing(failing("no memory"), saying("Grey")) as rig:
        reply = await rig.compare(stream=stream)

    assert (reply.status, reply.is_whole) == (200, True)
    if stream:
        errors = [data for name, data in named_events(reply) if name == "error"]
        assert [(each["index"], each["error"]["code"]) for each in errors] == [(0, "engine_failed")]
        assert texts(reply) == ["Grey"]
        assert named_events(reply)[-1][1]["failed"] == 1
    else:
        assert [each["content"] for each in reply.json["answers"]] == [None, "Grey"]
        assert [each["error"] and each["error"]["code"] for each in reply.json["answers"]] == ["engine_failed", None]


async def test_what_came_before_a_model_broke_off_stays() -> None:
    async with FakeEngine(("a", "b")) as engine, running({"engine": backend(engine.url)}, models("a", "b")) as rig:
        engine.script("reset_mid_stream")
        reply = await rig.ask("/v1/compare", {"models": ["a", "b"], "messages": MESSAGES})

    (failed,) = [data for name, data in named_events(reply) if name == "error"]
    whole, part = sorted(texts(reply), key=len, reverse=True)
    assert failed["error"]["code"] == "engine_disconnected"
    assert part
    assert whole.startswith(part)


async def test_no_other_model_answers_in_the_place_of_one_that_fails() -> None:
    async with comparing(failing(), saying("Grey")) as rig:
        await rig.change("base", fallbacks=("tuned",), fallbacks_for_all=("tuned",))
        await rig.compare()

        assert len(rig.tuned.bodies) == 1


async def test_a_pair_of_the_configuration_is_a_name_for_its_models() -> None:
    async with comparing() as rig:
        await rig.rig.published(pairs={"sky": {"before": "base", "after": "tuned"}})
        start = named_events(await rig.compare(models=None, pair="sky"))[0][1]
        listed = (await rig.rig.ask("/v1/compare/pairs")).json["data"]
        unknown = await rig.compare(models=None, pair="sea")

    assert (start["pair"], start["words"], start["models"]) == ("sky", ["before", "after"], ["base", "tuned"])
    assert listed == [
        {"id": "sky", "object": "compare.pair", "words": ["before", "after"], "models": ["base", "tuned"]}
    ]
    assert (unknown.status, unknown.error["code"]) == (404, "pair_not_found")
    assert "'sky'" in unknown.error["message"]


async def test_a_key_compares_only_what_it_may_use() -> None:
    secret = {"authorization": "Bearer mp-office"}
    body = {"messages": MESSAGES}
    async with comparing() as rig:
        pairs = {"sky": {"before": "base", "after": "tuned"}}
        await rig.rig.published(keys=(Key("office", digest("mp-office"), models=("base",)),), pairs=pairs)
        named = await rig.rig.ask("/v1/compare", {**body, "models": ["base", "tuned"]}, headers=secret)
        paired = await rig.rig.ask("/v1/compare", {**body, "pair": "sky"}, headers=secret)
        listed = await rig.rig.ask("/v1/compare/pairs", headers=secret)

        assert (named.status, named.error["code"]) == (404, "model_not_found")
        assert (paired.status, paired.error["code"]) == (404, "pair_not_found")
        assert listed.json["data"] == []
        assert rig.base.bodies == rig.tuned.bodies == []


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"models": ["base"]}, "invalid_value", "models"),
        ({"models": None}, "missing_field", "models"),
        ({"models": ["base"] * 9}, "invalid_value", "models"),
        ({"models": ["base", "base"]}, "invalid_value", "models"),
        ({"models": "base"}, "invalid_type", "models"),
        ({"model": "base"}, "invalid_request", "model"),
        ({"pair": "sky"}, "invalid_request", "pair"),
        ({"messages": None}, "missing_field", "messages"),
        ({"messages": []}, "missing_field", "messages"),
        ({"n": 2}, "invalid_value", "n"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": 11}, "invalid_value", "temperature"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"chat_template": "{{ x }}"}, "parameter_refused", "chat_template"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_the_field(fields: dict[str, Any], code: str, param: str) -> None:
    async with comparing() as rig:
        reply = await rig.compare(**fields)

        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
        assert rig.base.bodies == []


async def test_each_answer_counts_as_one_request_in_the_metrics() -> None:
    count = "gen_ai_server_request_duration_seconds_count"
    async with comparing(saying("a"), failing()) as rig:
        await rig.compare()

        assert [rig.rig.sample(count, gen_ai_request_model=name) for name in ("base", "tuned")] == [1, 1]
        assert rig.rig.sample(count, gen_ai_request_model="tuned", error_type="engine_failed") == 1
        assert rig.rig.sample(count, gen_ai_operation_name="chat") == 2


async def test_who_leaves_ends_the_work_at_every_engine() -> None:
    async with FakeEngine(("a", "b")) as engine, running({"engine": backend(engine.url)}, models("a", "b")) as rig:
        engine.script(default="never_answers")
        async with asyncio.timeout(20):
            async with Client(rig.url) as client:
                body = json.dumps({"models": ["a", "b"], "messages": MESSAGES}).encode()
                client.send(request("POST", "/v1/compare", body))
                await engine.arrived(2)
            for post in engine.posts:
                await post.closed_by_peer.wait()
            await rig.fleet.until(lambda: rig.leases.total() == 0)

        assert rig.sample("modelport_client_disconnects_total") == 2


async def test_while_nothing_comes_the_client_hears_what_is_waited_for() -> None:
    stopped = backend(None, can_start=True)
    body = json.dumps({"models": ["a", "b"], "messages": MESSAGES}).encode()
    async with (
        running({"engine": stopped}, models("a", "b"), Limits(hold_s=0.05)) as rig,
        asyncio.timeout(20),
        Client(rig.url) as client,
    ):
        client.send(request("POST", "/v1/compare", body))

        seen = await client.reader.readuntil(b'event: waiting\ndata: {"index":1,"for":"b (stopped)"}\n\n')

    assert b"event: start" in seen


async def test_when_the_time_to_drain_is_over_each_answer_ends_with_an_error_and_the_stream_is_cut() -> None:
    body = json.dumps({"models": ["a", "b"], "messages": MESSAGES}).encode()
    async with FakeEngine(("a", "b")) as engine, running({"engine": backend(engine.url)}, models("a", "b")) as rig:
        engine.script(default="endless_drip")
        async with asyncio.timeout(20), Client(rig.url) as client:
            client.send(request("POST", "/v1/compare", body))
            await client.reader.readuntil(b'"index":0,"delta":{"content"')
            await client.reader.readuntil(b'"delta":{"content"')
            rig.drain(0)
            rest = await client.reader.read(-1)

    assert rest.count(b'"code":"shutting_down"') == 2
    assert b"event: end" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_of_several_names_the_wrong_one_is_told() -> None:
    async with comparing() as rig:
        wrong = await rig.compare(models=["base", "tunde"])

        assert (wrong.status, wrong.error["code"], wrong.error["param"]) == (404, "model_not_found", "models")
        assert wrong.error["message"] == "There is no such model here ('models[1]'). Did you mean 'tuned'?"
        assert rig.base.bodies == []


async def test_a_name_that_only_leads_to_the_default_model_is_not_compared() -> None:
    async with comparing() as rig:
        await rig.rig.published(default_model="tuned", aliases={"old": "tuned"})
        wrong = await rig.compare(models=["base", "tunned"])
        alias = named_events(await rig.compare(models=["base", "old"]))[0][1]

    assert (wrong.status, wrong.error["code"], wrong.error["param"]) == (404, "model_not_found", "models")
    assert alias["models"] == ["base", "tuned"]


async def test_models_of_different_engines_are_sent_the_same_under_each_ones_own_names() -> None:
    async with FakeOllama() as daemon, FakeEngine(("a",)) as engine:
        daemon.store.add(Model("theirs", {}, ("completion",)))
        rows = {"ollama": await row(daemon), "engine": backend(engine.url)}
        names = {**models("a"), "theirs": PublicModel("theirs", (Target("ollama", "theirs"),))}
        async with running(rows, names) as rig:
            body = {"models": ["a", "theirs"], "messages": MESSAGES, "seed": 3, "max_tokens": 5}
            reply = await rig.ask("/v1/compare", body)
        told = json.loads(next(each.body for each in daemon.requests if each.path == "/api/chat"))["options"]
        sent = json.loads(engine.posts[0].body)

    assert named_events(reply)[-1][1]["failed"] == 0
    settings = named_events(reply)[0][1]["settings"]
    assert {name: sent[name] for name in settings} == settings
    assert {name: told[name] for name in ("temperature", "top_p", "top_k", "min_p", "seed")} == {
        name: settings[name] for name in ("temperature", "top_p", "top_k", "min_p", "seed")
    }
    assert (told["repeat_penalty"], told["num_predict"]) == (settings["repetition_penalty"], 5)


async def test_a_client_that_reads_slowly_holds_back_every_engine() -> None:
    body = json.dumps({"models": ["a", "b"], "messages": MESSAGES}).encode()
    async with FakeEngine(("a", "b")) as engine, running({"engine": backend(engine.url)}, models("a", "b")) as rig:
        engine.script(default="endless_stream")
        async with asyncio.timeout(60), SlowClient(rig.url) as client:
            await client.send(request("POST", "/v1/compare", body))
            await engine.arrived(2)

            for post in engine.posts:
                await post.blocked.wait()
            got = 0
            while got < 2**22:  # and lets them go on
                got += len(await client.read(2**20))
        for post in engine.posts:
            await post.closed_by_peer.wait()
        await rig.fleet.until(lambda: rig.leases.total() == 0)

    assert sum(post.sent for post in engine.posts) < 2**26


@pytest.mark.parametrize("stream", [True, False])
async def test_however_one_stream_breaks_the_other_answer_is_whole_and_the_end_comes(stream: bool) -> None:
    faults = [name for name, each in STREAMS.items() if each.stage is not Stage.FINE and not each.waits]
    names = [f"fault:{name}" for name in faults]
    async with (
        FakeEngine(("ok", *names)) as engine,
        running({"engine": backend(engine.url)}, models("ok", *names)) as rig,
    ):
        for name in names:
            body = {"models": ["ok", name], "messages": MESSAGES, "stream": stream}
            reply = await rig.ask("/v1/compare", body)
            ended = named_events(reply)[-1][1] if stream else reply.json

            assert reply.is_whole, name
            assert (ended["answered"], ended["failed"]) == (1, 1), name
        await rig.fleet.until(lambda: rig.leases.total() == 0)
    assert len(names) > 8
