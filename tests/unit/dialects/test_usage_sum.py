"""Several answers of an engine that tells the cost of each: one sum, in answers, streams and metrics."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.dialects.openai.stream_reader import DONE, StreamReader
from app.dialects.openai.usage_sum import UsageSum
from app.dialects.usage import Usage
from app.dialects.usage import timings as read_timings
from backends.endpoint import UsageMode
from tests.fakes import wire
from tests.fakes.scripted import Json, Scripted, events
from tests.rigs.raw_client import chat
from tests.rigs.read_answer import response_context
from tests.rigs.relay import backend, models, running


def usage(prompt: int, output: int, cached: int = 0) -> Json:
    both = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return both | {"prompt_tokens_details": {"cached_tokens": cached}}


def timings(prompt: int, cached: int, output: int) -> Json:
    return {"cache_n": cached, "prompt_n": prompt, "predicted_n": output, "predicted_ms": 1.5}


HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake"}


def piece(at: int, text: str | None, finish: str | None = None, **more: Any) -> Json:
    delta = {} if text is None else {"content": text}
    return {**HEAD, "choices": [{"index": at, "delta": delta, "finish_reason": finish}], **more}


def told(at: int, prompt: int, output: int) -> list[Json]:
    """The end of one answer of llama.cpp's, where usage was asked for."""
    cost = {"usage": usage(prompt, output, prompt - 1), "timings": timings(1, prompt - 1, output)}
    return [piece(at, None, "stop"), {**HEAD, "choices": [], **cost}]


TWO = [piece(0, "a"), piece(1, "b"), *told(1, 33, 3), piece(0, "c"), *told(0, 33, 5)]


def read(chunks: list[Json], reports: int, copies: int) -> tuple[list[Any], Usage]:
    asked = msgspec.structs.replace(response_context("fake"), reports=reports, copies=copies)
    reader = StreamReader(asked, hides_usage=False, max_event_bytes=1 << 20, choices=reports)
    data = b"".join(reader.feed(wire.sse(chunk)) for chunk in chunks) + reader.feed(DONE)
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")], reader.settle()


def test_a_stream_of_two_choices_has_one_usage_with_the_sum_and_the_prompt_once() -> None:
    got, cost = read(TWO, 2, 2)

    assert [each["usage"] for each in got if "usage" in each] == [usage(33, 8, 32)]
    assert got[-1]["choices"] == []
    assert cost == Usage(33, 8, "stop", cached_tokens=32)


def test_several_prompts_are_added_up_and_usage_beside_an_answers_end_moves_to_the_last() -> None:
    ends = [piece(at, None, "stop", usage=usage(prompt, 5)) for at, prompt in enumerate((4, 5, 1))]

    got, cost = read([piece(0, "a"), piece(1, "b"), piece(2, "c"), *ends], 3, 1)

    assert [each.get("usage") for each in got] == [None] * 5 + [usage(10, 15)]
    assert cost == Usage(10, 15, "stop")


def test_two_choices_of_two_prompts_count_each_prompt_once() -> None:
    ends = [piece(at, None, "stop", usage=usage(prompt, 2)) for at, prompt in enumerate((4, 4, 1, 1))]

    assert read([*(piece(at, "x") for at in range(4)), *ends], 4, 2)[1] == Usage(5, 8, "stop")


def test_where_usage_was_not_asked_for_the_engines_own_counts_are_added_up() -> None:
    ends = [piece(at, None, "stop", timings=timings(1, 32, 3 + at)) for at in range(2)]

    got, cost = read([piece(0, "a"), piece(1, "b"), *ends], 2, 2)

    assert cost == Usage(33, 7, "stop", cached_tokens=32)
    assert [each["timings"]["predicted_n"] for each in got if "timings" in each] == [3, 4]


def test_a_stream_that_is_left_in_the_middle_has_cost_what_was_told() -> None:
    assert read(TWO[:4], 2, 2)[1].output_tokens == 3


def test_one_answer_is_as_it_was() -> None:
    got, cost = read([piece(0, "a"), *told(0, 33, 3)], 1, 1)

    assert got[-1]["usage"] == usage(33, 3, 32)
    assert cost == Usage(33, 3, "stop", cached_tokens=32)


def test_what_is_no_number_counts_as_none() -> None:
    total = UsageSum(1, 1)

    assert total.add({"prompt_tokens": None, "completion_tokens": "x", "prompt_tokens_details": 5})
    assert total.usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_and_the_metrics_are_told_the_sum(stream: bool) -> None:
    def two(path: str, body: Json) -> bytes:
        return events(*TWO)

    async with Scripted(two) as engine:
        ours = backend(engine.url, kind="llama_cpp", usage=UsageMode.TIMINGS, gathers=True)
        async with running({"engine": ours}, models("fake")) as rig:
            options: Json = {"stream_options": {"include_usage": True}} if stream else {}
            reply = await rig.ask(body=chat(stream=stream, n=2, **options))

            counted = {
                kind: rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type=kind)
                for kind in ("input", "output")
            }
    told = [each["usage"] for each in (reply.events[:-1] if stream else [reply.json]) if each.get("usage")]
    assert told == [usage(33, 8, 32)]
    assert counted == {"input": 33, "output": 8}


@pytest.mark.parametrize("count", [-1, 1 << 53, 1 << 80])
def test_timings_that_can_be_no_number_of_tokens_count_as_none(count: int) -> None:
    assert read_timings(timings(1, 2, count)) is None
    assert read_timings(timings(1, 2, 3)) is not None
