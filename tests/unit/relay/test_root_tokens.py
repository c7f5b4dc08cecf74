"""Tokens at the root, where vLLM has them for the one model that it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest
import pytest_asyncio

from tests.fakes.scripted import Json, Scripted, whole
from tests.rigs.relay import Rig, backend, models, running

PROPS = {
    "default_generation_settings": {"n_ctx": 8192},
    "bos_token": "<s>",
    "eos_token": "",
    "chat_template": "{{ messages }}",
}
ANSWERS: dict[str, Json] = {
    "/tokenize": {"tokens": [1, 2], "count": 2, "max_model_len": 9},
    "/detokenize": {"prompt": "text", "content": "text"},
    "/tokenizer_info": {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"},
    "/props": PROPS,
}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with Scripted(lambda path, body: whole(ANSWERS[path])) as fake:
        yield fake


async def asked(rig: Rig, path: str, body: Json | None = None) -> Json:
    reply = await rig.ask(path, body or b"")
    assert reply.status == 200, reply.body
    answer: Json = reply.json
    return answer


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
async def test_the_only_model_needs_no_name(engine: Scripted, kind: str) -> None:
    async with running({"engine": backend(engine.url, kind=kind)}, models("public", engine_name="fake")) as rig:
        tokens = await asked(rig, "/tokenize", {"prompt": "a b"})
        text = await asked(rig, "/detokenize", {"tokens": [1, 2]})
        named = await asked(rig, "/tokenize", {"model": "public", "prompt": "a b"})

    assert tokens["tokens"] == named["tokens"] == [1, 2]
    assert text["prompt"] == "text"


async def test_of_several_models_one_must_be_named_and_the_default_does_not_count(engine: Scripted) -> None:
    async with running({"engine": backend(engine.url)}, models("one", "two", engine_name="fake")) as rig:
        nameless = await rig.ask("/tokenize", {"prompt": "a"})
        about = await rig.ask("/tokenizer_info")
        named = await rig.ask("/tokenizer_info?model=two")
        unknown = await rig.ask("/tokenizer_info?model=three")

    assert [(reply.status, reply.error["param"]) for reply in (nameless, about)] == [(400, "model"), (400, "model")]
    assert (named.status, unknown.status) == (200, 404)


@pytest.mark.parametrize("name", ["%00", "%20", "three"])
async def test_a_name_that_is_none_is_a_404_also_where_there_is_one_model_only(engine: Scripted, name: str) -> None:
    async with running({"engine": backend(engine.url)}, models("public", engine_name="fake")) as rig:
        replies = [
            await rig.ask(f"/tokenizer_info?model={name}"),
            await rig.ask("/tokenize", {"model": unquote(name), "prompt": "a"}),
        ]

    assert [(reply.status, reply.error["code"]) for reply in replies] == [(404, "model_not_found")] * 2


async def test_a_tokenizer_is_told_as_vllm_tells_it(engine: Scripted) -> None:
    async with running({"engine": backend(engine.url)}, models("public", engine_name="fake")) as rig:
        by_vllm = await asked(rig, "/tokenizer_info")
    async with running({"engine": backend(engine.url, kind="llama_cpp")}, models("public")) as rig:
        embedded = await asked(rig, "/tokenizer_info")

    assert by_vllm == ANSWERS["/tokenizer_info"]
    assert embedded == {
        "tokenizer_class": "llama.cpp",
        "model_max_length": 8192,
        "bos_token": "<s>",
        "eos_token": None,
        "chat_template": "{{ messages }}",
    }


async def test_an_engine_that_does_not_tell_its_tokenizer_is_a_400() -> None:
    async with (
        Scripted(lambda path, body: whole({"detail": "Not Found"}, 404)) as engine,
        running({"engine": backend(engine.url)}, models("public", engine_name="fake")) as rig,
    ):
        reply = await rig.ask("/tokenizer_info")

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert "does not tell what its tokenizer is" in reply.error["message"]
