"""An adapter is held against its base in the engine: what is asked, and what follows from the answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.endpoint import Endpoint
from backends.engine import Adapters, Proof
from backends.errors import EngineFailed, NotFinite
from backends.http.probe_client import Reply
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm
from backends.vllm.lora import probe
from backends.vllm.lora.adapters import refusal
from backends.vllm.lora.probe import TEXTS, Comparison, distance

REFUSED = b'{"error": {"message": "Out of range float values are not JSON compliant", "code": 400}}'
Answer = tuple[int, bytes]


def said(*values: float | None) -> Answer:
    """An answer to the probe in which the first token of each text has one of these log-probabilities."""
    filled = [values[at % len(values)] for at in range(len(TEXTS))]
    choices = [{"index": at, "logprobs": {"top_logprobs": [{"a": value}]}} for at, value in enumerate(filled)]
    return 200, json.dumps({"choices": choices}).encode()


@asynccontextmanager
async def engine(answers: Sequence[Answer], **settings: object) -> AsyncIterator[tuple[Adapters, Endpoint, list[Any]]]:
    """An engine that gives these answers, one after the other and then again, and what it was asked."""
    asked: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if "content-length" in line)
        rank = next((line.split(":")[1].strip() for line in head.split("\r\n") if "data-parallel-rank" in line), None)
        asked.append((head.split()[1], rank, json.loads(await reader.readexactly(length))))
        status, body = answers[(len(asked) - 1) % len(answers)]
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    config = VllmConfig.model_validate({"kind": "vllm", "model": "org/m", "enable_lora": True, **settings})
    adapters = Vllm("gpu", config).adapters
    assert adapters is not None
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield adapters, Endpoint("gpu", 1, f"http://127.0.0.1:{port}/v1"), asked


async def test_the_base_is_asked_twice_and_then_the_adapter() -> None:
    async with engine([said(-1.0), said(-1.0), said(-1.5)]) as (adapters, endpoint, asked):
        proof = await adapters.prove(endpoint, "law")

    assert proof == Proof(0.5, 0.0)
    assert [body["model"] for _, _, body in asked] == ["gpu", "gpu", "law"]
    assert {path for path, _, _ in asked} == {"/v1/completions"}
    assert asked[0][2] == {**asked[2][2], "model": "gpu"}
    assert "echo" not in asked[0][2], "vLLM for the CPU dies of it while other requests run"


async def test_one_that_answers_as_the_base_does_nothing() -> None:
    async with engine([said(-1.0), said(-1.0), said(-1.00001)]) as (adapters, endpoint, asked):
        with pytest.raises(
            EngineFailed, match=r"the adapter 'law' is loaded, but it does nothing: it answers as the b"
        ):
            await adapters.prove(endpoint, "law")

    assert len(asked) == 3


async def test_where_the_base_differs_from_itself_more_is_asked_before_it_is_said_to_do_nothing() -> None:
    rounds = [said(-1.0), said(-1.2), said(-1.1), said(-1.05), said(-0.95), said(-1.15)]

    async with engine(rounds) as (adapters, endpoint, asked):
        with pytest.raises(EngineFailed, match=r"differ by 0\.05, the base's own by 0\.2"):
            await adapters.prove(endpoint, "law")

    assert len(asked) == 9


async def test_an_effect_far_beyond_the_bases_own_difference_is_enough() -> None:
    async with engine([said(-1.0), said(-1.2), said(-4.0)]) as (adapters, endpoint, asked):
        proof = await adapters.prove(endpoint, "law")

    assert (round(proof.effect, 6), round(proof.noise, 6), len(asked)) == (2.8, 0.2, 3)


NO_NUMBERS: dict[str, Answer] = {
    "vLLM's refusal": (400, REFUSED),
    "null": said(None),
    "NaN": (200, said(-1.0)[1].replace(b"-1.0", b"NaN")),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
@pytest.mark.parametrize(("at", "whose"), [(0, None), (1, None), (2, "law")])
async def test_answers_that_are_no_numbers_are_known_with_whose_they_are(case: str, at: int, whose: str | None) -> None:
    answers = [said(-1.0), said(-1.0), said(-1.5)]
    answers[at] = NO_NUMBERS[case]

    async with engine(answers) as (adapters, endpoint, _):
        with pytest.raises(NotFinite, match="answers no numbers") as raised:
            await adapters.prove(endpoint, "law")

    assert raised.value.adapter == whose


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, b'{"error": {"message": "max_logprobs is 0"}}'), "max_logprobs is 0 (status 400)"),
        ((404, b"{}"), "status 404"),
        ((200, b'{"choices": []}'), "status 200"),
        ((200, b'{"choices": [{"index": 0, "logprobs": null}]}'), "status 200"),
    ],
)
async def test_an_engine_that_gives_no_log_probabilities_proves_nothing(answer: Answer, why: str) -> None:
    async with engine([answer]) as (adapters, endpoint, _):
        proof = await adapters.prove(endpoint, "law")

    assert proof == Proof(why_not=f"it gives no log-probabilities to compare: {why}")


async def test_an_engine_that_fails_at_the_adapter_is_said_to() -> None:
    failed = (500, b'{"error": {"message": "EngineCore encountered an issue"}}')

    async with engine([said(-1.0), said(-1.0), failed]) as (adapters, endpoint, _):
        with pytest.raises(EngineFailed, match="the adapter 'law' fails at its first request: EngineCore"):
            await adapters.prove(endpoint, "law")


async def test_every_copy_of_the_model_is_asked_and_the_least_effect_counts() -> None:
    answers = [said(-1.0), said(-1.0), said(-1.5), said(-1.0), said(-1.0), said(-1.25)]

    async with engine(answers, data_parallel_size=2) as (adapters, endpoint, asked):
        proof = await adapters.prove(endpoint, "law")

    assert [rank for _, rank, _ in asked] == ["0"] * 3 + ["1"] * 3
    assert proof == Proof(0.25, 0.0)


def vectors(*values: float) -> Callable[[str], Answer]:
    return lambda key: (200, json.dumps({"data": [{key: list(values)} for _ in TEXTS]}).encode())


@pytest.mark.parametrize(
    ("task", "path", "key"), [("embed", "/v1/embeddings", "embedding"), ("classify", "/classify", "probs")]
)
async def test_models_that_write_nothing_are_compared_by_their_vectors(task: str, path: str, key: str) -> None:
    answers = [make(key) for make in (vectors(0.5, 0.25), vectors(0.5, 0.25), vectors(0.5, 0.75))]

    async with engine(answers, task=task) as (adapters, endpoint, asked):
        proof = await adapters.prove(endpoint, "law")

    assert proof == Proof(0.5, 0.0)
    assert asked[0][0] == path


def test_a_token_that_only_one_names_is_known_to_be_below_all_of_the_other() -> None:
    assert distance([{"a": -1.0, "b": -3.0}], [{"a": -1.0, "c": -3.0}]) == 0.0
    assert distance([{"a": -1.0}], [{"b": -4.0}]) == 3.0


figures = st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(-20, 0), min_size=1), min_size=3, max_size=3)


@given(figures, figures)
def test_a_distance_is_the_same_both_ways_and_nothing_is_apart_from_itself(one: Any, other: Any) -> None:
    assert distance(one, other) == distance(other, one) >= 0
    assert distance(one, one) == 0


@given(st.lists(figures, min_size=2, max_size=4))
def test_one_that_answers_what_the_base_has_answered_is_never_proved(answers: Any) -> None:
    proof = Comparison(answers, [answers[0]]).proof()

    assert proof.effect == 0
    assert probe.is_nothing(proof)


def test_values_that_are_no_numbers_are_seen() -> None:
    assert probe.are_finite([{"a": -1.0}])
    assert not probe.are_finite([{"a": -1.0}, {"b": math.inf}])


WRAPPED = "Call to add_lora method failed: Worker failed with error '{}', please check the stack trace above"
LONG = ", ".join(f"'module_{number}'" for number in range(40))
REFUSALS = {
    "a rank": (
        "LoRA rank 64 is greater than max_lora_rank 16.",
        "LoRA rank 64 is greater than max_lora_rank 16. (status 500)",
    ),
    "its own quotes": (
        "Unsupported modules_to_save: ['lm_head']",
        "Unsupported modules_to_save: ['lm_head'] (status 500)",
    ),
    "names behind many others": (
        f"While loading /data/law, expected target modules in {{{LONG}}} but received ['model.layers.0.mlp.gate'].",
        "it has weights for 'model.layers.0.mlp.gate', and of this model the engine adapts module_0, module_1, ",
    ),
    "the folder's path": ("/data/law doesn't contain tensors", "law doesn't contain tensors (status 500)"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_vllms_own_sentence_is_told_whole(case: str, is_wrapped: bool) -> None:
    """The names that a reader needs used to be cut off behind those that vLLM would have taken."""
    inner, sentence = REFUSALS[case]
    message = WRAPPED.format(inner) if is_wrapped else inner

    told = refusal(Reply(500, json.dumps({"error": {"message": message}}).encode()), "/data/law")

    assert told.startswith(sentence)
    assert "module_39" in told or case != "names behind many others"


def test_a_refusal_without_words_has_its_status() -> None:
    assert refusal(Reply(502, b"<html>"), str(Path("/data/law"))) == "status 502"
