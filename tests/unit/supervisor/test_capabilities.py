"""What tests have shown of models: what a test is, what it proves, and how that outlives the supervisor."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.errors import Problem
from app.supervisor.admin.capabilities import MOST, CapabilityStore, ProbeResult
from app.supervisor.admin.prober import UNDECIDED, Prober, probe_request, verdict
from app.supervisor.admission.gate import AdmissionGate
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, PublicModel, Table, Target
from backends.config.base import BackendConfig
from backends.endpoint import CAPABILITIES, DECLARED, FAILED, VERIFIED, Dialect, Endpoint, ModelFacts, State
from backends.llama_cpp.config import LlamaCppConfig
from backends.ollama.config import OllamaConfig
from backends.remote.config import RemoteConfig
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama

SAID = ModelFacts(context_length=512, capabilities={"chat": DECLARED, "tools": DECLARED})


def llama(**settings: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": "none.gguf", **settings})


def row(name: str = "a", **fields: Any) -> Backend:
    return Backend(name, **{"kind": "llama_cpp", "state": State.READY, "version": "1", "facts": {"": SAID}, **fields})


def known(configs: Mapping[str, BackendConfig], path: Path | None = None) -> CapabilityStore:
    store = CapabilityStore(path)
    store.refresh(configs)
    return store


def result(store: CapabilityStore, backend: str = "a", version: str | None = "1", **capabilities: str) -> ProbeResult:
    return ProbeResult(store.engine(backend), backend, "", version, 512, capabilities)


# -- what is remembered


def test_what_was_shown_goes_before_what_is_said_and_outlives_the_supervisor(tmp_path: Path) -> None:
    before = known({"a": llama()}, tmp_path / "proofs.json")
    before.put(result(before, tools=FAILED, logprobs=VERIFIED))

    after = known({"a": llama(), "b": llama(start="demand"), "c": llama(slots=2)}, tmp_path / "proofs.json")
    told = after.applied({name: row(name) for name in "abc"})

    shown_now = {"chat": DECLARED, "tools": FAILED, "logprobs": VERIFIED}
    assert told["a"].facts[""].capabilities == told["b"].facts[""].capabilities == shown_now
    assert told["c"] == row("c")  # another engine


def test_a_new_version_of_the_engine_has_to_show_it_again() -> None:
    store = known({"a": llama()})
    store.put(result(store, chat=VERIFIED))

    assert store.applied({"a": row(version="2")})["a"].facts == {"": SAID}


def test_an_engine_that_does_not_run_is_told_of_as_it_was_last() -> None:
    store = known({"a": llama()})
    store.put(result(store, version="1", chat=FAILED))
    store.put(result(store, version="2", chat=VERIFIED))

    stopped = row(state=State.STOPPED, version=None, facts={})
    assert store.applied({"a": stopped})["a"].facts == {
        "": ModelFacts(
            context_length=512,
            capabilities={"chat": VERIFIED, "completion": DECLARED, "json_schema": DECLARED, "logprobs": DECLARED},
        )
    }


def test_remote_engines_are_known_by_where_they_are() -> None:
    one = RemoteConfig.model_validate({"kind": "remote", "url": "http://one/v1"})
    two = RemoteConfig.model_validate({"kind": "remote", "url": "http://two/v1"})
    same = RemoteConfig.model_validate({"kind": "remote", "url": "http://one/v1/", "api_key": "sk-secret"})
    store = known({"one": one, "two": two, "same": same, "daemon": OllamaConfig(kind="ollama"), "a": llama()})

    assert store.engine("one") == store.engine("same")
    assert len({store.engine(name) for name in ("one", "two", "daemon", "a", "nobody")}) == 5


BROKEN = {
    "no JSON": b"{",
    "another version": b'{"version":2,"proofs":[]}',
    "a wrong word": json.dumps(
        {
            "version": 1,
            "proofs": [{"engine": "x", "backend": "a", "model": "", "version": None, "capabilities": {"chat": "yes"}}],
        }
    ).encode(),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "proofs.json").write_bytes(data)

    store = CapabilityStore(tmp_path / "proofs.json")

    assert repr(store) == f"<CapabilityStore 0 in {tmp_path}/proofs.json>"
    store.put(result(store, chat=VERIFIED))
    assert CapabilityStore(tmp_path / "proofs.json").of("a", "", "1") is not None


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    store = CapabilityStore(tmp_path / "nowhere" / "proofs.json")
    store.put(result(store, chat=VERIFIED))

    assert store.of("a", "", None) is not None


def test_the_oldest_are_forgotten_first() -> None:
    store = CapabilityStore()
    for number in range(MOST + 1):
        store.put(result(store, version=str(number)))

    assert store.of("a", "", "0") is None
    assert store.of("a", "", str(MOST)) is not None


# -- what a test is, and what it proves


def said(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop", **choice}]}


CALL = {"function": {"name": "note", "arguments": "{}"}}
ANSWERS: dict[str, tuple[str, Any, str]] = {
    "chat": ("chat", said({"content": "Hi"}), VERIFIED),
    "nothing": ("chat", None, FAILED),
    "no choices": ("chat", {"choices": []}, FAILED),
    "text": ("completion", {"choices": [{"text": ""}]}, VERIFIED),
    "no text": ("completion", {"choices": [{}]}, FAILED),
    "vector": ("embedding", {"data": [{"embedding": [0.1]}]}, VERIFIED),
    "empty vector": ("embedding", {"data": [{"embedding": []}]}, FAILED),
    "call": ("tools", said({"tool_calls": [CALL]}), VERIFIED),
    "words": ("tools", said({"content": "note(hi)"}), FAILED),
    "words that were cut": ("tools", said({"content": "note(hi"}, finish_reason="length"), UNDECIDED),
    "seen": ("vision", said({"content": "grey"}), VERIFIED),
    "thought": ("reasoning", said({"reasoning_content": "17 and 25 …"}, finish_reason="length"), VERIFIED),
    "thought, by the other name": ("reasoning", said({"reasoning": "hm"}), VERIFIED),
    "not thought": ("reasoning", said({"content": "42"}), FAILED),
    "as the schema": ("json_schema", said({"content": ' {"ok": true}'}), VERIFIED),
    "more than the schema": ("json_schema", said({"content": '{"ok": true, "why": ""}'}), FAILED),
    "no JSON": ("json_schema", said({"content": "Yes."}), FAILED),
    "cut JSON": ("json_schema", said({"content": '{"ok"'}, finish_reason="length"), UNDECIDED),
    "probabilities": ("logprobs", said({}, logprobs={"content": [{"token": "a"}]}), VERIFIED),
    "no probabilities": ("logprobs", said({}, logprobs=None, finish_reason="length"), FAILED),
}


@pytest.mark.parametrize(("capability", "answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_proves_what_it_shows(capability: str, answer: object, expected: str) -> None:
    assert verdict(capability, answer) == expected


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_test_is_tiny(capability: str) -> None:
    operation, body = probe_request(capability)

    assert body.get("max_tokens", 0) <= 128
    assert len(json.dumps(body)) < 1000
    assert operation in ("chat", "text_completion", "embeddings")


def test_the_picture_is_a_picture() -> None:
    parts = probe_request("vision")[1]["messages"][0]["content"]
    data = base64.b64decode(parts[0]["image_url"]["url"].removeprefix("data:image/png;base64,"))

    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    start = data.index(b"IDAT") + 4
    assert len(zlib.decompress(data[start : data.index(b"IEND") - 8])) == 32 * (1 + 3 * 32)


# -- the tests themselves, on engines that answer


class Engines:
    """What the prober asks of the gateway."""

    def __init__(self, *rows: Backend) -> None:
        self.rows = {each.name: each for each in rows}
        self.store = known({each.name: llama(slots=number + 1) for number, each in enumerate(rows)})
        self.published = 0
        self.gate = AdmissionGate(1, asyncio.get_running_loop().time)
        self.outcome = WaitOutcome(True)
        self.prober = Prober(self.store, self.wanted, lambda: self.rows, self.changed)
        targets = tuple(Target(each.name, "fake") for each in rows)
        self.table = Table(1, {"m": PublicModel("m", targets)}, {"alias": "m"}, (), self.rows)

    async def wanted(self, _backend: str) -> WaitOutcome:
        return WaitOutcome(True, permit=await self.gate.enter(0, 0.1)) if self.outcome.is_ready else self.outcome

    def changed(self) -> None:
        self.published += 1

    async def probe(self, *wanted: str, name: str = "m", again: bool = False) -> list[dict[str, str]]:
        told = await self.prober.probe(self.table, name, wanted or CAPABILITIES, again=again)
        return [each.capabilities for each in told.probes]


def serving(url: str, name: str = "a", **fields: Any) -> Backend:
    return row(name, endpoint=Endpoint(name, 1, url), **fields)


async def test_each_capability_is_asked_once_unless_again() -> None:
    async with FakeEngine() as fake:
        engines = Engines(serving(fake.url))
        first = await engines.probe("chat", "completion", "embedding", "logprobs", name="alias")
        count = len(fake.posts)
        second = await engines.probe("chat", "completion", "embedding", "logprobs")
        again = await engines.probe("chat", again=True)

    assert first == second == again
    expected = {"chat": VERIFIED, "completion": VERIFIED, "embedding": VERIFIED, "tools": DECLARED}
    assert {name: first[0][name] for name in expected} == expected
    assert (count, len(fake.posts), engines.published) == (4, 5, 3)


async def test_every_different_engine_of_a_name_is_tested_and_equal_ones_once() -> None:
    async with FakeEngine() as fake:
        engines = Engines(serving(fake.url), serving(fake.url, "b"), serving(fake.url, "c"))
        engines.store.refresh({"a": llama(), "b": llama(slots=2), "c": llama()})

        assert len(await engines.probe("chat")) == 2
        assert len(fake.posts) == 2


async def test_what_an_engine_refuses_it_cannot_and_what_it_fails_at_by_chance_is_no_proof() -> None:
    async with FakeEngine() as fake:
        engines = Engines(serving(fake.url))
        fake.script("status_400_vllm")
        assert (await engines.probe("vision"))[0]["vision"] == FAILED
        fake.script(default="status_503_vllm")
        with pytest.raises(Problem) as caught:
            await engines.probe("chat")
        fake.script()
        after = await engines.probe("chat")

    assert (caught.value.status, caught.value.code) == (502, "engine_failed")
    assert after[0]["chat"] == VERIFIED


async def test_an_engine_that_does_not_serve_is_not_tested() -> None:
    engines = Engines(row())
    with pytest.raises(Problem) as gone:
        await engines.probe()
    engines.outcome = WaitOutcome(False, "it is stopped")
    with pytest.raises(Problem, match="it is stopped"):
        await engines.probe()
    with pytest.raises(KeyError):
        await engines.probe(name="nobody")

    assert gone.value.status == 503


async def test_a_daemons_models_are_tested_in_its_own_words() -> None:
    async with FakeOllama() as daemon:
        endpoint = Endpoint("a", 1, daemon.url.removesuffix("/v1"), dialect=Dialect.OLLAMA)
        engines = Engines(row(kind="ollama", endpoint=endpoint, facts={"smollm2:135m": ModelFacts(num_ctx=512)}))
        engines.table = Table(1, {"m": PublicModel("m", (Target("a", "smollm2:135m"),))}, {}, (), engines.rows)
        told = (await engines.probe("chat", "completion", "vision"))[0]

    assert (told["chat"], told["completion"]) == (VERIFIED, VERIFIED)
    assert set(told) == {"chat", "completion", "vision"}
