"""Through the gateway to the fake Ollama daemon: what comes back, what is refused, and what goes wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.table import Limits
from tests.fakes.ollama import BUSY, FakeOllama, Fault
from tests.fakes.ollama_models import Model
from tests.rigs.ollama import gateway
from tests.rigs.raw_client import Client, Reply, ask, chat, request
from tests.rigs.transcripts import Transcript, transcripts

LONG = " ".join(["blah"] * 400)
CHATS = [one for one in transcripts().values() if one.path == "/v1/chat/completions" and one.method == "POST"]

# What the gateway answers otherwise than the daemon's /v1, and why; docs/ollama.md has the same table.
# name → (status, code), or the finish_reason and the number of tokens.
DIFFERENT: dict[str, Any] = {
    "104": (400, "not_supported"),  # n=2: said, not ignored
    "105": ("length", 2),  # max_completion_tokens is honoured
    "109": (400, "not_supported"),  # the same refusal with a code
    "110": (400, "not_supported"),
    "111": (400, "missing_field"),
    "112": (400, "missing_field"),
    "113": (404, "model_not_found"),
    "114": (404, "model_not_found"),
    "115": (400, "invalid_json"),
    "116": (400, "invalid_json"),
    "117": (400, "invalid_value"),
    "118": (400, "not_supported"),
    "125": (400, "invalid_type"),
    "126": (400, "invalid_value"),  # max_tokens 0 is not: no limit
    "185": (400, "context_length_exceeded"),  # not cut without a word
    "207": (400, "invalid_request"),
    "232": "error event",  # not a clean end without a word
    "234": (502, "engine_failed"),
    "281": "Modelfile",  # temperature 0 holds: the three texts are one
    "282": "Modelfile",
    "283": "Modelfile",
}
# By chance: the daemon's /v1 forced temperature 1.0 where the Modelfile has 0.7; the text is another, not its shape.
CHANCE = re.compile(r"119|121|123|171|172|22|251|260|262|291")


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        exchanges = transcripts()
        store = running.store
        store.add(Model("mymodel", {**store.find("smollm2:135m").parameters, "num_ctx": 512, "temperature": 0}))
        template = exchanges["200_create_tools_model"].asked["template"]
        store.add(Model("toolm", {"temperature": 0.7}, ("completion", "tools"), template=template))
        yield running


def test_the_table_is_about_what_was_recorded() -> None:
    names = {one.name[:3] for one in CHATS}

    assert len(CHATS) > 40
    assert set(DIFFERENT) <= names


@pytest.mark.parametrize("one", CHATS, ids=lambda one: one.name)
async def test_a_recorded_chat_has_the_same_answer_through_the_gateway_or_a_better_one(
    daemon: FakeOllama, one: Transcript
) -> None:
    if one.name.startswith("232"):
        daemon.script(Fault("line", after=len(one.pieces) - 1))
    if one.name.startswith("234") or one.status == 503:
        daemon.script(Fault("line", status=one.status, text=BUSY if one.status == 503 else Fault.text))
    async with gateway(daemon) as rig:
        reply = await ask(rig.url, "POST", one.path, one.body.encode(), {"host": "localhost", **one.headers})

    wanted = DIFFERENT.get(one.name[:3])
    match wanted:
        case (int() as status, code):
            assert (reply.status, reply.error["code"]) == (status, code)
        case (str() as finish, int() as count):
            assert (reply.json["choices"][0]["finish_reason"], reply.json["usage"]["completion_tokens"]) == (
                finish,
                count,
            )
        case "error event":
            assert reply.is_cut
            assert "[DONE]" not in reply.events
            assert reply.events[-1]["error"]["code"] == "engine_failed"
        case "Modelfile":
            assert reply.text == transcripts()["284_native_modelfile_temp0_seed1"].objects[0]["message"]["content"]
        case None if one.status == 503:
            assert (reply.status, reply.error["code"]) == (503, "engine_not_ready")
            assert "retry-after" in reply.headers
        case _:
            assert_same(reply, one)


def assert_same(reply: Reply, one: Transcript) -> None:
    """Text, tool calls, tokens, reason and logprobs."""
    assert reply.status == one.status == 200
    got, want = meaning(events_of(reply)), meaning(one.objects)
    assert got["model"] == one.asked["model"]
    if CHANCE.match(one.name):
        got["text"] = want["text"] = ""
        got["usage"] = want["usage"] = None if one.name[:3] in ("260", "262") else got["usage"]
        got["finish"] = want["finish"]
    if one.name[:3] in ("120", "204"):  # one message instead of two; the same call was counted as 21 and as 28 tokens
        got["usage"] = want["usage"]
    assert got == want


def events_of(reply: Reply) -> list[Any]:
    return [event for event in reply.events if event != "[DONE]"] if reply.events else [reply.json]


def meaning(objects: list[Any]) -> dict[str, Any]:
    """An answer's sense, streamed or not."""
    text, calls, finish, usage, probs = "", [], None, None, None
    for value in objects:
        usage = value.get("usage") or usage
        for choice in value["choices"]:
            message = choice.get("message") or choice.get("delta") or {}
            text += message.get("content") or ""
            calls += [(call["index"], call["type"], call["function"]) for call in message.get("tool_calls") or ()]
            finish = choice.get("finish_reason") or finish
            tokens = (choice.get("logprobs") or {}).get("content")
            probs = [(each["token"], each["logprob"], each["top_logprobs"]) for each in tokens] if tokens else probs
    assert len({value["id"] for value in objects}) == 1
    assert len({value["created"] for value in objects}) == 1
    model = {value["model"] for value in objects}.pop()
    return {"model": model, "text": text, "calls": calls, "finish": finish, "usage": usage, "logprobs": probs}


