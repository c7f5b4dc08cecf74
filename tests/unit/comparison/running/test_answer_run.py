"""A run's questions, asked over a real socket of a gateway that answers as a test says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.comparison.model_answer import ModelAnswer
from app.comparison.running.asks import remaining, unmeasured
from app.comparison.running.gateway_client import ChatReply, GatewayClient, SilenceLimits
from app.comparison.running.likelihood import refuse_untold
from app.comparison.running.run_record import DrawnWith, RunProblem
from app.comparison.running.runner import AnswerRun, ServingChanged
from tests.fakes import wire
from tests.fakes.scripted import LAST, Scripted, whole
from tests.unit.comparison.running.runs import questions


class Told:
    """A RunProgress that keeps the last count."""

    last = (0, 0, 0)

    def step(self, text: str) -> None:
        raise AssertionError(text)

    def count(self, done: int, total: int, failed: int) -> None:
        self.last = (done, total, failed)

    def waiting(self, why: str) -> None:
        raise AssertionError(why)


class Pauses:
    """Waits for nothing, and keeps how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def stream(*deltas: dict[str, Any], end: bytes = wire.DONE, **headers: str) -> bytes:
    """A stream of these deltas, with these headers of the gateway's."""
    lines = "".join(f"\r\nx-modelport-{name}: {value}" for name, value in headers.items())
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": each}]} for each in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    body = b"".join(wire.chunk(wire.sse(each)) for each in chunks)
    return wire.SSE_HEAD.replace(b"\r\n\r\n", f"{lines}\r\n\r\n".encode()) + body + wire.chunk(end) + LAST


def refusal(status: int, message: str, *headers: str) -> bytes:
    lines = "".join(f"\r\n{each}" for each in headers)
    return whole({"error": {"message": message}}, status).replace(b"\r\n\r\n", f"{lines}\r\n\r\n".encode(), 1)


async def asked(gateway: Scripted, pause: Pauses | None = None) -> ChatReply:
    async with GatewayClient(gateway.url.removesuffix("/v1"), "key", 2, pause=pause or Pauses()) as client:
        return await client.chat({"model": "base", "messages": []})


async def run(
    gateway: Scripted, count: int, *, likelihood: bool = False, servings: tuple[str, ...] = ()
) -> tuple[list[ModelAnswer], AnswerRun]:
    """The answers of one model to so many questions, one after the other."""
    kept: list[ModelAnswer] = []
    async with GatewayClient(gateway.url.removesuffix("/v1"), None, 1, pause=Pauses()) as client:
        runner = AnswerRun(
            client,
            DrawnWith(),
            {"base": servings},
            kept.append,
            likelihood=likelihood,
            concurrency=1,
            progress=Told(),
        )
        try:
            await runner.run(remaining(questions(count), ["base"], 0, []))
        except RunProblem as exc:
            exc.add_note(f"{len(kept)} kept")
            raise
    return kept, runner


