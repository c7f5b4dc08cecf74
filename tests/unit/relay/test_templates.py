"""System messages that a template does not take, over a real relay: asked once, folded, named; by every dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.table import PublicModel, Rules, Target
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama
from tests.fakes.talker import Talker, TalkerReply, whole
from tests.rigs.ollama import gateway as ollama
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import Rig, backend, models, running

ADJUSTED = "x-modelport-adjusted-params"
U, A = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}
S, LATE = {"role": "system", "content": "be short"}, {"role": "system", "content": "agents: one"}
DEVELOPER = {"role": "developer", "content": "be kind"}
NOTE = "<system-reminder>\nagents: one\n</system-reminder>"

Template = Callable[[list[dict[str, Any]]], str | None]


def written(messages: list[dict[str, Any]], *roles: str) -> str:
    return "".join(f"<{m['role']}>{m['content']}" for m in messages if m["role"] in roles)


def anything(messages: list[dict[str, Any]]) -> str | None:
    """ChatML."""
    return written(messages, *{m["role"] for m in messages})


def at_front(messages: list[dict[str, Any]]) -> str | None:
    """Qwen's: a system message only at the beginning, no other roles."""
    roles = [m["role"] for m in messages]
    is_good = "system" not in roles[1:] and set(roles) <= {"system", "user", "assistant", "tool"}
    return written(messages, *roles) if is_good else None


def nowhere(messages: list[dict[str, Any]]) -> str | None:
    """Gemma's: no system, and turns that alternate."""
    roles = [m["role"] for m in messages]
    is_good = all(role == ("user", "assistant")[at % 2] for at, role in enumerate(roles))
    return written(messages, *roles) if is_good else None


def drops(messages: list[dict[str, Any]]) -> str | None:
    """One that leaves later ones out without a word."""
    first = messages[0]["content"] if messages[0]["role"] == "system" else ""
    return first + written(messages, "user", "assistant")


def vllm(template: Template) -> Callable[[str, Any], TalkerReply]:
    def behave(path: str, body: Any) -> TalkerReply:
        rendered = template(body["messages"])
        if rendered is None:
            return 400, {"error": {"message": "System message must be at the beginning.", "code": 400}}
        if path == "/tokenize":
            strs = [letter.replace(" ", "Ġ") for letter in rendered] if body.get("return_token_strs") else None
            return 200, {"count": len(rendered), "max_model_len": 99, "tokens": [1], "token_strs": strs}
        return whole()

    return behave


def llama_cpp(template: Template) -> Callable[[str, Any], TalkerReply]:
    def behave(path: str, body: Any) -> TalkerReply:
        rendered = template(body["messages"])
        if rendered is None:
            return 500, {"error": {"message": "Jinja Exception: Conversation roles must alternate", "code": 500}}
        return (200, {"prompt": rendered}) if path == "/apply-template" else whole()

    return behave


def written_to(engine: Talker) -> list[Any]:
    """The conversations that were to be answered."""
    return [body["messages"] for path, body in engine.asked if path.endswith("/chat/completions")]


def asked_of(engine: Talker) -> int:
    return sum(not path.endswith("/chat/completions") for path, _ in engine.asked)


async def sent(rig: Rig, *messages: dict[str, Any], **more: Any) -> Reply:
    return await rig.ask(body={**chat(), "messages": list(messages), **more})