# -- what the Modelfile says holds


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_modelfiles_temperature_of_zero_gives_three_seeds_one_text(daemon: FakeOllama, streamed: bool) -> None:
    async with gateway(daemon) as rig:
        texts = [
            (
                await rig.ask(body=chat("mymodel", text="Tell me a fact.", seed=seed, max_tokens=10, stream=streamed))
            ).text
            for seed in (1, 2, 3)
        ]

    assert len(set(texts)) == 1
    assert texts[0]
    assert [asked.options["temperature"] for asked in daemon.asked] == [0, 0, 0]
    assert [asked.body["options"] for asked in daemon.asked] == [
        {"seed": seed, "num_predict": 10, "num_ctx": 512} for seed in (1, 2, 3)
    ]


async def test_what_the_client_gives_comes_before_the_modelfile(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        await rig.ask(body=chat("mymodel", temperature=0.5, top_p=0.8, top_k=7, stop="x"))

    options = daemon.asked[0].options
    assert (options["temperature"], options["top_p"], options["top_k"], options["stop"]) == (0.5, 0.8, 7, ["x"])


async def test_one_context_for_all_callers_so_that_the_model_is_loaded_once(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        for more in ({}, {"num_ctx": 256}, {"options": {"num_ctx": 1024}}, {"stream": True}):
            await rig.ask(body=chat("mymodel", **more))
        await rig.ask("/v1/completions", {"model": "MyModel:latest", "prompt": "a"})
        await rig.ask("/api/generate", {"model": "mymodel"})  # which only loads
        await rig.ask(body=chat("mymodel"))

    assert daemon.loads == [("mymodel:latest", 512)]


# -- no silent truncation


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_answer_that_fills_the_context_ends_there_and_says_so(daemon: FakeOllama, streamed: bool) -> None:
    counts = {"stream_options": {"include_usage": True}} if streamed else {}
    async with gateway(daemon, num_ctx=20) as rig:
        reply = await rig.ask(body=chat("smollm2:135m", text="one two three four five", stream=streamed, **counts))

    assert meaning(events_of(reply))["finish"] == "length"
    assert meaning(events_of(reply))["usage"]["total_tokens"] == 20


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_of_twice_the_context_is_a_400_with_both_numbers(daemon: FakeOllama, streamed: bool) -> None:
    async with gateway(daemon, num_ctx=400) as rig:
        reply = await rig.ask(body=chat("smollm2:135m", text=LONG, stream=streamed))

    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert re.findall(r"\d+", reply.error["message"]) == ["400", "805"]
    assert reply.error["type"] == "invalid_request_error"


async def test_a_stream_that_was_held_open_gets_an_error_event(daemon: FakeOllama) -> None:
    daemon.load_s = 0.3
    async with gateway(daemon, Limits(hold_s=0.05), num_ctx=400) as rig:
        reply = await rig.ask(body=chat("smollm2:135m", text=LONG, stream=True))

    assert reply.status == 200
    assert reply.body.startswith(b": waiting for * (loading)\n\n")
    assert reply.events[-1]["error"]["code"] == "context_length_exceeded"
    assert re.findall(r"\d+", reply.events[-1]["error"]["message"]) == ["400", "805"]
    assert reply.is_cut


async def test_embeddings_are_not_cut_either(daemon: FakeOllama) -> None:
    daemon.store.add(Model("embedder", capabilities=("embedding",)))
    async with gateway(daemon, num_ctx=400) as rig:
        reply = await rig.ask("/v1/embeddings", {"model": "embedder", "input": LONG})

    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert "400 tokens" in reply.error["message"]


# -- what goes wrong


ENDINGS = {
    "an error line": (Fault("line"), "engine_failed"),
    "a clean end without one": (Fault("fin"), "engine_disconnected"),
    "the connection ends": (Fault("cut"), "engine_disconnected"),
    "a reset": (Fault("reset"), "engine_disconnected"),
    "JSON in the line's string": (Fault("line", text='{"error":{"code":500,"message":"boom"}}'), "engine_failed"),
}


@pytest.mark.parametrize(("fault", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_an_engine_that_dies_in_a_stream_is_an_error_event_without_an_end_mark(
    daemon: FakeOllama, fault: Fault, code: str
) -> None:
    daemon.script(fault)
    async with gateway(daemon) as rig:
        reply = await rig.ask(body=chat("smollm2:135m", text="count", stream=True))

        assert rig.sample("modelport_stream_errors_total") == 1
        assert rig.sample("gen_ai_server_request_duration_seconds_count", error_type=code) == 1

    assert reply.status == 200
    assert reply.is_cut
    assert reply.events[-1]["error"]["code"] == code
    assert "[DONE]" not in reply.events
    assert "{" not in reply.events[-1]["error"]["message"]
    assert len(reply.events) == 4


async def test_an_engine_that_dies_before_a_whole_answer_is_a_502_and_is_not_asked_again(daemon: FakeOllama) -> None:
    daemon.script(Fault("line"), Fault("line"))
    async with gateway(daemon) as rig:
        reply = await rig.ask(body=chat("smollm2:135m"))

    assert (reply.status, reply.error["code"], reply.headers["x-should-retry"]) == (502, "engine_failed", "false")
    assert len(daemon.asked) == 1


async def test_a_cold_daemon_that_refuses_is_a_503_with_the_time_its_load_took(daemon: FakeOllama) -> None:
    daemon.load_s = 2.2
    async with gateway(daemon) as rig:
        await rig.ask(body=chat("smollm2:135m"))
        daemon.script(Fault(status=503, text=BUSY))
        reply = await rig.ask(body=chat("smollm2:135m"))

    assert (reply.status, reply.error["code"], reply.headers["x-should-retry"]) == (503, "engine_not_ready", "true")
    assert 2 < int(reply.headers["retry-after"]) <= 60
    assert "pending" not in reply.error["message"]


async def test_a_client_that_leaves_frees_its_place_at_the_daemon(daemon: FakeOllama) -> None:
    daemon.hold = asyncio.Event()
    async with gateway(daemon) as rig, Client(rig.url) as client:
        body = b'{"model":"smollm2:135m","messages":[{"role":"user","content":"count"}],"stream":true}'
        client.send(request("POST", "/v1/chat/completions", body))
        await daemon.until(lambda: daemon.running == 1)
        client.writer.close()

        async with asyncio.timeout(20):
            await daemon.asked[0].cancelled.wait()
        assert daemon.running == 0


async def test_a_stream_in_pieces_that_fit_no_line_is_whole(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        plain = await rig.ask(body=chat("mymodel", text="count", stream=True))
        daemon.cuts = (1, 7, 300, 2)
        cut = await rig.ask(body=chat("mymodel", text="count", stream=True))

    assert cut.text == plain.text != ""
    assert len(cut.events) == len(plain.events)


# -- names, parameters, headers


@pytest.mark.parametrize("name", ["mymodel", "MyModel", "mymodel:latest", "ollama/mymodel", "ollama/MYMODEL:latest"])
async def test_an_answer_carries_the_name_that_the_client_used(daemon: FakeOllama, name: str) -> None:
    async with gateway(daemon) as rig:
        whole = await rig.ask(body=chat(name))
        stream = await rig.ask(body=chat(name, stream=True))

    assert whole.json["model"] == name
    assert {event["model"] for event in stream.events if event != "[DONE]"} == {name}


async def test_real_tags_are_listed_once_and_say_whether_they_are_in_memory(daemon: FakeOllama) -> None:
    await ask(daemon.url, "POST", "/api/chat", {"model": "toolm"}, {"host": "localhost"})
    async with gateway(daemon) as rig:
        listed = [(entry["id"], entry["state"]) for entry in (await rig.ask("/v1/models")).json["data"]]

    assert listed == [("mymodel:latest", "sleeping"), ("smollm2:135m", "sleeping"), ("toolm:latest", "ready")]


async def test_parameters_without_effect_are_named(daemon: FakeOllama) -> None:
    more: dict[str, Any] = {
        "logit_bias": {"1": 2},
        "num_ctx": 99,
        "parallel_tool_calls": False,
        "user": "u",
        "x\r\ny": 1,
        "audio": None,
    }
    async with gateway(daemon) as rig:
        whole = await rig.ask(body=chat("mymodel", **more))
        stream = await rig.ask(body=chat("mymodel", stream=True, **more))
        plain = await rig.ask(body=chat("mymodel", temperature=0))

    for reply in (whole, stream):
        assert reply.headers["x-modelport-dropped-params"] == "logit_bias, num_ctx, parallel_tool_calls, user"
    assert "x-modelport-dropped-params" not in plain.headers


async def test_the_daemons_times_are_in_headers_and_metrics(daemon: FakeOllama) -> None:
    daemon.load_s = 0.2
    async with gateway(daemon) as rig:
        whole = await rig.ask(body=chat("mymodel"))
        await rig.ask(body=chat("mymodel", stream=True))

        for phase in ("load", "prompt", "generate"):
            assert rig.sample("modelport_engine_phase_seconds_count", phase=phase) == 2

    assert float(whole.headers["x-modelport-load-ms"]) >= 200
    assert float(whole.headers["x-modelport-prompt-ms"]) == 7
    assert float(whole.headers["x-modelport-generate-ms"]) == 40


async def test_usage_comes_only_when_it_was_asked_for_and_is_counted_always(daemon: FakeOllama) -> None:
    async with gateway(daemon) as rig:
        quiet = await rig.ask(body=chat("mymodel", text="count", stream=True))
        asked = await rig.ask(body=chat("mymodel", text="count", stream=True, stream_options={"include_usage": True}))

        assert rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 24

    assert not any("usage" in event for event in quiet.events if event != "[DONE]")
    assert asked.events[-2]["usage"]["completion_tokens"] == 12
    assert asked.events[-2]["choices"] == []
    assert asked.events[-1] == "[DONE]"


async def test_thinking_has_both_of_its_names_and_tool_calls_openais_shape(daemon: FakeOllama) -> None:
    daemon.store.add(Model("thinker", {"temperature": 0}, ("completion", "thinking", "tools")))
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"required": ["city"]}}}
    async with gateway(daemon) as rig:
        thought = await rig.ask(body=chat("thinker", reasoning_effort="high"))
        called = await rig.ask(body=chat("thinker", tools=[tool], tool_choice="auto"))

    message = thought.json["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Let me think."
    assert daemon.asked[0].body["think"] == "high"
    choice = called.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert (call["index"], call["type"], call["function"]["arguments"]) == (0, "function", '{"city":"Paris"}')
    assert choice["message"]["content"] is None


async def test_embeddings_and_completions_have_openais_shape(daemon: FakeOllama) -> None:
    daemon.store.add(Model("embedder", capabilities=("embedding",)))
    async with gateway(daemon) as rig:
        floats = await rig.ask("/v1/embeddings", {"model": "embedder", "input": ["a", "bc"]})
        packed = await rig.ask("/v1/embeddings", {"model": "embedder", "input": "a", "encoding_format": "base64"})
        text = await rig.ask("/v1/completions", {"model": "mymodel", "prompt": "count", "max_tokens": 3})

    assert [each["embedding"] for each in floats.json["data"]] == [[1.0, 0.25, -0.5], [2.0, 0.25, -0.5]]
    assert floats.json["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert packed.json["data"][0]["embedding"] == "AACAPwAAgD4AAAC/"
    assert text.json["object"] == "text_completion"
    assert text.json["choices"][0]["finish_reason"] == "length"
    assert daemon.asked[-1].body["raw"] is True
