"""Embeddings come in the form that was asked for, whichever an engine sends: numbers, or base64."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.openai.embeddings import EmbeddingFormat, fitted
from app.table import Limits
from backends.errors import Broken, Unsupported
from tests.fakes.scripted import Json, Scripted, whole
from tests.rigs.raw_client import Reply
from tests.rigs.relay import backend, models, running

NUMBERS = [0.25, -0.5, 0.75, 1.0]
PACKED = "AACAPgAAAL8AAEA/AACAPw=="
FLOAT, BASE64, ABSENT = {"encoding_format": "float"}, {"encoding_format": "base64"}, {"encoding_format": None}


def answer(*vectors: Any, **more: Any) -> Json:
    data = [{"object": "embedding", "index": at, "embedding": each, **more} for at, each in enumerate(vectors)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def made(given: Any, form: str | None = None, dimensions: int | None = None) -> Any:
    return json.loads(fitted("engine", json.dumps(given).encode(), EmbeddingFormat(form, dimensions)))


CASES: dict[str, tuple[Json, Any, Any]] = {
    "a list for base64": (BASE64, NUMBERS, PACKED),
    "base64 for base64": (BASE64, PACKED, PACKED),
    "base64 for float": (FLOAT, PACKED, NUMBERS),
    "base64 where nothing was asked": ({}, PACKED, NUMBERS),
    "base64 where null was asked": (ABSENT, PACKED, NUMBERS),
    "a list for float": (FLOAT, NUMBERS, NUMBERS),
    "a list where nothing was asked": ({}, NUMBERS, NUMBERS),
}


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "remote"])
@pytest.mark.parametrize(("asked", "sent", "expected"), CASES.values(), ids=CASES)
async def test_the_client_gets_the_form_that_it_asked_for(kind: str, asked: Json, sent: Any, expected: Any) -> None:
    reply = await _asked(answer(sent, sent), kind, {"input": ["a", "b"], **asked})

    assert [each["embedding"] for each in reply.json["data"]] == [expected, expected]
    assert reply.json["model"] == "m"
    assert reply.json["usage"] == {"prompt_tokens": 1, "total_tokens": 1}


async def test_clients_of_ollama_get_numbers_from_an_engine_that_knows_base64_only() -> None:
    reply = await _asked(answer(PACKED), "remote", {"input": "a"}, "/api/embed")

    assert reply.json["embeddings"] == [NUMBERS]


async def test_a_large_answer_is_turned_as_well() -> None:
    reply = await _asked(answer(*[NUMBERS * 4000] * 8), "remote", {"input": "a", **BASE64})

    assert len(reply.json["data"]) == 8
    assert all(each["embedding"] == reply.json["data"][0]["embedding"] for each in reply.json["data"])
    assert reply.json["data"][0]["embedding"].startswith(PACKED[:20])


@pytest.mark.parametrize(("dimensions", "status"), [(2, 400), (4, 200), (None, 200)])
async def test_dimensions_that_the_embedded_engine_does_not_make_are_refused(dimensions: Any, status: int) -> None:
    reply = await _asked(answer(NUMBERS), "llama_cpp", {"input": "a", "dimensions": dimensions})

    assert reply.status == status
    if status == 400:
        assert (reply.error["code"], reply.error["param"]) == ("not_supported", "dimensions")
        assert "have 4 numbers" in reply.error["message"]


async def test_a_remote_engines_dimensions_are_its_own() -> None:
    assert (await _asked(answer(NUMBERS), "remote", {"input": "a", "dimensions": 2})).status == 200


async def _asked(told: Json, kind: str, fields: Json, path: str = "/v1/embeddings") -> Reply:
    async with Scripted(lambda path, body: whole(told)) as engine:
        local = backend(engine.url, kind=kind)
        async with running({"engine": local}, models("m"), Limits(max_answer_bytes=1 << 24)) as rig:
            return await rig.ask(path, {"model": "m", **fields})


def test_what_is_packed_counts_its_numbers_too() -> None:
    assert made(answer(PACKED), "base64", 4)["data"][0]["embedding"] == PACKED
    with pytest.raises(Unsupported, match="have 4 numbers"):
        made(answer(PACKED), "base64", 3)


def test_an_engines_own_form_is_left_to_it() -> None:
    given = answer(NUMBERS)

    assert made(given, "bytes") == given


@pytest.mark.parametrize(
    "given",
    [answer(), answer(None), answer([NUMBERS, NUMBERS]), answer([1e300]), {"data": 5}, {"error": "x"}, [], answer({})],
)
@pytest.mark.parametrize("dimensions", [None, 3])
def test_what_is_no_vector_stays_as_it_is(given: Any, dimensions: int | None) -> None:
    returned = given if given == answer([1e300]) and dimensions else made(given, "base64", dimensions)

    assert returned == given


@pytest.mark.parametrize("wrong", ["!!", "AAA=", "AACA"])
def test_text_that_is_no_vector_is_a_broken_answer(wrong: str) -> None:
    with pytest.raises(Broken, match="neither numbers nor base64"):
        made(answer(wrong), "float")


def test_the_embedded_engines_word_for_the_form_goes_with_it() -> None:
    assert "encoding_format" not in made(answer(PACKED, encoding_format="base64"))["data"][0]