KINDS = {"vllm": vllm, "llama_cpp": llama_cpp}
LAST = [S, {**U, "content": f"hello\n\n{NOTE}"}]
MIDDLE = [S, U, A, {**U, "content": f"{NOTE}\n\nhello"}]
TAKEN: dict[str, tuple[Template, list[Any], list[Any]]] = {
    "anything": (anything, [S, U, LATE], [S, U, A, LATE, U]),
    "at the front": (at_front, LAST, MIDDLE),
    "nowhere": (
        nowhere,
        [{**U, "content": f"be short\n\nhello\n\n{NOTE}"}],
        [{**U, "content": "be short\n\nhello"}, A, {**U, "content": f"{NOTE}\n\nhello"}],
    ),
    "without a word": (drops, LAST, MIDDLE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("template", "last", "middle"), TAKEN.values(), ids=TAKEN)
async def test_the_engine_gets_what_its_template_takes_and_is_asked_for_it_once(
    kind: str, template: Template, last: list[Any], middle: list[Any]
) -> None:
    async with (
        Talker(KINDS[kind](template)) as engine,
        running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig,
    ):
        first = await sent(rig, S, U, LATE)
        asked = asked_of(engine)
        second = await sent(rig, S, U, A, LATE, U)

    assert (first.status, second.status) == (200, 200)
    assert written_to(engine) == [last, middle]
    is_changed = template is not anything
    assert first.headers.get(ADJUSTED) == second.headers.get(ADJUSTED) == ("messages" if is_changed else None)
    assert 0 < asked == asked_of(engine) <= 5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_usual_conversation_costs_nothing_and_keeps_its_bytes(kind: str) -> None:
    body = json.dumps({**chat(), "messages": [S, U, A, U]}).encode()
    async with FakeEngine() as engine, running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig:
        reply = await rig.ask(body=body)

    assert reply.status == 200
    assert ADJUSTED not in reply.headers
    assert [record.body for record in engine.posts] == [body]


async def test_several_at_the_beginning_become_one_where_only_one_is_taken() -> None:
    async with Talker(vllm(at_front)) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await sent(rig, S, LATE, U)

    assert reply.headers[ADJUSTED] == "messages"
    assert written_to(engine) == [[{**S, "content": "be short\n\nagents: one"}, U]]


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
async def test_a_developer_is_a_system_without_a_question(kind: str) -> None:
    async with (
        Talker(KINDS[kind](at_front)) as engine,
        running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig,
    ):
        reply = await sent(rig, DEVELOPER, U)

    assert (reply.status, reply.headers[ADJUSTED]) == (200, "messages")
    assert engine.asked[0][1]["messages"] == [{**DEVELOPER, "role": "system"}, U]
    assert len(engine.asked) == 1


async def test_what_was_asked_of_one_start_is_asked_of_the_next_again() -> None:
    async with Talker(vllm(at_front)) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        await sent(rig, S, U, LATE)
        before = asked_of(engine)
        await rig.published(backends={"engine": backend(engine.url, generation=2)})
        await sent(rig, S, U, LATE)

    assert asked_of(engine) == 2 * before


BROKEN: dict[str, TalkerReply] = {
    "no such route": (404, {"detail": "Not Found"}),
    "no strings": (200, {"count": 1, "max_model_len": 9, "tokens": [1], "token_strs": None}),
    "no JSON": (200, "<html>"),
    "a failure": (500, {"error": "boom"}),
    "too much": (200, {"token_strs": ["x" * 300_000]}),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_an_engine_that_cannot_be_asked_gets_the_conversation_as_it_is(answer: TalkerReply) -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        return answer if path == "/tokenize" else whole()

    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        first, second = await sent(rig, S, U, LATE), await sent(rig, S, U, LATE)

    assert (first.status, second.status) == (200, 200)
    assert ADJUSTED not in first.headers
    assert written_to(engine) == [[S, U, LATE]] * 2
    assert asked_of(engine) == 1


async def test_an_engine_that_cannot_be_asked_is_believed_when_it_refuses() -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        return (404, {"detail": "Not Found"}) if path == "/tokenize" else vllm(at_front)(path, body)

    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await sent(rig, S, U, LATE)

    assert (reply.status, reply.headers[ADJUSTED]) == (200, "messages")
    assert written_to(engine) == [[S, U, LATE], LAST]


# -- engines that are not asked


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("template", [at_front, nowhere])
async def test_a_remote_engine_gets_the_clients_words_until_it_refuses_them(template: Template, streamed: bool) -> None:
    tried = [] if template is at_front else [LAST]

    def behave(path: str, body: Any) -> TalkerReply:
        made = vllm(template)(path, body)
        return [EVENT] if streamed and made[0] == 200 else made

    async with (
        Talker(behave) as engine,
        running({"engine": backend(engine.url, kind="remote")}, models("fake")) as rig,
    ):
        first = await sent(rig, S, U, LATE, stream=streamed)
        second = await sent(rig, S, U, A, LATE, U, stream=streamed)

    _, last, middle = TAKEN["at the front" if template is at_front else "nowhere"]
    assert (first.status, second.status) == (200, 200)
    assert first.headers[ADJUSTED] == second.headers[ADJUSTED] == "messages"
    assert written_to(engine) == [[S, U, LATE], *tried, last, middle]


EVENT = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "fake",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_refusal_under_a_good_status_is_one_too(streamed: bool) -> None:
    """LM Studio tells it in an event."""

    def behave(path: str, body: Any) -> TalkerReply:
        if at_front(body["messages"]) is None:
            told = {"error": {"message": 'Error rendering prompt with jinja template: "System message must be first"'}}
            return [told] if streamed else (200, told)
        return [EVENT] if streamed else whole()

    async with Talker(behave) as engine, running({"engine": backend(engine.url, kind="remote")}, models("fake")) as rig:
        reply = await sent(rig, S, U, LATE, stream=streamed)

    assert (reply.status, reply.text) == (200, "ok")
    assert reply.headers[ADJUSTED] == "messages"
    assert written_to(engine) == [[S, U, LATE], LAST]


async def test_of_a_model_without_a_system_the_usual_conversation_is_folded_too_once_it_was_refused() -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        if nowhere(body["messages"]) is None:
            return 400, {"error": {"message": "System role not supported", "code": 400}}
        return whole()

    async with (
        Talker(behave) as engine,
        running({"engine": backend(engine.url, kind="remote")}, models("fake")) as rig,
    ):
        replies = [await sent(rig, S, U), await sent(rig, S, U, A, U)]

    assert [reply.status for reply in replies] == [200, 200]
    beginning = {**U, "content": "be short\n\nhello"}
    assert written_to(engine) == [[S, U], [beginning], [beginning, A, U]]


async def test_a_role_that_nobody_knows_stays_a_refusal_and_teaches_nothing() -> None:
    odd = {"role": "narrator", "content": "x"}
    async with (
        Talker(vllm(at_front)) as engine,
        running({"engine": backend(engine.url, kind="remote")}, models("fake")) as rig,
    ):
        refused = await sent(rig, S, odd, U)
        good = await sent(rig, S, U)

    assert (refused.status, good.status) == (400, 200)
    assert written_to(engine)[-1] == [S, U]
    assert ADJUSTED not in good.headers


async def test_a_lenient_remote_engine_is_told_system_for_developer_at_once() -> None:
    rules = Rules(normalize="lenient")
    served = {"fake": PublicModel("fake", (Target("engine", "fake"),), rules=rules)}
    async with Talker(vllm(at_front)) as engine, running({"engine": backend(engine.url, kind="remote")}, served) as rig:
        reply = await sent(rig, DEVELOPER, U)

    assert (reply.status, len(engine.asked)) == (200, 1)
    assert reply.headers[ADJUSTED] == "messages"


@pytest.mark.parametrize("kind", ["vllm", "remote"])
async def test_a_model_that_is_set_to_strict_is_sent_what_the_client_wrote(kind: str) -> None:
    served = {"fake": PublicModel("fake", (Target("engine", "fake"),), rules=Rules(normalize="strict"))}
    async with Talker(vllm(at_front)) as engine, running({"engine": backend(engine.url, kind=kind)}, served) as rig:
        reply = await sent(rig, DEVELOPER, U, LATE)

    assert reply.status == 400
    assert written_to(engine) == [[DEVELOPER, U, LATE]]


# -- other dialects

DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "fake", "max_tokens": 8, "system": "be short", "messages": [U, LATE]},
    "/v1/responses": {
        "model": "fake",
        "instructions": "be short",
        "input": [U, {"role": "developer", "content": "agents: one"}],
    },
    "/api/chat": {"model": "fake", "stream": False, "messages": [S, U, LATE]},
}


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "remote"])
@pytest.mark.parametrize("path", DIALECTS)
async def test_every_dialects_later_system_messages_are_folded(path: str, kind: str) -> None:
    behave = KINDS.get(kind, vllm)(at_front)
    async with Talker(behave) as engine, running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig:
        reply = await rig.ask(path, DIALECTS[path])

    theirs = "input" if path == "/v1/responses" else "messages"
    assert (reply.status, reply.headers[ADJUSTED]) == (200, theirs)
    assert written_to(engine)[-1] == LAST