async def test_an_answer_is_read_with_its_thoughts_tokens_and_times() -> None:
    pieces = ({"reasoning_content": "hm"}, {"content": "twelve"}, {"content": " 十二"})
    async with Scripted(lambda path, body: stream(*pieces, serving="abc", model="base")) as gateway:
        reply = await asked(gateway)

    assert (reply.text, reply.reasoning, reply.finish_reason) == ("twelve 十二", "hm", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (9, 2)
    assert (reply.serving, reply.model, reply.error) == ("abc", "base", None)
    assert reply.first_token_s is not None
    assert reply.seconds is not None
    assert 0 < reply.first_token_s <= reply.seconds
    assert gateway.last["stream_options"] == {"include_usage": True}


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    failed = wire.sse({"error": {"message": "the engine has crashed"}})
    async with Scripted(lambda path, body: stream({"content": "twel"}, end=failed)) as gateway:
        told = await asked(gateway)
    async with Scripted(lambda path, body: stream({"content": "twel"}, end=b": nothing more\n\n")) as gateway:
        silent = await asked(gateway)

    assert told.error == "the engine has crashed"
    assert silent.error == "the answer broke off"


async def test_a_gateway_that_is_too_busy_is_asked_again_after_the_time_it_says() -> None:
    def behave(path: str, body: Any) -> bytes:
        if len(gateway.bodies) < 3:
            return refusal(429, "all places are taken", "retry-after: 7")
        return stream({"content": "ok"})

    pause, told = Pauses(), list[str]()
    async with (
        Scripted(behave) as gateway,
        GatewayClient(gateway.url.removesuffix("/v1"), "key", 2, waiting=told.append, pause=pause) as client,
    ):
        reply = await client.chat({"model": "base", "messages": []})

    assert (reply.text, pause.seconds) == ("ok", [7.0, 7.0])
    assert told == ["all places are taken", "all places are taken"]


async def test_a_pause_is_told_once_and_what_stays_silent_is_an_error() -> None:
    """The gateway's comments, by which it holds a connection open, end no pause."""
    hanging = wire.SSE_HEAD + wire.chunk(wire.sse({"choices": [{"index": 0, "delta": {"content": "tw"}}]}))
    hanging += wire.chunk(b": hold\n\n")
    told = list[str]()
    async with (
        Scripted(lambda path, body: hanging) as gateway,
        GatewayClient(
            gateway.url.removesuffix("/v1"), None, 1, waiting=told.append, patience=SilenceLimits(0.05, 30, 0.5)
        ) as client,
    ):
        reply = await client.chat({"model": "base", "messages": []})

    assert reply.error == "nothing came from base for too long, so it was not waited for any longer"
    assert told == ["nothing has come for 0.05 s from base"]
    assert len(gateway.bodies) == 1


async def test_a_short_question_that_nobody_answers_is_refused() -> None:
    async with (
        Scripted(lambda path, body: b"") as gateway,
        GatewayClient(gateway.url.removesuffix("/v1"), None, 1, patience=SilenceLimits(30, 0.1, 30)) as client,
    ):
        reply = await client.ask("/v1/tokenize", {"model": "base", "prompt": "12"})

    assert (reply.status, reply.refusal[:22]) == (504, "nothing came from base")


async def test_a_refused_question_is_an_error_and_a_refused_key_ends_the_run() -> None:
    async with Scripted(lambda path, body: refusal(400, "the prompt is too long")) as gateway:
        assert (await asked(gateway)).error == "the prompt is too long"
    async with Scripted(lambda path, body: refusal(401, "no such key")) as gateway:
        with pytest.raises(RunProblem, match="refuses to ask 'base': no such key"):
            await asked(gateway)


async def test_a_gateway_that_is_not_there_is_one_sentence() -> None:
    pause = Pauses()
    async with GatewayClient("http://127.0.0.1:9", None, 1, pause=pause) as client:
        with pytest.raises(RunProblem, match=r"127.0.0.1:9 does not answer .*goes on where it was"):
            await client.chat({"model": "base", "messages": []})

    assert len(pause.seconds) == 4


async def test_a_serving_that_changes_ends_the_run_and_its_answer_is_not_kept() -> None:
    def behave(path: str, body: Any) -> bytes:
        return stream({"content": "ok"}, serving="new" if len(gateway.bodies) > 3 else "old")

    async with Scripted(behave) as gateway:
        with pytest.raises(ServingChanged, match=r"answers with has changed .*serving old, now new") as told:
            await run(gateway, 9)

    assert told.value.__notes__ == ["3 kept"]


async def test_a_serving_that_was_known_before_counts_from_the_first_answer_on() -> None:
    async with Scripted(lambda path, body: stream({"content": "ok"}, serving="new")) as gateway:
        with pytest.raises(ServingChanged):
            await run(gateway, 2, servings=("old",))


async def test_an_answer_of_another_model_is_an_error() -> None:
    async with Scripted(lambda path, body: stream({"content": "ok"}, model="fallback")) as gateway:
        kept, _ = await run(gateway, 1)

    assert kept[0].error == "fallback answered in its place"


async def test_a_model_that_only_fails_is_not_asked_for_ever() -> None:
    async with Scripted(lambda path, body: refusal(400, "no chat template")) as gateway:
        with pytest.raises(RunProblem, match="answered none of its first 10 questions: no chat template") as told:
            await run(gateway, 100)

    assert told.value.__notes__ == ["10 kept"]


def tells(path: str, body: Any) -> bytes:
    """A gateway whose engine tells how likely tokens are: the prompt has 3, the answer as many as letters."""
    match path:
        case "/v1/chat/completions":
            return stream({"content": "ok"})
        case "/v1/chat/completions/render":
            return whole({"prompt": "<Q>", "tokens": [1, 2, 3]})
        case "/v1/tokenize":
            return whole({"tokens": [70 + at for at in range(len(body["prompt"]))]})
        case _:
            assert (body["max_tokens"], body["echo"], body["logprobs"]) == (0, True, 1)
            logprobs: list[float | None] = [None, -9.0, -9.0, *(-0.5 for _ in body["prompt"][3:])]
            return whole({"choices": [{"text": "", "logprobs": {"token_logprobs": logprobs}}]})


async def test_the_reference_is_as_likely_as_its_tokens_behind_the_prompt() -> None:
    async with Scripted(tells) as gateway:
        kept, runner = await run(gateway, 10, likelihood=True)

    assert [each.reference_logprob for each in kept] == [-0.5] * 9 + [-1.0]
    assert [each.reference_tokens for each in kept] == [1] * 9 + [2]
    assert runner.unlikely == {}


async def test_answers_that_are_there_are_measured_without_being_asked_again() -> None:
    failed = ModelAnswer("q1", "base", 0, error="broke off")
    good = ModelAnswer("q2", "base", 0, "ok")
    known = ModelAnswer("q0", "base", 0, "ok", reference_logprob=-1.0, reference_tokens=1)
    kept: list[ModelAnswer] = []
    async with (
        Scripted(tells) as gateway,
        GatewayClient(gateway.url.removesuffix("/v1"), None, 1, pause=Pauses()) as client,
    ):
        runner = AnswerRun(client, DrawnWith(), {}, kept.append, likelihood=True, concurrency=1, progress=Told())
        await runner.measure(unmeasured(questions(3), ["base"], [failed, good, known]))

    assert kept == [replace(good, reference_logprob=-0.5, reference_tokens=1)]
    assert len(gateway.bodies) == 3


async def test_a_measure_that_an_engine_does_not_tell_cannot_decide() -> None:
    def behave(path: str, body: Any) -> bytes:
        return refusal(400, "Ollama cannot echo.") if path == "/v1/completions" else tells(path, body)

    for behaves, measured, why in (
        (behave, True, r"is not known of 'base' \(Ollama cannot echo\); name another measure with --primary"),
        (tells, False, "it is not measured with --no-likelihood"),
    ):
        async with (
            Scripted(behaves) as gateway,
            GatewayClient(gateway.url.removesuffix("/v1"), None, 1, pause=Pauses()) as client,
        ):
            with pytest.raises(RunProblem, match=f"`logprob` cannot decide: .*{why}"):
                await refuse_untold(client, ["base"], questions(2), is_measured=measured)
    async with (
        Scripted(tells) as gateway,
        GatewayClient(gateway.url.removesuffix("/v1"), None, 1, pause=Pauses()) as client,
    ):
        await refuse_untold(client, ["base", "tuned"], questions(2), is_measured=True)

    assert len(gateway.bodies) == 6


async def test_an_engine_that_does_not_tell_is_asked_once() -> None:
    def behave(path: str, body: Any) -> bytes:
        return refusal(400, "Ollama cannot echo") if path == "/v1/completions" else tells(path, body)

    async with Scripted(behave) as gateway:
        kept, runner = await run(gateway, 4, likelihood=True)

    assert [each.reference_logprob for each in kept] == [None] * 4
    assert [each.error for each in kept] == [None] * 4
    assert runner.unlikely == {"base": "Ollama cannot echo"}
    assert len(gateway.bodies) == 4 + 3