@pytest.mark.parametrize("kind", KINDS)
async def test_a_count_is_of_what_the_chat_would_be(kind: str) -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        if "content" in body:
            return 200, {"tokens": [1, 2, 3]}
        return KINDS[kind](at_front)(path, body)

    async with Talker(behave) as engine, running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig:
        reply = await rig.ask(
            "/v1/messages/count_tokens", {"model": "fake", "system": "be short", "messages": [U, LATE]}
        )

    assert reply.status == 200
    counted = [body["messages"] for path, body in engine.asked if "messages" in body]
    assert counted[-1] == LAST


# -- Ollama


async def test_a_daemon_renders_with_what_every_request_is_sent_and_loads_the_model_once() -> None:
    async with FakeOllama() as daemon, ollama(daemon, num_ctx=512) as rig:
        daemon.renders = at_front
        first = await sent(rig, S, U, LATE, model="smollm2:135m")
        asked = len(daemon.asked)
        second = await sent(rig, S, U, A, LATE, U, model="smollm2:135m")

    assert (first.status, second.status) == (200, 200)
    assert first.headers[ADJUSTED] == second.headers[ADJUSTED] == "messages"
    assert [each.body["messages"] for each in daemon.asked if "_debug_render_only" not in each.body] == [LAST, MIDDLE]
    assert asked + 1 == len(daemon.asked)
    assert daemon.loads == [("smollm2:135m", 512)]


async def test_a_daemon_that_cannot_render_gets_the_conversation_as_it_is() -> None:
    async with FakeOllama() as daemon, ollama(daemon) as rig:
        reply = await sent(rig, S, U, LATE, model="smollm2:135m")

    probe, last = daemon.asked
    assert reply.status == 200
    assert ADJUSTED not in reply.headers
    assert probe.body["options"]["num_predict"] == 1
    assert last.body["messages"] == [S, U, LATE]
